"""Prices of options: Black–Scholes–Merton over arrays, American exercise and implied volatility by QuantLib."""

from __future__ import annotations

import math
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

MIN_VOLATILITY = 0.01
"""Where a fall of the VIX would take an option's volatility below this, it stops here (or where it was, if lower)."""
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
    """Price of American options, as `black_scholes`; `years` are taken to whole days.

    Where early exercise cannot pay it is the European price; elsewhere QuantLib's `QdFpAmericanEngine`, accurate scheme
    (Andersen, Lake and Offengenden 2016), whose error is below 1e-5 of the larger of spot and strike; the fast scheme's
    reaches 8e-5.
    """
    parts = np.broadcast_arrays(call, spot, strike, years, volatility, rate, dividend)
    flat = [part.ravel() for part in parts]
    value = black_scholes(*flat)
    days = np.rint(flat[3] * 365.0).astype(int)
    early = np.flatnonzero(early_exercise_can_pay(flat[0], flat[5], flat[6]) & (days > 0))
    for one in np.unique(days[early]).tolist():
        at = early[days[early] == one]
        value[at] = np.maximum(value[at], _early(one, *(part[at] for part in (*flat[:3], *flat[4:]))))
    return value.reshape(parts[0].shape)


def _early(
    days: int, call: np.ndarray, spot: np.ndarray, strike: np.ndarray, volatility: np.ndarray, rate: np.ndarray,
    dividend: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """American prices of one expiry: prices scale with the strike, so one option of each type on a strike of 1 does."""
    ql = quantlib()
    quotes = [ql.SimpleQuote(1.0) for _ in range(4)]
    own = np.where(call, spot - strike, strike - spot).clip(0.0)
    with ql.SavedSettings():
        today = ql.Date(1, 1, 2000)  # only the number of days counts
        ql.Settings.instance().evaluationDate = today
        count = ql.Actual365Fixed()
        handles = [ql.QuoteHandle(one) for one in quotes]
        process = ql.BlackScholesMertonProcess(
            handles[0], ql.YieldTermStructureHandle(ql.FlatForward(today, handles[3], count)),
            ql.YieldTermStructureHandle(ql.FlatForward(today, handles[2], count)),
            ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), handles[1], count)),
        )  # fmt: skip
        engine = ql.QdFpAmericanEngine(process, ql.QdFpAmericanEngine.accurateScheme())
        options: dict[bool, Any] = {}
        for kind, name in ((True, ql.Option.Call), (False, ql.Option.Put)):
            exercise = ql.AmericanExercise(today, today + days)
            options[kind] = ql.VanillaOption(ql.PlainVanillaPayoff(name, 1.0), exercise)
            options[kind].setPricingEngine(engine)
        for at in np.flatnonzero(spot > _TINY * strike):
            for quote, value in zip(quotes, (spot[at] / strike[at], volatility[at], rate[at], dividend[at]),
                                    strict=True):  # fmt: skip
                quote.setValue(float(value))
            own[at] = max(own[at], strike[at] * options[bool(call[at])].NPV())
    return own


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
    from scipy.optimize import brentq

    def excess(volatility: float) -> float:
        return price(call, spot, strike, years, volatility, rate, dividend, is_american=True) - premium

    low, high = 1e-3, 5.0
    if excess(low) >= 0 or excess(high) <= 0:
        return None
    found = brentq(excess, low, high, xtol=1e-10)
    assert isinstance(found, float)
    return found


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
