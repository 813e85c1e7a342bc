"""What is changed in a home is named by `audit verify` or has no effect, and no reader is told a changed answer."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from finllm.errors import FinllmError, RecordError
from finllm.guardrails.audit import open_recorder
from tests.guardrails.audit.home_attacks import ATTACKS, Victim, answers, build, verdict
from tests.soak import Soak

SEEDS, CLEAN, EDITS = 2, 5, 10
"""`make soak-full` plays 50 of each, 500 clean homes and 500 random edits."""


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_on_a_home_is_named_or_without_effect(name: str, tmp_path: Path) -> None:
    for seed in range(SEEDS):
        assert_named_or_harmless(name, seed, tmp_path / str(seed))


@pytest.mark.soak
def test_every_attack_on_a_home_is_named_or_without_effect_from_any_seed(soak: Soak, tmp_path: Path) -> None:
    for seed in soak.rounds(50):
        for name in ATTACKS:
            assert_named_or_harmless(name, seed, tmp_path / name / str(seed))
        soak.figure(attacks=len(ATTACKS))


def test_a_home_that_nobody_touched_raises_no_alarm(tmp_path: Path) -> None:
    for seed in range(CLEAN):
        assert_no_alarm(seed, tmp_path / str(seed))


@pytest.mark.soak
def test_a_home_that_nobody_touched_raises_no_alarm_from_any_seed(soak: Soak, tmp_path: Path) -> None:
    for seed in soak.rounds(500):
        assert_no_alarm(seed, tmp_path / str(seed))


def test_a_byte_changed_anywhere_changes_no_answer_without_a_word(tmp_path: Path) -> None:
    for seed in range(EDITS):
        assert_a_byte_is_harmless(seed, tmp_path / str(seed))


@pytest.mark.soak
def test_a_byte_changed_anywhere_changes_no_answer_without_a_word_from_any_seed(soak: Soak, tmp_path: Path) -> None:
    for seed in soak.rounds(500):
        assert_a_byte_is_harmless(seed, tmp_path / str(seed))


def test_a_run_does_not_go_on_from_an_edited_answer(tmp_path: Path) -> None:
    victim = build(tmp_path, 1)
    key = next(key for key in victim.keys if key.startswith("call"))
    victim.sql("UPDATE entry SET response = replace(response, 'large', 'small') WHERE key = ?", key)
    with (
        contextlib.closing(open_recorder(victim.settings)) as ledger,
        pytest.raises(RecordError, match=f"the call {key[:12]} is not what it was") as refusal,
    ):
        ledger.lookup(key)
    assert "finllm audit verify" in refusal.value.fix


def assert_named_or_harmless(name: str, seed: int, folder: Path) -> None:
    victim = build(folder, seed)
    before = answers(victim)
    ATTACKS[name](victim)
    assert_nothing_changed_unsaid(victim, before, (name, seed))


def assert_a_byte_is_harmless(seed: int, folder: Path) -> None:
    victim = build(folder, seed)
    before = answers(victim)
    files = [path for path in sorted(victim.settings.home.rglob("*")) if path.is_file() and path.stat().st_size]
    path = victim.random.choice(files)
    data = bytearray(path.read_bytes())
    for _ in range(victim.random.randrange(1, 4)):
        data[victim.random.randrange(len(data))] ^= victim.random.randrange(1, 256)
    path.write_bytes(data)
    assert_nothing_changed_unsaid(victim, before, (path.name, seed))


def assert_nothing_changed_unsaid(victim: Victim, before: dict[str, Any], what: tuple[str, int]) -> None:
    """Readers are told what they were told before, or an error, or less than before with a word of `verify`."""
    now = answers(victim)
    damage, home = verdict(victim)
    said = damage or any(one.problems or one.notes for one in home)
    for name, told in now.items():
        if isinstance(told, FinllmError) or told == before[name]:
            continue
        less = told is None or (isinstance(told, list) and all(one in before[name] for one in told))
        less = less or told == (before[name][0], None)
        assert less, (what, name, told, before[name])
        assert said, (what, name, told)
    assert said or now == before, what


def assert_no_alarm(seed: int, folder: Path) -> None:
    victim = build(folder, seed)
    damage, home = verdict(victim)
    assert damage == "", seed
    assert [(one.problems, one.notes) for one in home] == [((), ())] * len(home), (seed, home)
    assert not any(isinstance(told, FinllmError) for told in answers(victim).values())
