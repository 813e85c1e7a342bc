"""Prices of options: Black–Scholes–Merton over arrays, American exercise over arrays too, implied volatility."""

from __future__ import annotations

import math
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from finllm.tools.instruments.families import Boundaries

MIN_VOLATILITY = 0.01
"""Where a fall of the VIX would take an option's volatility below this, it stops here (or where it was, if lower)."""
SMALLEST, LARGEST = 1e-3, 5.0
"""Volatilities between which the one of an American price is sought."""
MOST_TRIES, MET = 60, 1e-12
"""Steps to it at most, five as a rule; the share of the larger of spot and strike by which the price may be missed."""
_TINY = 1e-12


@cache
def quantlib() -> Any:
    """The QuantLib module, imported by whoever first needs it: it carries no types, and takes a while to load."""
    return import_module("QuantLib")


def black_scholes(
    call: np.ndarray, spot: np.ndarray, strike: np.ndarray, years: np.ndarray, volatility: np.ndarray,
    rate: np.ndarray, dividend: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Price of European options on one unit, in the price's own unit; all arguments broadcast together. No NaN.

    `call` is bool, `years` ACT/365, `volatility`, `rate` and `dividend` decimals a year, the last two continuously
    compounded. A spot of zero, no time or no volatility give the discounted intrinsic value of the forward.
    Source: Black and Scholes 1973; Merton 1973, with a dividend yield.
    """
    from scipy.special import ndtr

    sign = np.where(call, 1.0, -1.0)
    carried, paid = spot * np.exp(-dividend * years), strike * np.exp(-rate * years)
    spread = np.maximum(volatility * np.sqrt(np.maximum(years, 0.0)), _TINY)
    with np.errstate(divide="ignore"):  # the logarithm of a spot of zero is −∞, and its probability 0 or 1
        upper = np.log(carried / paid) / spread + 0.5 * spread
    return np.maximum(sign * (carried * ndtr(sign * upper) - paid * ndtr(sign * (upper - spread))), 0.0)


def forward_value(
    spot: np.ndarray, strike: np.ndarray, years: np.ndarray, rate: np.ndarray, dividend: np.ndarray
) -> np.ndarray:
    """Value of buying one unit at `strike` in `years`: S·e^(−q·T) − K·e^(−r·T); a call less a put."""
    return spot * np.exp(-dividend * years) - strike * np.exp(-rate * years)


def early_exercise_can_pay(call: np.ndarray, rate: np.ndarray, dividend: np.ndarray) -> np.ndarray:
    """Whether an American option may be worth more than a European one: a call with dividends, a put with interest."""
    return np.where(call, dividend > 0, rate > 0)


def american(
    call: np.ndarray, spot: np.ndarray, strike: np.ndarray, years: np.ndarray, volatility: np.ndarray,
    rate: np.ndarray, dividend: np.ndarray, *, source: Boundaries | None = None,
) -> np.ndarray:  # fmt: skip
    """Price of American options, as `black_scholes`; boundaries from a `source` where many share no expiry.

    Where early exercise cannot pay it is the European price; elsewhere Kim's integral (1990) over the boundary of
    Andersen, Lake and Offengenden (2016), whose error is below 1e-6 of the larger of spot and strike, 5e-6 beyond four
    years. In many scenarios (a last axis along which `call`, `years` and `dividend` stay) boundaries are read from
    polynomials, to 1e-8.
    """
    from finllm.tools.instruments.american import Puts
    from finllm.tools.instruments.families import values

    parts = np.broadcast_arrays(call, spot, strike, years, volatility, rate, dividend)
    value = np.asarray(black_scholes(*parts))
    early = early_exercise_can_pay(parts[0], parts[5], parts[6])
    early &= ~parts[0] | (parts[1] > _TINY * parts[2])  # a call on nothing is worth nothing
    if not early.any():
        return value
    keys = np.stack([np.asarray(one, dtype=float) for one in np.broadcast_arrays(call, years, dividend)])
    labels = np.unique(keys.reshape(3, -1), axis=1, return_inverse=True)[1].reshape(keys.shape[1:])
    family = np.broadcast_to(labels, value.shape)[early]
    call, spot, strike, years, volatility, rate, dividend = (part[early] for part in parts)
    own, other = np.where(call, spot, strike), np.where(call, strike, spot)
    interest, carry = np.where(call, dividend, rate) * years, np.where(call, rate, dividend) * years
    puts = Puts(volatility * np.sqrt(years), interest, carry)
    value[early] = own * values(puts, other / own, value[early] / own, family, source)
    return value


def price(
    call: bool, spot: float, strike: float, years: float, volatility: float, rate: float, dividend: float,
    *, is_american: bool = False,
) -> float:  # fmt: skip
    """One option's price, as `black_scholes` or `american` over arrays."""
    if is_american:
        given = (np.array(one) for one in (call, spot, strike, years, volatility, rate, dividend))
        return float(american(*given))
    ql = quantlib()
    forward, discount = spot * math.exp((rate - dividend) * years), math.exp(-rate * years)
    kind = ql.Option.Call if call else ql.Option.Put
    return float(ql.blackFormula(kind, strike, forward, volatility * math.sqrt(years), discount))


def implied_volatility(
    premium: float, call: bool, spot: float, strike: float, years: float, rate: float, dividend: float,
    *, is_american: bool = False,
) -> float | None:  # fmt: skip
    """The volatility at which an option is worth `premium`, a decimal a year; None where no volatility gives it."""
    ql = quantlib()
    forward, discount = spot * math.exp((rate - dividend) * years), math.exp(-rate * years)
    kind = ql.Option.Call if call else ql.Option.Put
    try:
        spread = ql.blackFormulaImpliedStdDev(kind, strike, forward, premium, discount, 0.0, ql.nullDouble(), 1e-12)
        european = float(spread) / math.sqrt(years)
    except RuntimeError:  # below its intrinsic value, or above all that it can be worth
        european = None
    if not is_american:
        return european
    return american_volatilities(*(np.array([one]) for one in (premium, call, spot, strike, years, rate, dividend)))[0]


def american_volatilities(
    premium: np.ndarray, call: np.ndarray, spot: np.ndarray, strike: np.ndarray, years: np.ndarray, rate: np.ndarray,
    dividend: np.ndarray,
) -> list[float | None]:  # fmt: skip
    """`implied_volatility` of American options, arrays (n,): all of them are sought together.

    Newton's steps with the European vega, then the secant's, halving where they leave the bracket. The European
    volatility is above the American one, as early exercise is worth something.
    """
    terms = [np.asarray(one, dtype=float) for one in (premium, spot, strike, years, rate, dividend)]
    european = [implied_volatility(one[0], bool(is_call), *one[1:]) for is_call, *one in zip(call, *terms, strict=True)]
    found = np.array([math.nan if one is None else one for one in european])
    early = np.flatnonzero(early_exercise_can_pay(call, rate, dividend))
    if early.size:
        premium, spot, strike, years, rate, dividend = (one[early] for one in terms)
        high = np.clip(np.where(np.isnan(found[early]), LARGEST, 1.001 * found[early]), 2.0 * SMALLEST, LARGEST)
        first = np.clip(np.where(np.isnan(found[early]), 0.3, found[early]), SMALLEST, high)
        found[early] = _together(premium, [call[early], spot, strike, years, rate, dividend], first, high)
    return [None if math.isnan(one) else float(one) for one in found]


def _together(premium: np.ndarray, terms: list[np.ndarray], tried: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Volatilities (n,) up to `high` at which American options are worth `premium`, from a first guess; else NaN."""
    size = np.maximum(terms[1], terms[2])

    def excess(some: np.ndarray, volatility: np.ndarray) -> np.ndarray:
        call, spot, strike, years, rate, dividend = (one[some] for one in terms)
        return american(call, spot, strike, years, volatility, rate, dividend) - premium[some]

    least = np.full(len(premium), SMALLEST)
    found = np.full(len(premium), math.nan)
    open_ = np.flatnonzero(excess(np.arange(len(premium)), least) < 0)
    low, last, over = least.copy(), np.full(len(premium), math.nan), np.full(len(premium), math.nan)
    for _ in range(MOST_TRIES):
        if not open_.size:
            break
        at, miss = tried[open_], excess(open_, tried[open_])
        high[open_], low[open_] = np.where(miss > 0, at, high[open_]), np.where(miss < 0, at, low[open_])
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (miss - over[open_]) / (at - last[open_])
            slope = np.where(slope > 0, slope, _vega([one[open_] for one in terms], at))
            step = at - miss / slope
        last[open_], over[open_] = at, miss
        inside = (step > low[open_]) & (step < high[open_])
        tried[open_] = np.where(inside, step, 0.5 * (low[open_] + high[open_]))
        there = (np.abs(miss) <= MET * size[open_]) | (high[open_] - low[open_] <= MET * at)
        met = open_[there & (np.abs(miss) <= 1e3 * MET * size[open_])]
        found[met] = last[met]
        open_ = open_[~there]
    return found


def _vega(terms: list[np.ndarray], volatility: np.ndarray) -> np.ndarray:
    """Of European options: a price's change per unit of volatility."""
    _, spot, strike, years, rate, dividend = terms
    spread = volatility * np.sqrt(years)
    upper = (np.log(spot / strike) + (rate - dividend) * years) / spread + 0.5 * spread
    return spot * np.exp(-dividend * years) * np.exp(-0.5 * upper**2) * np.sqrt(years / (2.0 * np.pi))


def implied_spot(
    premium: float, call: bool, strike: float, years: float, volatility: float, rate: float, dividend: float,
    *, is_american: bool = False,
) -> float | None:  # fmt: skip
    """The price of the underlying at which an option of this volatility is worth `premium`; None where none is."""
    from scipy.optimize import brentq

    def excess(spot: float) -> float:
        value = price(call, spot, strike, years, volatility, rate, dividend, is_american=is_american)
        return value - premium

    low, high = 1e-3 * strike, 1e3 * strike
    if excess(low) * excess(high) >= 0:
        return None
    found = brentq(excess, low, high, xtol=1e-12 * strike)
    assert isinstance(found, float)
    return found
