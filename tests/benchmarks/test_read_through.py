"""A move of a run beside what the nearest episode says that it should be."""

import pytest
from benchmarks.read_through.verdicts import Row, Verdict, expected

from finllm.scenarios import SCENARIOS_DIR
from finllm.tools.data.factors import FACTOR_IDS


@pytest.mark.parametrize(
    ("move", "low", "high", "said"),
    [
        (-5.0, -10.0, -2.0, "right"),
        (5.0, -10.0, -2.0, "wrong sign"),
        (-1.0, -10.0, -2.0, "too small"),
        (-11.0, -10.0, -2.0, "too large"),
        (1.0, 2.0, 9.0, "too small"),
        (-0.1, 0.0, 9.0, "wrong sign"),
        (12.0, 2.0, 9.0, "too large"),
        (None, 2.0, 9.0, "not moved"),
        (0.0, 2.0, 9.0, "not moved"),
        (None, -2.0, 9.0, "right"),
        (-3.0, -2.0, 9.0, "too large"),
    ],
)
def test_a_move_is_judged_by_sign_and_size(move: float | None, low: float, high: float, said: Verdict) -> None:
    assert Row("X", move, "model", low, high, "").verdict == said


def test_every_shipped_scenario_and_every_judged_factor_is_expected() -> None:
    found = expected()
    assert set(found) == {path.stem for path in SCENARIOS_DIR.glob("*.yaml")}
    for one in found.values():
        assert tuple(one.factors) == FACTOR_IDS
        assert len(one.sectors) == 8
        assert all(low <= high and why for low, high, why in (*one.factors.values(), *one.sectors.values()))
