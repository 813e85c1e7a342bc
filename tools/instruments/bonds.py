"""Prices of bonds: cash flows discounted at a yield, or duration and convexity where the flows are not known."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

FREQUENCIES = (1, 2, 3, 4, 6, 12)
"""Coupons a year that a bond may pay."""
LOWEST_GROWTH = 0.01
"""1 + y/f at its lowest: a yield is stopped there, where it would go to −99 % of the frequency or below."""
STEEPEST = 20.0
"""|exponent| at which the formula by duration and convexity stops, a price of e^±20 of what it was."""


def _thirty_360(start: np.ndarray, end: np.ndarray, european: bool) -> np.ndarray:
    """Days by 30/360, (n,) of datetime64[D]: Bond Basis (ISDA 2006, 4.16(f)) or 30E/360 (4.16(g))."""
    (year, month, day), (year_2, month_2, day_2) = _parts(start), _parts(end)
    day = np.minimum(day, 30)
    day_2 = np.minimum(day_2, 30) if european else np.where((day_2 == 31) & (day == 30), 30, day_2)
    return 360 * (year_2 - year) + 30 * (month_2 - month) + (day_2 - day)


def _parts(days: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    months = days.astype("datetime64[M]")
    index = months.astype(int)
    return index // 12, index % 12, (days - months.astype("datetime64[D]")).astype(int) + 1


Fraction = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
DAY_COUNTS: dict[str, Fraction] = {
    "30/360": lambda start, end, _a, _b, _f: _thirty_360(start, end, european=False) / 360,
    "30E/360": lambda start, end, _a, _b, _f: _thirty_360(start, end, european=True) / 360,
    "ACT/ACT": lambda start, end, a, b, f: (end - start).astype(int) / ((b - a).astype(int) * f),
    "ACT/365": lambda start, end, _a, _b, _f: (end - start).astype(int) / 365,
    "ACT/360": lambda start, end, _a, _b, _f: (end - start).astype(int) / 360,
}
"""Year fraction from `start` to `end` within the coupon periods `a` to `b`, of which there are `f` a year."""
_ALIASES = {
    "30U/360": "30/360", "BONDBASIS": "30/360", "EUROBOND": "30E/360", "ACTUAL/ACTUAL": "ACT/ACT", "A/A": "ACT/ACT",
    "ACT/ACT(ISMA)": "ACT/ACT", "ACT/ACT(ICMA)": "ACT/ACT", "ACTUAL/365": "ACT/365", "ACT/365F": "ACT/365",
    "ACT/365(FIXED)": "ACT/365", "A/365": "ACT/365", "ACTUAL/360": "ACT/360", "A/360": "ACT/360",
}  # fmt: skip


def day_count_of(text: str) -> str | None:
    """The key in `DAY_COUNTS` of a day count as people write it; None for one that is not known."""
    plain = text.upper().replace(" ", "")
    return plain if plain in DAY_COUNTS else _ALIASES.get(plain)


@dataclass(frozen=True)
class Flows:
    """What a bond still pays per 100 of nominal: `amounts` (n,) after `times` (n,) years by its day count.

    `accrued` per 100. Yields are compounded `frequency` times a year.
    """

    times: np.ndarray
    amounts: np.ndarray
    accrued: float
    frequency: int

    def dirty(self, yield_: float) -> float:
        """Price with accrued interest per 100 at a yield, a decimal a year."""
        growth = math.log(max(1.0 + yield_ / self.frequency, LOWEST_GROWTH)) * self.frequency
        return float(self.amounts @ np.exp(-growth * self.times))

    def yield_at(self, dirty: float) -> float | None:
        """The yield of a price with accrued interest per 100, by Newton's steps in the continuous rate; None if none.

        The price falls and is convex in the rate, so the steps converge from below.
        """
        if not dirty > 0:
            return None
        weight, total = float(self.amounts @ self.times), float(self.amounts.sum())
        rate = math.log(total / dirty) * total / weight if weight > 0 else 0.0  # Jensen: at most the answer
        for _ in range(100):
            paid = self.amounts * np.exp(-rate * self.times)
            slope = float(paid @ self.times)
            if not slope > 0:
                return None
            step = (float(paid.sum()) - dirty) / slope
            rate += step
            if abs(step) < 1e-14 * max(1.0, abs(rate)):
                break
        return self.frequency * math.expm1(rate / self.frequency)


@lru_cache(maxsize=1 << 14)
def flows(as_of: dt.date, maturity: dt.date, coupon: float, frequency: int = 2, day_count: str = "30/360") -> Flows:
    """The coupons after `as_of` and the redemption, unadjusted, dated back from the maturity in whole months.

    `coupon` a decimal a year, `frequency` one of `FREQUENCIES`, `day_count` a key of `DAY_COUNTS`. QuantLib's
    FixedRateBond without calendar or settlement days, to rounding: its schedule and times, over arrays for speed. They
    are kept, as a bond is valued and then revalued: leave the arrays as they are.
    """
    step = 12 // frequency
    first = np.datetime64(maturity, "M")
    day = maturity.day - 1
    count = ((maturity.year - as_of.year) * 12 + maturity.month - as_of.month) // step + 2
    months = first - np.arange(count, -1, -1) * step
    last_day = ((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(int) - 1
    dates = months.astype("datetime64[D]") + np.minimum(day, last_day)
    today = np.datetime64(as_of, "D")
    after = int(dates.searchsorted(today, side="right"))
    start, end = dates[after - 1 : -1], dates[after:]
    fraction = DAY_COUNTS[day_count]
    periods = fraction(start, end, start, end, frequency)
    gone = float(fraction(start[:1], np.array([today]), start[:1], end[:1], frequency)[0])
    times = periods.cumsum() - gone
    amounts = 100.0 * coupon * periods
    amounts[-1] += 100.0
    return Flows(times, amounts, 100.0 * coupon * gone, frequency)


def log_price_change(duration: np.ndarray, convexity: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """ln of price after over price before: −D·y + ½(C − D²)·y², for a yield move `shift` (decimal).

    Duration in years, convexity in years². Past the yield at which the square would turn it round, the price stays
    where it turns, so that it never rises with yields. Source: the second-order expansion of ln P in y.
    """
    bend = convexity - duration**2
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = np.where(bend != 0, duration / bend, np.inf)
    held = np.where(bend > 0, np.minimum(shift, turn), np.where(bend < 0, np.maximum(shift, turn), shift))
    return np.clip(-duration * held + 0.5 * bend * held**2, -STEEPEST, STEEPEST)
