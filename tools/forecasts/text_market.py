"""Text against the market: what the factors that a text names did since it was published, beside a forecast before.

Every threshold of this page is below. A move is *surprising* where it lies beyond what a forecast of the day before
publication allowed for: zero drift, σ by exponentially weighted moves up to that day (RiskMetrics 1996), times √ steps.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from finllm.tools.data.factors import Direction, MoveUnit
from finllm.tools.data.market import HALTED_DAYS, STALE_AFTER, Bars, Frequency, crosses, day_of
from finllm.tools.forecasts.liquidity import Thinness, drained, thinness
from finllm.tools.pnl.factorset import Levels
from finllm.tools.pnl.history import one_step

SURPRISING = 1.28
"""σ from which a move counts: one market in ten without news goes so far one way (two in ten either way)."""
BEFORE: dict[Frequency, int] = {"daily": 10, "weekly": 2, "monthly": 1, "quarterly": 1}
"""Observations before publication in which a move counts as made before the news."""
MEMORY: dict[Frequency, float] = {"daily": 0.94, "weekly": 0.97, "monthly": 0.97, "quarterly": 0.97}
"""Weight of a squared move beside that of the next one (RiskMetrics 1996, 5.3.2.2)."""
LEAST = 30
"""Moves before publication below which there is no forecast."""
FIRST_DAYS = 2
"""Observations from publication on that still are the market's first answer to a text."""
STALE_SHARE = 0.5
"""Share of a factor's way since the day before publication, travelled after that first answer, from which the text is
stale context: most of the move came after anybody could have read it in the text."""
ONE_DAY = 0.8
"""Share of a move that one day made, from which it is a one-off."""
DAYS_TESTED = 8
"""Days of publication that are held against the market at most: the earlier and the later half of them."""

