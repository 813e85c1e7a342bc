"""Option prices against QuantLib used directly, and what no option price may break."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.tools.instruments import options
from finllm.tools.instruments.options import (
    american,
    american_volatilities,
    black_scholes,
    forward_value,
    implied_spot,
    implied_volatility,
    price,
)

from .directly import priced, ql

TERMS = st.fixed_dictionaries(
    {
        "call": st.booleans(), "spot": st.floats(1, 500), "strike": st.floats(1, 500), "days": st.integers(1, 1500),
        "volatility": st.floats(0.02, 1.5), "rate": st.floats(-0.02, 0.12), "dividend": st.floats(0, 0.08),
    }
)  # fmt: skip


def arrays(one: dict[str, Any]) -> list[np.ndarray]:
    return [np.array(one[name]) for name in ("call", "spot", "strike", "volatility", "rate", "dividend")]


def ours(one: dict[str, Any]) -> float:
    years = np.array(one["days"] / 365)
    call, spot, strike, *rest = arrays(one)
    return float(black_scholes(call, spot, strike, years, *rest))


def directly(one: dict[str, Any]) -> float:
    return priced(one, ql.AnalyticEuropeanEngine, american=False)


@settings(max_examples=300, deadline=None)
@given(one=TERMS)
def test_a_european_price_is_that_of_quantlib(one: dict[str, Any]) -> None:
    reference = directly(one)
    assert ours(one) == pytest.approx(reference, rel=1e-8, abs=1e-10 * one["strike"])
    years = one["days"] / 365
    scalar = price(one["call"], one["spot"], one["strike"], years, one["volatility"], one["rate"], one["dividend"])
    assert scalar == pytest.approx(reference, rel=1e-8, abs=1e-10 * one["strike"])


@settings(max_examples=200, deadline=None)
@given(one=TERMS)
def test_a_call_less_a_put_is_a_forward(one: dict[str, Any]) -> None:
    years = np.array(one["days"] / 365)
    _, spot, strike, _, rate, dividend = arrays(one)
    apart = ours(one | {"call": True}) - ours(one | {"call": False})
    assert apart == pytest.approx(
        float(forward_value(spot, strike, years, rate, dividend)), abs=1e-11 * (one["spot"] + one["strike"])
    )


@settings(max_examples=200, deadline=None)
@given(one=TERMS, is_american=st.booleans())
def test_the_implied_volatility_gives_the_price_back(one: dict[str, Any], is_american: bool) -> None:
    fixed = one["call"], one["spot"], one["strike"], one["days"] / 365
    rates = max(one["rate"], 0.0), one["dividend"]
    premium = price(*fixed, one["volatility"], *rates, is_american=is_american)
    found = implied_volatility(premium, *fixed, *rates, is_american=is_american)
    if found is None:  # no time value is left to imply one from
        least = price(*fixed, 0.001, *rates, is_american=is_american)
        assert premium == pytest.approx(least, abs=1e-6 * max(one["spot"], one["strike"]))
    elif found > 0:
        assert price(*fixed, found, *rates, is_american=is_american) == pytest.approx(premium, abs=1e-6 * one["strike"])


def test_volatilities_of_a_thousand_american_options_are_sought_together_in_few_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    call, spot, strike = random.random(1000) < 0.5, np.full(1000, 100.0), random.uniform(70, 130, 1000)
    years, volatility = random.integers(7, 730, 1000) / 365, random.uniform(0.1, 0.6, 1000)
    rate, dividend = np.full(1000, 0.03), random.choice([0.0, 0.01, 0.03], 1000)
    premium = american(call, spot, strike, years, volatility, rate, dividend)
    asked: list[int] = []
    monkeypatch.setattr(options, "american", lambda *terms: asked.append(np.size(terms[0])) or american(*terms))
    found = american_volatilities(premium, call, spot, strike, years, rate, dividend)
    assert sum(asked) < 6 * 1000
    assert len(asked) < 25
    for at, one in enumerate(found):
        if one is None:  # at no volatility at all it is worth as much
            least = price(bool(call[at]), 100.0, strike[at], years[at], 0.001, 0.03, dividend[at], is_american=True)
            assert premium[at] == pytest.approx(least, abs=1e-9)
        else:
            again = price(bool(call[at]), 100.0, strike[at], years[at], one, 0.03, dividend[at], is_american=True)
            assert again == pytest.approx(premium[at], abs=1e-6)


def test_a_price_that_no_volatility_gives_has_none() -> None:
    assert implied_volatility(9.0, True, 110.0, 100.0, 0.25, 0.0, 0.0) is None  # below its intrinsic value of 10
    assert implied_volatility(120.0, True, 110.0, 100.0, 0.25, 0.0, 0.0) is None  # dearer than the share


def test_the_implied_spot_gives_the_price_back() -> None:
    found = implied_spot(6.35, False, 640.0, 21 / 365, 0.2, 0.0, 0.0)
    assert found is not None
    assert price(False, found, 640.0, 21 / 365, 0.2, 0.0, 0.0) == pytest.approx(6.35, abs=1e-9)


def test_the_ends_of_the_range_are_prices_too() -> None:
    both = np.array([True, False])
    nothing = black_scholes(both, np.zeros(2), np.full(2, 100.0), *(np.array(one) for one in (0.25, 0.2, 0.0, 0.0)))
    assert nothing.tolist() == [0.0, 100.0]
    still = black_scholes(both, np.full(2, 110.0), np.full(2, 100.0), *(np.array(one) for one in (0.0, 0.0, 0.0, 0.0)))
    assert still.tolist() == [10.0, 0.0]
