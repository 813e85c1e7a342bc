"""What is odd about a series: gaps, splits, halts, shifted days, outliers, stale ends; and which moves are not used."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd

from finllm.tools.data.market.series import NO_DAYS, STALE_AFTER, Finding, Frequency, Series, Step, day_of, stamp_of

LONGEST_GAP: dict[Frequency, int] = {"daily": 7, "weekly": 17, "monthly": 62, "quarterly": 184}
"""Calendar days between two observations beyond which the move across is not taken for one of its frequency."""
SPLITS = tuple(
    Fraction(new, old)
    for new, old in ((2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (8, 1), (10, 1), (12, 1), (15, 1), (20, 1),
                     (25, 1), (30, 1), (40, 1), (50, 1), (100, 1), (3, 2))
)  # fmt: skip
"""New shares for old ones that occur in practice; each the other way round too, as a reverse split."""
CALM = 0.05
"""A day's move of the index below which it does not explain a stock's."""
HALTED_DAYS = 5
"""Unchanged closes in a row from which an instrument counts as halted."""
SHIFT_DAYS = 504
"""Days on which a shift of the days is looked for."""
_EARLIEST, _FEW = 60, 3


@dataclass(frozen=True)
class Checked:
    """What was found, and the changes of level that follow from it, whose moves are not used."""

    findings: tuple[Finding, ...] = ()
    steps: tuple[Step, ...] = ()


def check(series: Series, index: pd.Series | None, as_of: dt.date | None = None) -> Checked:
    """Look through the user's days of a series that is already cut where it was known. `index`: levels of the S&P 500
    cut there too, None where there are none. `as_of`: the day at which its end may be stale, None not to say so.
    """
    since = series.since
    if since is None:
        return Checked()
    values = series.values
    own = pd.Series(values[values.index >= since])
    if own.empty:
        return Checked()
    findings, steps = [], []
    for finding, step in (*_gaps(series, own), *_splits(series, own, index)):
        findings.append(finding)
        steps.append(step)
    known = {step.day for step in steps} | {step.day for step in series.steps}
    findings += _negative(series, own)
    findings += _halts(series, own)
    findings += _outliers(series, own, known)
    findings += _shifted(series, own, index)
    if as_of is not None and (age := (as_of - day_of(own.index[-1])).days) > STALE_AFTER[series.frequency]:
        last = day_of(own.index[-1])
        findings.append(Finding("stale", last, last, f"it ends on {last}, {age} days before {as_of}"))
    return Checked(tuple(findings), tuple(sorted(steps, key=lambda one: one.day)))


def breaks_of(steps: tuple[Step, ...]) -> pd.DatetimeIndex:
    """The days of the steps whose move is not used, sorted."""
    days = sorted(step.day for step in steps if not step.used)
    return pd.DatetimeIndex(days) if days else NO_DAYS


def _gaps(series: Series, own: pd.Series) -> Iterator[tuple[Finding, Step]]:
    days = np.diff(own.index.to_numpy()).astype("timedelta64[D]").astype(int)
    for at in np.flatnonzero(days > LONGEST_GAP[series.frequency]):
        before, after = own.index[at], own.index[at + 1]
        words = f"nothing from {day_of(before)} to {day_of(after)}, {days[at]} days; the move across is not used"
        yield Finding("gap", day_of(before), day_of(after), words), Step(stamp_of(after), used=False)


def _splits(series: Series, own: pd.Series, index: pd.Series | None) -> Iterator[tuple[Finding, Step]]:
    """Days on which the price moves to about n/m of what it was, also net of the index, which does not explain it."""
    if series.unit != "price" or series.frequency != "daily" or len(own) < _FEW:
        return
    prices = own.to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = prices[1:] / prices[:-1]
    usual = (ratio > 0) & np.isfinite(ratio)
    logs = np.log(np.where(usual, ratio, 1.0))
    spread = 1.4826 * float(np.median(np.abs(logs - np.median(logs))))
    near = min(0.06, max(0.015, 3 * spread))
    given = {step.day for step in series.steps}
    for at in np.flatnonzero(usual & (np.abs(logs) > max(0.2, 8 * spread))):
        day = own.index[at + 1]
        market = _move_of(index, own.index[at], day)
        found = _named(float(ratio[at]), near) or _named(float(ratio[at]) / (1 + (market or 0.0)), near)
        if found is None or day in given or _returns(logs, int(at)) or (market is not None and abs(market) > CALM):
            continue
        said = "no move of the index is known that day" if market is None else f"the index moved {market:+.1%}"
        words = (
            f"{found} split on {day_of(day)}? The price went from {prices[at]:g} to {prices[at + 1]:g}, and {said}; "
            f"give adjusted prices or --splits; the day is not used meanwhile"
        )
        yield Finding("split", day_of(day), day_of(day), words), Step(stamp_of(day), float(ratio[at]), used=False)


def _returns(logs: np.ndarray, at: int) -> bool:
    """Whether the move before or after goes most of the way the other way: then it is a wrong value, and no split."""
    beside = [logs[one] for one in (at - 1, at + 1) if 0 <= one < len(logs)]
    return any(one * logs[at] < 0 and abs(one) > 0.6 * abs(logs[at]) for one in beside)


def _named(ratio: float, near: float) -> str | None:
    """The split that a price ratio looks like, such as `4:1`; None for one that looks like none."""
    gaps = [
        (abs(np.log(ratio * float(one))), f"{one.numerator}:{one.denominator}")
        for split in SPLITS
        for one in (split, 1 / split)
    ]
    gap, name = min(gaps)
    return name if gap <= near else None


def _move_of(index: pd.Series | None, before: object, day: object) -> float | None:
    """The index's return between two days that it has too."""
    if index is None or before not in index.index or day not in index.index:
        return None
    return float(index.loc[day] / index.loc[before] - 1)


