"""Whatever is done to a log that a witness saw is found and the record named; an untouched log raises no alarm."""

from __future__ import annotations

from pathlib import Path

import pytest

from finllm.guardrails.audit import read_witnessed, verify_log
from tests.guardrails.audit.attacks import ATTACKS, Victim, build
from tests.soak import Soak

SEEDS, CLEAN = 4, 20
"""`make soak-full` plays 200 of each and looks at 2,000."""


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_caught_and_the_first_bad_record_named(name: str, tmp_path: Path) -> None:
    for seed in range(SEEDS):
        assert_caught(name, seed, tmp_path / str(seed))


@pytest.mark.soak
def test_every_attack_is_caught_from_any_seed(soak: Soak, tmp_path: Path) -> None:
    for seed in soak.rounds(200):
        for name in ATTACKS:
            assert_caught(name, seed, tmp_path / name / str(seed))
        soak.figure(attacks=len(ATTACKS))


def assert_caught(name: str, seed: int, folder: Path) -> None:
    assert_caught_in(build(folder, seed), name, seed)


def assert_caught_in(victim: Victim, name: str, seed: int, also: tuple[str, ...] = ()) -> None:
    """`also`: other words that are right for what is done to this log."""
    expected = ATTACKS[name](victim)
    verdict = verify_log(victim.folder, read_witnessed(victim.witness))
    assert verdict.first is not None, (name, seed)
    assert verdict.first.index == expected.index, (name, seed, verdict.damage)
    assert verdict.first.kind in (*expected.kinds, *also), (name, seed, verdict.damage)
    assert not verdict.complete


def test_a_log_that_nobody_touched_raises_no_alarm(tmp_path: Path) -> None:
    for seed in range(CLEAN):
        assert_no_alarm(seed, tmp_path / str(seed))


@pytest.mark.soak
def test_a_log_that_nobody_touched_raises_no_alarm_from_any_seed(soak: Soak, tmp_path: Path) -> None:
    for seed in soak.rounds(2000):
        assert_no_alarm(seed, tmp_path / str(seed))


def assert_no_alarm(seed: int, folder: Path) -> None:
    victim = build(folder, seed, fewest=1)
    verdict = verify_log(victim.folder, read_witnessed(victim.witness))
    assert verdict.damage == (), seed
    assert (verdict.complete, verdict.size, verdict.witnessed) == (True, victim.size, victim.seen)
    assert not verify_log(victim.folder).complete, "without a witness completeness is unproven"
