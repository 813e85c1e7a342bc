"""Whether few trade: volume, what it takes to move a price, the spread by ranges, moves that follow themselves.

Each measure is taken over the last days of a series and, but for the last, set beside the same measure of every day of
the year before: what is rare for this market counts, not what is small.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from finllm.tools.data.market import Bars, day_of

RECENT = 20
"""Last days that a measure is the mean of; and moves whose autocorrelation is taken."""
USUAL, LEAST = 250, 120
"""Days before these that they are set beside, and how many of them need a figure."""
PRESENT = 15
"""Days of the last that need a figure."""
RARE = 0.05
"""Share of the days before, as thin or thinner, up to which a measure tells of few who trade."""
FOLLOWING = 2.0
"""σ of chance, 1/√n each, from which moves follow themselves (Lo and MacKinlay 1988)."""
AGREE = 2
"""Measures that must agree where there are two or more; one alone decides where it is the only one."""

Measure = Literal["volume", "price impact", "spread", "autocorrelation"]
MEASURES: dict[Measure, str] = {
    "volume": "volume, over that of the year before",
    "price impact": "daily range per unit of volume, over that of the year before",
    "spread": "spread by daily ranges, over that of the year before",
    "autocorrelation": "autocorrelation of daily moves",
}
"""What each measure is, in words."""
THINNER_BELOW: frozenset[Measure] = frozenset(("volume",))
"""Measures that tell of few who trade by being low."""


class Thinness(BaseModel):
    """One measure of one factor over the days `start` to `end`.

    `value`: a ratio to the mean of the year before, or the autocorrelation. `rarity`: the share of the days of that
    year on which the measure told of as few who trade, or fewer; None for the autocorrelation. `thin`: whether it does.
    """

    model_config = ConfigDict(frozen=True)

    factor: str
    measure: Measure
    value: float
    rarity: float | None
    thin: bool
    start: dt.date
    end: dt.date


def drained(found: Sequence[Thinness]) -> bool:
    """Whether the measures of one factor tell of a drain: two agree, or the only one there is says so."""
    return bool(found) and sum(one.thin for one in found) >= min(AGREE, len(found))


def thinness(factor: str, values: pd.Series, bars: Bars | None) -> tuple[list[Thinness], dict[str, str]]:
    """What can be measured of a factor's daily levels and of the highs, lows and volumes that its files have.

    Second, by kind of data (`volume`, `daily range`), why it could not be: neither is ever guessed.
    """
    found: list[Thinness] = []
    missing: dict[str, str] = {}
    frame = bars.frame if bars is not None else pd.DataFrame()
    seen = frame.reindex(values.index[-RECENT - USUAL - 1 :])
    for name in ("volume", "high"):
        if (why := _lacking(seen.get(name))) is not None:
            missing["volume" if name == "volume" else "daily range"] = why.format("volume" if name == "volume" else
                                                                                  "daily range")  # fmt: skip
    measured: dict[Measure, pd.Series] = {}
    if "volume" not in missing:
        measured["volume"] = pd.Series(seen["volume"])
    if "daily range" not in missing:
        if "volume" not in missing:
            measured["price impact"] = _range(seen) / seen["volume"].where(seen["volume"] > 0)
        measured["spread"] = corwin_schultz(pd.Series(seen["high"]), pd.Series(seen["low"]))
    for measure, each in measured.items():
        if (one := _beside_usual(factor, measure, each)) is not None:
            found.append(one)
    if (one := _autocorrelation(factor, values)) is not None:
        found.append(one)
    return found, missing


def corwin_schultz(high: pd.Series, low: pd.Series) -> pd.Series:
    """The spread between bid and ask as a share of the price, by the ranges of a day and the one before; zero where the
    formula gives less (Corwin and Schultz 2012, eq. 14 to 18, without their adjustment for moves over night)."""
    ranges = np.log(high / low) ** 2
    beta = ranges + ranges.shift(1)
    two = np.log(high.rolling(2).max() / low.rolling(2).min()) ** 2
    root = 3 - 2 * np.sqrt(2)
    alpha = (np.sqrt(2 * beta) - np.sqrt(beta)) / root - np.sqrt(two / root)
    return pd.Series(np.tanh(alpha / 2) * 2).clip(lower=0.0)


def _range(frame: pd.DataFrame) -> pd.Series:
    return pd.Series(np.log(frame["high"] / frame["low"]))


def _lacking(column: pd.Series | None) -> str | None:
    """Why a column cannot be measured, with a place for what it is of; None where it can."""
    if column is None or column.isna().all():
        return "no {}"
    if (there := int(column.iloc[-RECENT:].notna().sum())) < PRESENT:
        return f"{{}} on {there} of the last {RECENT} days"
    if (before := int(column.iloc[:-RECENT].notna().sum())) < LEAST:
        return f"{{}} on {before} days of the year before, too few"
    return None


def _beside_usual(factor: str, measure: Measure, each: pd.Series) -> Thinness | None:
    """The mean of the last days over that of the year before, and how many of its windows were as thin."""
    means = pd.Series(each.rolling(RECENT, min_periods=PRESENT).mean())
    now, windows = float(means.iloc[-1]), pd.Series(means.iloc[:-RECENT]).dropna()
    usual = float(each.iloc[:-RECENT].mean())
    if not len(windows) or np.isnan(now) or not usual > 0:
        return None
    rarity = float((windows <= now).mean() if measure in THINNER_BELOW else (windows >= now).mean())
    return Thinness(factor=factor, measure=measure, value=now / usual, rarity=rarity, thin=rarity <= RARE,
                    start=day_of(each.index[-RECENT]), end=day_of(each.index[-1]))  # fmt: skip


def _autocorrelation(factor: str, values: pd.Series) -> Thinness | None:
    """Of a move and the next, over the last moves; None where there are too few, or they are all alike."""
    last = values.to_numpy(dtype="float64")[-RECENT - 2 :]
    if len(last) < RECENT + 2:
        return None
    moves = np.diff(last)
    one, other = moves[1:] - moves[1:].mean(), moves[:-1] - moves[:-1].mean()
    spread = float(np.sqrt((one @ one) * (other @ other)))
    if not spread > 0:
        return None
    value = float(one @ other) / spread
    return Thinness(factor=factor, measure="autocorrelation", value=value, rarity=None,
                    thin=value >= FOLLOWING / np.sqrt(RECENT), start=day_of(values.index[-RECENT - 2]),
                    end=day_of(values.index[-1]))  # fmt: skip
