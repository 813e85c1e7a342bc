"""American prices against QuantLib's most precise engine, alone and by the thousand, and what none may break."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finllm.tools.instruments.options import american, black_scholes, price

from .directly import priced, ql

NAMES = ("call", "spot", "strike", "years", "volatility", "rate", "dividend")
SMALL = 1e-6
"""Smaller rates and dividends than this are 0 here: QuantLib's quadrature fails on a rate of 1e-14."""
TERMS = st.fixed_dictionaries(
    {
        "call": st.booleans(), "spot": st.floats(1, 500), "strike": st.floats(1, 500), "days": st.integers(1, 1500),
        "volatility": st.floats(0.02, 5.0), "rate": st.just(0.0) | st.floats(SMALL, 0.12),
        "dividend": st.just(0.0) | st.floats(SMALL, 0.1),
    }
)  # fmt: skip
NEAR_MONEY = st.builds(lambda one, apart: one | {"spot": one["strike"] * apart}, TERMS, st.floats(0.7, 1.4))
DEEP_PUT = {"call": False, "spot": 7.0, "strike": 33.0, "days": 569, "volatility": 1.0, "rate": 0.0625, "dividend": 0.0}
"""A put on which QuantLib's fast scheme errs by 2e-5 of the strike."""
CALM_PUT = {"call": False, "spot": 100.0, "strike": 100.0, "days": 938, "volatility": 0.005, "rate": 0.104,
            "dividend": 0.005}  # fmt: skip
"""Hardly a volatility, and a drift that takes the spot out of reach within days: QuantLib's accurate scheme errs by
1.7e-5 of the strike."""


def ours(one: dict[str, Any], pricer: Any = american) -> float:
    given = one | {"years": one["days"] / 365}
    return float(pricer(*(np.array(given[name]) for name in NAMES)))


def precisely(one: dict[str, Any]) -> float:
    """QuantLib's `QdFpAmericanEngine` at its highest precision."""
    engine, scheme = ql.QdFpAmericanEngine, ql.QdFpAmericanEngine.highPrecisionScheme()
    return priced(one, lambda process: engine(process, scheme), american=True)


@settings(max_examples=120, deadline=None)
@given(one=TERMS | NEAR_MONEY)
@example(one=DEEP_PUT)
@example(one=CALM_PUT)
def test_a_price_is_that_of_quantlib_at_its_highest_precision(one: dict[str, Any]) -> None:
    assert ours(one) == pytest.approx(precisely(one), abs=1e-6 * max(one["spot"], one["strike"]))


@settings(max_examples=300, deadline=None)
@given(one=TERMS | NEAR_MONEY, rate=st.floats(-0.05, 0.12), dividend=st.floats(-0.05, 0.12))
def test_a_price_lies_between_what_it_gives_at_once_or_at_the_end_and_all_it_can_give(
    one: dict[str, Any], rate: float, dividend: float
) -> None:
    one = one | {"rate": rate, "dividend": dividend}
    found, rounding = ours(one), 1e-12 * max(one["spot"], one["strike"])
    assert found >= ours(one, black_scholes) - rounding
    if dividend > 0 if one["call"] else rate > 0:
        assert found >= (one["spot"] - one["strike"]) * (1 if one["call"] else -1) - rounding
        assert found <= (one["spot"] if one["call"] else one["strike"]) + 1e-6 * max(one["spot"], one["strike"])
    else:
        assert found == ours(one, black_scholes)  # early exercise cannot pay


@settings(max_examples=300, deadline=None)
@given(one=TERMS | NEAR_MONEY, more=st.floats(1.0, 2.0), scale=st.floats(0.01, 100.0))
def test_more_volatility_is_worth_no_less_and_prices_scale(one: dict[str, Any], more: float, scale: float) -> None:
    found, size = ours(one), max(one["spot"], one["strike"])
    assert ours(one | {"volatility": more * one["volatility"]}) >= found - 1e-6 * size
    scaled = one | {"spot": scale * one["spot"], "strike": scale * one["strike"]}
    assert ours(scaled) == pytest.approx(scale * found, abs=1e-9 * scale * size)


def test_deep_in_the_money_it_is_worth_what_exercise_gives_to_the_last_digit() -> None:
    assert price(False, 40.0, 100.0, 0.5, 0.2, 0.05, 0.01, is_american=True) == 60.0
    assert price(True, 250.0, 100.0, 0.5, 0.2, 0.01, 0.05, is_american=True) == 150.0
    assert price(False, 0.0, 50.0, 1.0, 0.3, 0.05, 0.0, is_american=True) == 50.0
    assert price(True, 0.0, 50.0, 1.0, 0.3, 0.05, 0.02, is_american=True) == 0.0


