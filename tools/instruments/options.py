"""Prices of options: Black–Scholes–Merton over arrays, American exercise over arrays too, implied volatility."""

from __future__ import annotations

import math
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

MIN_VOLATILITY = 0.01
"""Where a fall of the VIX would take an option's volatility below this, it stops here (or where it was, if lower)."""
ZOOMS = 5
"""Times that the volatilities between which an American price lies are narrowed elevenfold."""
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
    rate: np.ndarray, dividend: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Price of American options, as `black_scholes`.

    Where early exercise cannot pay it is the European price; elsewhere Kim's integral (1990) over the boundary of
    Andersen, Lake and Offengenden (2016), whose error is below 1e-6 of the larger of spot and strike. In many scenarios
    (a last axis along which `call`, `years` and `dividend` stay) boundaries are read from polynomials, to 1e-8.
    """
    from finllm.tools.instruments.american import Puts
    from finllm.tools.instruments.families import values

    keys = np.stack([np.asarray(one, dtype=float) for one in np.broadcast_arrays(call, years, dividend)])
    parts = np.broadcast_arrays(call, spot, strike, years, volatility, rate, dividend)
    value, shape = np.asarray(black_scholes(*parts)), parts[0].shape
    early = early_exercise_can_pay(parts[0], parts[5], parts[6])
    early &= ~parts[0] | (parts[1] > _TINY * parts[2])  # a call on nothing is worth nothing
    labels = np.unique(keys.reshape(3, -1), axis=1, return_inverse=True)[1].reshape(keys.shape[1:])
    family = np.broadcast_to(labels, shape)[early]
    call, spot, strike, years, volatility, rate, dividend = (part[early] for part in parts)
    own, other = np.where(call, spot, strike), np.where(call, strike, spot)
    interest, carry = np.where(call, dividend, rate) * years, np.where(call, rate, dividend) * years
    puts = Puts(volatility * np.sqrt(years), interest, carry)
    value[early] = own * values(puts, other / own, value[early] / own, family)
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
    early = is_american and bool(early_exercise_can_pay(np.array(call), np.array(rate), np.array(dividend)))
    if not early:
        try:
            spread = ql.blackFormulaImpliedStdDev(kind, strike, forward, premium, discount, 0.0, ql.nullDouble(), 1e-12)
        except RuntimeError:  # below its intrinsic value, or above all that it can be worth
            return None
        return float(spread) / math.sqrt(years)
    fixed = [np.array(one) for one in (call, spot, strike, years)]
    low, high = 1e-3, 5.0
    tried, over = np.zeros(0), np.zeros(0)
    at = 0
    for _ in range(ZOOMS):  # a dozen volatilities take little longer than one
        tried = np.geomspace(low, high, 12)
        over = american(*fixed, tried, np.array(rate), np.array(dividend)) - premium
        if at == 0 and (over[0] >= 0 or over[-1] <= 0):
            return None
        at = int(np.clip(np.argmax(over > 0), 1, 11))
        low, high = tried[at - 1], tried[at]
    return float(low + (high - low) * np.clip(-over[at - 1] / (over[at] - over[at - 1]), 0.0, 1.0))


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
