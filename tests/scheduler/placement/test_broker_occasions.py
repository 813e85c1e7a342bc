"""The table of occasions says what a mechanism of the policy earns, not what the work at hand does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks.broker.cells import DAY
from benchmarks.broker.occasions import MANY, Place, crowded, shared, valued

DAY_OF_TWO = Place("edge-deep", DAY, 0)


def test_knowing_what_backends_hold_saves_joules_of_the_same_work() -> None:
    aware, blind = (shared(Place(MANY, DAY, 0), on, "joules") for on in (True, False))
    assert aware < 0.9 * blind


def test_ordering_by_value_keeps_more_of_the_value() -> None:
    assert valued(DAY_OF_TWO, True) > valued(DAY_OF_TWO, False)


@pytest.mark.parametrize("seed", [0, 3])
def test_turns_keep_the_service_gap_within_its_bound(seed: int) -> None:
    kept, open_ = (crowded(replace(DAY_OF_TWO, seed=seed), on) for on in (True, False))
    assert kept <= 1.0
    assert kept < open_