def test_without_volatility_the_best_day_is_chosen() -> None:
    """At q > r the spot falls: a put is exercised where interest on the strike outweighs the dividends on the spot."""
    spot, strike, rate, dividend, years = 45.0, 100.0, 0.04, 0.1, 5.0
    best = math.log(dividend * spot / (rate * strike)) / (dividend - rate)
    assert 1.9 < best < 2.0
    exact = strike * math.exp(-rate * best) - spot * math.exp(-dividend * best)
    for volatility in (0.0, 1e-6, 1e-4):
        found = price(False, spot, strike, years, volatility, rate, dividend, is_american=True)
        assert found == pytest.approx(exact, abs=1e-6 * strike)


def test_at_expiry_it_is_worth_what_exercise_gives() -> None:
    assert price(False, 90.0, 100.0, 0.0, 0.2, 0.05, 0.0, is_american=True) == pytest.approx(10.0)
    assert price(False, 90.0, 100.0, 1e-9, 0.2, 0.05, 0.0, is_american=True) == pytest.approx(10.0)


FAMILIES = st.fixed_dictionaries(
    {
        "call": st.booleans(), "years": st.floats(0.02, 4.0), "volatility": st.floats(0.08, 0.8),
        "rate": st.floats(0.0, 0.08), "dividend": st.one_of(st.just(0.0), st.floats(0.0, 0.08)),
    }
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(one=FAMILIES, rate_moves=st.booleans(), seed=st.integers(0, 1000))
@example(one={"call": False, "years": 2.0, "volatility": 0.25, "rate": 0.03, "dividend": 0.03}, rate_moves=True, seed=1)
@example(one={"call": True, "years": 0.3, "volatility": 0.2, "rate": 0.04, "dividend": 0.02}, rate_moves=True, seed=2)
@example(one={"call": False, "years": 1.0, "volatility": 0.2, "rate": 0.005, "dividend": 0.0}, rate_moves=True, seed=3)
def test_a_price_among_thousands_is_the_one_asked_for_alone(one: dict[str, Any], rate_moves: bool, seed: int) -> None:
    """A chain of three strikes in 1,000 scenarios, of which a hundred prices are asked for one by one."""
    random = np.random.default_rng(seed)
    spot = 100.0 * (1 + 0.1 * random.standard_normal((1, 1000)))
    volatility = np.maximum(one["volatility"] + 0.05 * random.standard_normal((1, 1000)), 0.01)
    rate = one["rate"] + 0.005 * rate_moves * random.standard_normal((1, 1000))
    strike, years = np.array([[85.0], [100.0], [110.0]]), np.array([[one["years"]]])
    call, dividend = np.array([[one["call"]]]), np.array([[one["dividend"]]])
    many = american(call, spot, strike, years, volatility, rate, dividend)
    assert many.shape == (3, 1000)
    for row, column in zip(random.integers(0, 3, 100), random.integers(0, 1000, 100), strict=True):
        alone = price(one["call"], spot[0, column], strike[row, 0], one["years"], volatility[0, column],
                      rate[0, column], one["dividend"], is_american=True)  # fmt: skip
        assert many[row, column] == pytest.approx(alone, abs=1e-8 * max(strike[row, 0], spot[0, column]))


def test_prices_that_share_no_expiry_are_read_from_a_lattice_and_are_the_ones_asked_for_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """80 options of each their own day, puts and calls, with and without a dividend, in 300 scenarios."""
    from finllm.tools.instruments import lattice

    made: list[bool] = []
    make = lattice._made  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(lattice, "_made", lambda key: (cell := make(key), made.append(cell is not None))[0])
    monkeypatch.setattr(lattice, "ASKED", 300)
    random = np.random.default_rng(5)
    shape, spot = (80, 1), 100.0 * (1 + 0.1 * random.standard_normal((1, 300)))
    call, dividend = random.random(shape) < 0.5, random.choice([0.0, 0.01, 0.03, 0.05], shape)
    strike, years = random.uniform(80, 120, shape), random.uniform(0.1, 1.2, shape)
    volatility = np.maximum(random.uniform(0.15, 0.3, shape) + 0.04 * random.standard_normal((1, 300)), 0.01)
    rate = 0.03 + 0.01 * random.standard_normal((1, 300))
    terms = (call, spot, strike, years, volatility, rate, dividend)
    many, plain = american(*terms, source=lattice.Lattice()), american(*terms)
    assert sum(made) > 10
    np.testing.assert_allclose(many, plain, rtol=0, atol=1e-8 * 120)
    assert not np.array_equal(many, plain)


def test_a_book_with_few_expiries_or_few_scenarios_needs_no_lattice() -> None:
    from finllm.tools.instruments.lattice import worth

    assert worth(5000, 1000)
    assert not worth(24, 1000)
    assert not worth(5000, 10)