def _negative(series: Series, own: pd.Series) -> Iterator[Finding]:
    below = pd.Series(own[own <= 0])
    if series.unit == "price" and len(below):
        first, last = day_of(below.index[0]), day_of(below.index[-1])
        more = "" if len(below) == 1 else f", and {len(below) - 1} more up to {last}"
        yield Finding("negative", first, last, f"{float(below.iloc[0]):g} on {first}{more}: returns from and to levels "
                                               "of zero or less are not used")  # fmt: skip


def _halts(series: Series, own: pd.Series) -> Iterator[Finding]:
    if series.unit != "price" or series.frequency != "daily":
        return
    for start, end in halts(own.to_numpy()):
        first, last = day_of(own.index[start]), day_of(own.index[end])
        since = "to the end" if end == len(own) - 1 else f"to {last}"
        words = f"unchanged at {own.iloc[start]:g} from {first} {since}, {end - start + 1} closes: halted?"
        yield Finding("halt", first, last, words)


def halts(prices: np.ndarray) -> list[tuple[int, int]]:
    """Runs of `HALTED_DAYS` or more unchanged closes, as first and last position of the equal ones."""
    still = np.diff(prices) == 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], still.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= HALTED_DAYS]


def _outliers(series: Series, own: pd.Series, known: set[pd.Timestamp]) -> Iterator[Finding]:
    """Moves beyond 20 usual ones and, of a price, 15 %: named, and used all the same."""
    if len(own) < _EARLIEST:
        return
    values = own.to_numpy()
    price = series.unit == "price"
    with np.errstate(divide="ignore", invalid="ignore"):
        moves = values[1:] / values[:-1] - 1 if price else np.diff(values)
    sound = np.isfinite(moves) & ((values[1:] > 0) & (values[:-1] > 0) if price else True)
    usual = 1.4826 * float(np.median(np.abs(moves[sound]))) if sound.any() else 0.0
    if not usual:
        return
    far = np.flatnonzero(sound & (np.abs(moves) > max(20 * usual, 0.15 if price else 0.0)))
    far = [int(at) for at in far if own.index[at + 1] not in known]
    back = [at for at in far if at + 1 in far and moves[at] * moves[at + 1] < 0]
    far = [at for at in far if at - 1 not in back]
    for at in far[:_FEW]:
        day = day_of(own.index[at + 1])
        size = f"{moves[at]:+.0%}" if price else f"from {values[at]:g} to {values[at + 1]:g}"
        words = f"{size} on {day}, {abs(moves[at]) / usual:.0f} times a usual move"
        yield Finding("outlier", day, day, words + (", and back the day after: a wrong value?" if at in back else ""))
    if len(far) > _FEW:
        first, last = day_of(own.index[far[_FEW] + 1]), day_of(own.index[far[-1] + 1])
        yield Finding("outlier", first, last, f"{len(far) - _FEW} more moves of that size, {first} to {last}")


def _shifted(series: Series, own: pd.Series, index: pd.Series | None) -> Iterator[Finding]:
    """Rows on weekends; and returns that go with the index's of the day before or after better than of the same."""
    if series.frequency != "daily" or series.unit != "price":
        return
    days = pd.DatetimeIndex(own.index)
    weekend = days[np.array([day.weekday() >= 5 for day in days], dtype=bool)]
    if len(weekend):
        first, last = day_of(weekend[0]), day_of(weekend[-1])
        yield Finding(
            "weekend",
            first,
            last,
            f"{len(weekend)} of {len(own)} rows are on a Saturday or Sunday, the first "
            f"on {first}: are the days those of another time zone? See --zone",
        )
    shift = None if index is None else _best_shift(own, index)
    if shift is not None:
        lag, there, here = shift
        first, last = day_of(own.index[0]), day_of(own.index[-1])
        when = "day before" if lag > 0 else "day after"
        late = "late" if lag > 0 else "early"
        yield Finding("zone", first, last,
                      f"its returns go with the index's of the {when} ({there:.2f}; {here:.2f} on the same day): its "
                      f"days look one too {late}, or it trades in another time zone; see --zone")  # fmt: skip


def _best_shift(own: pd.Series, index: pd.Series) -> tuple[int, float, float] | None:
    """The lag of ±1 observation at which returns go with the index's clearly better, with both correlations."""
    shared = pd.concat([own, index], axis="columns", join="inner", keys=["own", "index"])
    shared = pd.DataFrame(shared[(shared > 0).all(axis="columns")]).tail(SHIFT_DAYS + 1)
    if len(shared) < _EARLIEST + 1:
        return None
    moves = shared.pct_change().iloc[1:]
    mine, its = moves["own"].to_numpy(), moves["index"].to_numpy()
    if mine.std() == 0 or its.std() == 0:
        return None
    bound = np.quantile(np.abs(mine), 0.995)
    mine = np.clip(mine, -bound, bound)  # a split would drown the rest
    pairs = {0: (mine, its), 1: (mine[1:], its[:-1]), -1: (mine[:-1], its[1:])}
    found = {lag: float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 else 0.0 for lag, (a, b) in pairs.items()}
    lag = max((1, -1), key=lambda one: found[one])
    significant = found[lag] > 4 / np.sqrt(len(mine)) and found[lag] > found[0] + 3 / np.sqrt(len(mine))
    return (lag, found[lag], found[0]) if significant else None
