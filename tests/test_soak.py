"""A campaign plays what was asked for, goes on where it was stopped, and shows what it played."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import Plan, Round, Soak, read, table


def played(plan: Plan, most: int = 20, stop_at: int | None = None) -> list[int]:
    """The seeds of a test's rounds; one that fails at `stop_at` ends them."""
    seen: list[int] = []
    soak = Soak("test_x", plan)
    for seed in soak.rounds(most):
        seen.append(seed)
        if seed == stop_at:
            break
        soak.figure(killed=1)
    return seen


def test_a_test_named_by_itself_plays_one_round_and_a_slice_at_least_one() -> None:
    assert len(played(Plan(seed=1, full=False, again=None))) == 1
    assert len(played(Plan(seed=1, full=False, again=None, share=0.0))) == 1


def test_a_slice_with_time_plays_every_round_once_in_an_order_drawn_from_the_seed() -> None:
    first, again, other = (played(Plan(seed, full=False, again=None, share=60.0)) for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == sorted(other) == list(range(20))


def test_a_round_is_played_again_by_its_seed() -> None:
    assert played(Plan(seed=1, full=False, again=17)) == [17]


@pytest.mark.parametrize("torn", ["", '\n{"test": "test_x", "se'])
def test_a_full_campaign_goes_on_after_the_last_round_that_ended(torn: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    assert played(Plan(1, full=True, again=None, kept=kept), stop_at=7) == list(range(8))
    with kept.open("a") as file:
        file.write(torn)
    before = read(kept)
    plan = Plan(1, full=True, again=None, kept=kept, done={(one.test, one.seed) for one in before}, played=before)
    assert played(plan) == list(range(7, 20))
    assert sorted(one.seed for one in read(kept)) == list(range(20))


def test_the_table_adds_up_each_test_s_rounds() -> None:
    rounds = [Round("test_x", 1, 2.0, {"killed": 1}), Round("test_x", 2, 4.0, {}), Round("test_y", 1, 1.0, {})]
    assert table(rounds)[2:] == [
        "| test_x | 2 | 6.0 | 3.00 | killed 1 |",
        "| test_y | 1 | 1.0 | 1.00 | - |",
    ]