MarketVerdict = Literal["moving as told", "not yet", "already before the news", "the opposite", "not testable"]
Cause = Literal["none", "lagging", "priced", "drain", "single", "data"]
"""Why text and market differ, in the validator's words."""
CAUSE_WORDS: dict[Cause, str] = {
    "none": "no reason that a rule finds",
    "lagging": "lagging news: no price since it, or most of the move came after it was written",
    "priced": "already priced: the factors moved that way before the news",
    "drain": "a hidden liquidity drain: prices are made by few who trade",
    "single": "a one-off: one day made the move",
    "data": "bad data",
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class FactorTest(_Frozen):
    """One factor since one day of publication.

    `move` from the close of `start`, the last one before publication, to that of `end`, in `unit`; `surprise` is it
    over the forecast's `sigma`; `before` the surprise of the days before the news; `later` the share of the way since
    that came after the first answer. `why`: what makes it untestable.
    """

    factor: str
    read: Direction
    verdict: MarketVerdict
    start: dt.date | None = None
    end: dt.date | None = None
    move: float | None = None
    unit: MoveUnit = "return"
    sigma: float | None = None
    surprise: float | None = None
    before: float | None = None
    later: float | None = None
    why: str | None = None


class DayTest(_Frozen):
    """The factors since a day on which `sources` were published; `stale`: these are stale context."""

    day: dt.date
    sources: tuple[str, ...]
    tests: tuple[FactorTest, ...]

    @property
    def later(self) -> float | None:
        """Mean share of their way that the factors that moved went after their first answer; None where none did."""
        moved = [one for one in self.tests if one.surprise is not None and abs(one.surprise) >= SURPRISING]
        shares = [one.later for one in moved if one.later is not None]
        return sum(shares) / len(shares) if shares else None

    @property
    def stale(self) -> bool:
        """Whether what was published then is stale context: the factors moved, and most of it came later."""
        return self.later is not None and self.later >= STALE_SHARE


class AgainstMarket(_Frozen):
    """What the market says of a reading: `verdict` over all `factors`, the `cause` by rule where they differ, and why.

    `liquidity`: whether few trade in the factors that did not move as told, by each measure that there are data for;
    `untested`: by which there are none. `skipped` counts days of publication beyond the most.
    """

    verdict: Literal["aligned", "diverged", "not yet", "not testable"]
    factors: dict[str, MarketVerdict]
    days: tuple[DayTest, ...]
    cause: Cause
    reason: str
    liquidity: tuple[Thinness, ...] = ()
    untested: tuple[str, ...] = ()
    skipped: int = 0

    @property
    def opposed(self) -> bool:
        """Whether more factors went the opposite way than the one that was told."""
        return len(self.of("the opposite")) > len(self.of("moving as told"))

    def of(self, *verdicts: MarketVerdict) -> list[str]:
        """The factors with one of these verdicts."""
        return [name for name, verdict in self.factors.items() if verdict in verdicts]


class Told(_Frozen):
    """A source that may be believed, and the day on which it was published."""

    id: str
    day: dt.date


def against_market(
    read: Mapping[str, Direction], levels: Mapping[str, Levels | str], units: Mapping[str, MoveUnit],
    told: Sequence[Told], as_of: dt.date, bars: Mapping[str, Bars] | None = None,
) -> AgainstMarket:  # fmt: skip
    """Hold a reading against the market: each factor that it says moves, since each day on which a source came out.

    `levels` are known at `as_of`, or a word why there are none; the forecast of a day is made of those before that day.
    `bars` are highs, lows and volumes known then, of the factors whose files have them.
    A factor's verdict is that since the first day that can be tested, when the news broke. The whole is `aligned`
    where more factors move as told than the opposite way, `not yet` where all that can be tested stand still,
    `diverged` where some can be tested and neither holds, else `not testable`: it is never aligned without a factor
    that bears it out.
    """
    named: dict[str, Direction] = {factor: way for factor, way in read.items() if way != "none"}
    days = sorted({one.day for one in told if one.day <= as_of})
    kept = days if len(days) <= DAYS_TESTED else days[: DAYS_TESTED // 2] + days[-DAYS_TESTED // 2 :]
    tested = tuple(
        DayTest(day=day, sources=tuple(one.id for one in told if one.day == day), tests=tuple(
            _test(factor, way, levels.get(factor, "it has no history"), units[factor], day, as_of)
            for factor, way in named.items()))
        for day in kept
    )  # fmt: skip
    factors: dict[str, MarketVerdict] = {factor: _since_first(factor, tested) for factor in named}
    counted = Counter(factors.values())
    as_told, opposite = counted["moving as told"], counted["the opposite"]
    testable = sum(counted.values()) - counted["not testable"]
    still = "not yet" if counted["not yet"] == testable else "diverged"
    verdict = "not testable" if not testable else "aligned" if as_told > opposite else still
    thin, untested = _liquidity(verdict, factors, levels, bars or {})
    cause, reason = _cause(verdict, named, tested, factors, levels, thin)
    return AgainstMarket(verdict=verdict, factors=factors, days=tested, cause=cause, reason=reason, liquidity=thin,
                         untested=untested, skipped=len(days) - len(kept))  # fmt: skip


def _liquidity(
    verdict: str, factors: Mapping[str, MarketVerdict], levels: Mapping[str, Levels | str], bars: Mapping[str, Bars]
) -> tuple[tuple[Thinness, ...], tuple[str, ...]]:
    """Whether few trade in each factor that did not move as told, and what there are no data for, where text and market
    differ: only then is a reason asked for."""
    if verdict not in ("diverged", "not yet"):
        return (), ()
    found: list[Thinness] = []
    lacking: dict[str, list[str]] = {}
    for factor in _apart(factors):
        seen = levels[factor]
        if isinstance(seen, str) or seen.frequency != "daily":
            lacking.setdefault("no daily data", []).append(factor)
            continue
        measured, missing = thinness(factor, seen.values, bars.get(factor))
        found += measured
        if missing:
            lacking.setdefault(", ".join(missing.values()), []).append(factor)
    return tuple(found), tuple(f"not testable: {why} ({', '.join(names)})" for why, names in lacking.items())


def _apart(factors: Mapping[str, MarketVerdict]) -> list[str]:
    """The factors that can be tested and did not move as told."""
    return [factor for factor, one in factors.items() if one not in ("moving as told", "not testable")]


def _test(
    factor: str, way: Direction, levels: Levels | str, unit: MoveUnit, day: dt.date, as_of: dt.date
) -> FactorTest:
    def untestable(why: str) -> FactorTest:
        return FactorTest(factor=factor, read=way, verdict="not testable", unit=unit, why=why)

    if isinstance(levels, str):
        return untestable(levels)
    stamps, frequency = pd.DatetimeIndex(levels.values.index), levels.frequency
    days = stamps.to_numpy().astype("datetime64[D]")
    known = _known_before(days, frequency, day)
    last = day_of(stamps[-1])
    if (as_of - last).days > STALE_AFTER[frequency]:
        return untestable(f"its series ended on {last}")
    first = known
    if frequency != "daily":  # the period of the publication itself holds days before it
        first = int(days.searchsorted(np.datetime64(day), side="right"))
    if first >= len(days):
        return untestable(f"no observation after publication: the last is of {last}")
    values = levels.values.to_numpy(dtype="float64")
    broken = np.flatnonzero(crosses(stamps, levels.breaks))
    back = BEFORE[frequency]
    moves = _steps(values[:known], unit)
    sound = np.delete(moves, broken[broken < len(moves)])
    if known <= back or len(sound) < LEAST:
        return untestable(f"{len(sound)} moves before publication, too few for a forecast")
    if ((broken >= known - 1 - back) & (broken < len(values) - 1)).any():
        return untestable("its series has a break in these days")
    sigma, earlier = _sigma(sound, frequency), _sigma(sound[:-back], frequency)
    if not sigma or not earlier:
        return untestable("it did not move before publication")
    way_since = _steps(values[known - 1 :], unit)
    surprise = float(way_since.sum()) / (sigma * np.sqrt(len(way_since)))
    before = float(moves[-back:].sum()) / (earlier * np.sqrt(back))
    sign = 1 if way == "up" else -1
    answered = abs(float(way_since[:FIRST_DAYS].sum())), abs(float(way_since[FIRST_DAYS:].sum()))
    return FactorTest(
        factor=factor, read=way, verdict=_verdict(sign * surprise, sign * before), start=day_of(stamps[known - 1]),
        end=last, move=float(one_step(values[[known - 1, len(values) - 1]], unit)[0]), unit=unit,
        sigma=sigma * float(np.sqrt(len(way_since))), surprise=surprise, before=before,
        later=answered[1] / sum(answered) if sum(answered) else 0.0,
    )  # fmt: skip


def _verdict(surprise: float, before: float) -> MarketVerdict:
    """Surprises in the direction that was told: since publication, and of the days before."""
    if surprise >= SURPRISING:
        return "moving as told"
    if surprise <= -SURPRISING:
        return "the opposite"
    return "already before the news" if before >= SURPRISING else "not yet"


def _known_before(days: np.ndarray, frequency: Frequency, day: dt.date) -> int:
    """How many observations were known after the close of the day before `day`."""
    if frequency in ("daily", "weekly"):
        return int(days.searchsorted(np.datetime64(day), side="left"))
    eve = day - dt.timedelta(days=1)
    month = eve.month - (eve.month - 1) % 3 if frequency == "quarterly" else eve.month
    return int(days.searchsorted(np.datetime64(eve.replace(month=month, day=1)), side="left"))


def _steps(values: np.ndarray, unit: MoveUnit) -> np.ndarray:
    """Moves from one observation to the next that add up: log returns of a price, differences of the rest."""
    return np.diff(np.log(values)) if unit == "return" else np.diff(values)


def _sigma(moves: np.ndarray, frequency: Frequency) -> float:
    """σ of one move, by weights that fall off into the past; zero where there are too few moves."""
    if len(moves) < LEAST:
        return 0.0
    weights = MEMORY[frequency] ** np.arange(len(moves))[::-1]
    return float(np.sqrt(np.average(moves**2, weights=weights)))


def _since_first(factor: str, days: Sequence[DayTest]) -> MarketVerdict:
    for day in days:
        for one in day.tests:
            if one.factor == factor and one.verdict != "not testable":
                return one.verdict
    return "not testable"


def _cause(
    verdict: str, named: Mapping[str, Direction], days: Sequence[DayTest], factors: Mapping[str, MarketVerdict],
    levels: Mapping[str, Levels | str], liquidity: Sequence[Thinness],
) -> tuple[Cause, str]:  # fmt: skip
    """Why text and market differ, by the first rule that holds, in the validator's word and in full. In order: bad
    data, priced, one day, the news' age, few who trade."""
    if not named:
        return "none", "the reading names no factor that moves"
    if not days:
        return "none", "no source that may be believed was published by then"
    if verdict == "aligned":
        return "none", ""
    known = {factor: seen for factor in named if not isinstance(seen := levels.get(factor, ""), str)}
    if frozen := [factor for factor, seen in known.items() if _frozen(seen)]:
        return "data", f"{', '.join(frozen)}: unchanged over the last {HALTED_DAYS} closes or more"
    if verdict == "not testable":
        whys = Counter(one.why for day in days for one in day.tests if one.why)
        late = [why for why in whys if why.startswith("no observation after")]
        return ("lagging" if late else "none"), "; ".join(late or whys)
    apart = _apart(factors)
    of = {factor: next(one for day in days for one in day.tests if one.factor == factor and one.start is not None)
          for factor in apart}  # fmt: skip
    if 2 * sum(factors[factor] == "already before the news" for factor in apart) >= len(apart):
        moved = [factor for factor in apart if factors[factor] == "already before the news"]
        return "priced", f"{', '.join(moved)} had moved as told before publication"
    against = [factor for factor in apart if factors[factor] == "the opposite"]
    once = {factor: one for factor in against if (one := _one_day(of[factor], known[factor])) is not None}
    if against and len(once) == len(against):
        return "single", "; ".join(f"{factor}: {day} alone made the move" for factor, day in once.items())
    if all(day.stale for day in days):
        return "lagging", "every source is stale context: most of the move since came after its first days"
    by = {factor: [one for one in liquidity if one.factor == factor] for factor in apart}
    thin = [factor for factor, measured in by.items() if drained(measured)]
    if 2 * len(thin) > len(apart):
        return "drain", "; ".join(_by(factor, by[factor]) for factor in thin)
    return "none", ""


def _by(factor: str, measured: Sequence[Thinness]) -> str:
    """Which of its measures tell of few who trade in a factor."""
    telling = [one.measure for one in measured if one.thin]
    if len(measured) == 1:
        return f"{factor}: by its {telling[0]}, which is all that can be measured"
    return f"{factor}: by {len(telling)} of {len(measured)} measures, {', '.join(telling)}"


def _frozen(levels: Levels) -> bool:
    """Whether a daily series stands at one value to its end, as a feed does that repeats itself."""
    values = levels.values.to_numpy()
    return levels.frequency == "daily" and len(values) > HALTED_DAYS and not np.diff(values[-HALTED_DAYS - 1 :]).any()


def _one_day(test: FactorTest, levels: Levels) -> dt.date | None:
    """The day that made nearly all of a move; None where none did, or the move is of one day or two."""
    stamps = pd.DatetimeIndex(levels.values.index)
    first = int(stamps.to_numpy().searchsorted(np.datetime64(str(test.start))))
    steps = _steps(levels.values.to_numpy(dtype="float64")[first:], test.unit)
    largest = int(np.argmax(np.abs(steps)))
    if len(steps) < FIRST_DAYS + 1 or steps.sum() * steps[largest] <= 0:
        return None
    return day_of(stamps[first + largest + 1]) if abs(steps[largest]) >= ONE_DAY * abs(steps.sum()) else None
