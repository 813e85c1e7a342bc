"""The conditioned forecast: nothing without a judgement, a shift towards it, and a narrowing that adds up."""

import datetime as dt
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from finllm.errors import InputError
from finllm.tools.data.factors import MoveUnit
from finllm.tools.data.market import MarketStore
from finllm.tools.forecasts.conditioned import (
    KEPT_SPREAD,
    Conditioned,
    ShockJudgement,
    condition,
    condition_all,
    narrowing,
)
from finllm.tools.forecasts.forecast import Band, Forecast
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.shocks import JudgedShock, judged_shock
from finllm.tools.pnl.sizes import FactorView

AS_OF = dt.date(2022, 6, 30)


def made(unit: MoveUnit = "return", point: float = 0.004, half: float = 0.06, name: str = "SP500") -> Forecast:
    bands = tuple(
        Band(level=level, lower=point - k * half, upper=point + k * half) for level, k in ((0.8, 1), (0.95, 2))
    )
    return Forecast(name=name, horizon=20, steps=20, unit=unit, point=point, bands=bands, model="m", window="w",
                    last=AS_OF, stale=False)  # fmt: skip


def judged(move: float, probability: float, unit: MoveUnit = "return") -> ShockJudgement:
    direction = "up" if move > 0 else "down" if move < 0 else "none"
    return ShockJudgement(factor="EQUITY_US", direction=direction, size="large" if move else None,
                          probability=probability, move=move, unit=unit)  # fmt: skip


MOVES = st.floats(-0.6, 0.6).filter(lambda move: abs(move) > 1e-6)
CHANCES = st.floats(0.0, 1.0)
UNITS = st.sampled_from(["return", "bp", "points"])


@given(MOVES, UNITS)
def test_no_judgement_and_probability_zero_change_nothing(move: float, unit: MoveUnit) -> None:
    base = made(unit)
    for judgement in (None, judged(move, 0.0, unit)):
        same = condition(base, judgement)
        assert (same.point, same.bands, same.stretch) == (base.point, base.bands, 1.0)
        assert narrowing(base, same) == 0.0


@given(MOVES, UNITS)
def test_a_vanishing_probability_changes_next_to_nothing(move: float, unit: MoveUnit) -> None:
    near = condition(made(unit), judged(move, 1e-9, unit))
    assert near.point == pytest.approx(made(unit).point, abs=1e-6)
    assert near.stretch == pytest.approx(1.0, abs=1e-5)


@given(MOVES, UNITS)
def test_certainty_puts_the_judged_move_in_the_middle_of_a_narrower_interval(move: float, unit: MoveUnit) -> None:
    sure = condition(made(unit), judged(move, 1.0, unit))
    assert sure.point == pytest.approx(move)
    assert sure.stretch == pytest.approx(KEPT_SPREAD)
    assert narrowing(made(unit), sure) == pytest.approx(-math.log(KEPT_SPREAD))


@given(MOVES, st.floats(0.5, 1), st.floats(0.5, 1))
def test_above_one_half_less_probability_is_a_wider_interval(move: float, one: float, other: float) -> None:
    assume(abs(one - other) > 1e-6)
    less, more = (condition(made(), judged(move, chance)) for chance in sorted((one, other)))
    assert less.spread > more.spread
    assert narrowing(less, more) > 0 > narrowing(more, less)


@given(MOVES, CHANCES, CHANCES, UNITS)
def test_the_more_probable_the_nearer_to_the_judged_move(move: float, one: float, other: float, unit: MoveUnit) -> None:
    less, more = (condition(made(unit), judged(move, chance, unit)) for chance in sorted((one, other)))
    assert abs(more.point - move) <= abs(less.point - move) + 1e-12


@given(MOVES, CHANCES)
def test_the_moments_are_those_of_the_mixture(move: float, chance: float) -> None:
    base = made("bp", point=2.0, half=12.8155)
    got = condition(base, judged(100 * move, chance, "bp"))
    mean = (1 - chance) * 2 + chance * 100 * move
    second = (1 - chance) * (100 + 4) + chance * (KEPT_SPREAD**2 * 100 + (100 * move) ** 2)
    assert got.mean == pytest.approx(mean, abs=1e-9)
    assert got.spread**2 == pytest.approx(second - mean**2, rel=1e-4)


@given(MOVES, CHANCES, UNITS)
def test_bands_stay_nested_around_the_point_and_no_return_reaches_minus_one(
    move: float, chance: float, unit: MoveUnit
) -> None:
    got = condition(made(unit), judged(move, chance, unit))
    inner, outer = got.bands
    assert outer.lower < inner.lower < got.point < inner.upper < outer.upper
    assert unit != "return" or outer.lower > -1


@given(MOVES, MOVES, CHANCES, CHANCES)
def test_narrowing_adds_along_a_chain(move: float, other: float, one: float, two: float) -> None:
    start = made()
    first, second = condition(start, judged(move, one)), condition(start, judged(other, two))
    assert narrowing(start, second) == pytest.approx(narrowing(start, first) + narrowing(first, second), abs=1e-9)
    assert narrowing(first, second) == pytest.approx(-narrowing(second, first), abs=1e-9)
    assert narrowing(start, second, 0.95) == pytest.approx(narrowing(start, second), abs=1e-9)


def test_a_fall_is_not_certainty() -> None:
    fallen = condition(made(), judged(-0.5, 1.0))
    risen = condition(made(), judged(0.5, 1.0))
    assert narrowing(made(), fallen) == pytest.approx(narrowing(made(), risen))


def test_a_judgement_of_a_tool_conditions_the_factors_forecast() -> None:
    market = MarketStore()
    view = FactorView(FactorSet.default(market), market, AS_OF)
    shock = judged_shock(JudgedShock("EQUITY_US", "down", "large"), view, 20)
    judgement = ShockJudgement.of(shock, "down", "large", 0.6)
    both = condition_all({"EQUITY_US": made(), "CREDIT_BAA_AAA": made("bp", name="BAA_AAA")}, {"EQUITY_US": judgement})
    equity, credit = both["EQUITY_US"], both["CREDIT_BAA_AAA"]
    assert equity.point < made().point
    assert equity.judgement == judgement
    assert credit.stretch == 1.0
    assert Conditioned.model_validate_json(equity.model_dump_json()) == equity


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(InputError, match="was judged in 'bp', and 'SP500' is forecast in 'return'"):
        condition(made(), judged(10.0, 0.5, "bp"))
    with pytest.raises(InputError, match="are not one forecast"):
        narrowing(made(), made(name="KO"))
    with pytest.raises(InputError, match="no 50% interval"):
        narrowing(made(), made(), 0.5)
    with pytest.raises(InputError, match="has no width"):
        condition(made(half=0.0), judged(0.1, 0.5))
    with pytest.raises(InputError, match="has no interval"):
        condition(made().model_copy(update={"bands": ()}), judged(0.1, 0.5))
    with pytest.raises(InputError, match="judged return"):
        condition(made(), judged(-1.0, 0.5))


@pytest.mark.parametrize(
    "wrong",
    [{"direction": "up"}, {"probability": 1.5}, {"size": None}, {"move": float("nan")}, {"direction": "none"}],
)
def test_an_incoherent_judgement_is_no_judgement(wrong: dict[str, object]) -> None:
    whole: dict[str, object] = {
        "factor": "EQUITY_US", "direction": "down", "size": "large", "probability": 0.5, "move": -0.1, "unit": "return",
    }  # fmt: skip
    assert ShockJudgement.model_validate(whole).move == -0.1
    with pytest.raises(ValidationError):
        ShockJudgement.model_validate({**whole, **wrong})
