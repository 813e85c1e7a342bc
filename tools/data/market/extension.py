"""A series goes on where another ends: the user's days extend a packaged series that they agree with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.market.bars import Bars
from finllm.tools.data.market.series import Series, SeriesUnit, Step, day_of, stamp_of
from finllm.tools.evidence import sha256_of

LEVELS: dict[SeriesUnit, float] = {"price": 0.005, "percent": 0.02, "bp": 2.0, "points": 0.1}
"""How far two values of a day may be apart: a price as a share of itself, a yield in percentage points."""
RETURNS = 0.005
"""How far two daily returns may be apart where only the basis of adjustment differs."""
AGREEING = 0.98
"""Share of daily returns that must agree then: the others are dividends, of at most `DIVIDEND`."""
DIVIDEND = 0.06
STAND_IN, STANDING_IN = 0.05, 0.95
"""How close a stand-in is to what it stands in for, on which share of the days."""
MIN_SHARED = 5
"""Days in common from which a constant ratio is believed."""
NEAR_JOIN = 0.35
"""How far apart prices may be where a series without a day in common goes on within `JOIN_DAYS`."""
JOIN_DAYS = 10


def extend(old: Series, new: Series, *, stands_in: bool = False) -> Series:
    """`old` with the days of `new` before it begins and after it ends; on days in common `old` stands.

    They must be of one unit and frequency, and agree on the days in common: in their levels, or by a constant ratio
    (another basis), or in all returns but dividends. Earlier days then count that ratio times as much from the first
    new day on, and not before: nobody knew it. Without a day in common the two are set end to end, and the move across
    is not used. `stands_in`: the new series is known to go with the old one closely without being the same; then 95 %
    of the days must agree within 5 %, and the first new day's move is not used. What comes of it has both sources'
    names, and the digest of both digests with a blank between them.
    Errors: InputError that names the day and both values where they disagree.
    """
    where = f"{new.name!r} of {new.uri}"
    if new.unit != old.unit or new.frequency != old.frequency:
        raise InputError(f"{where} is {new.frequency}, in {new.unit}; {old.name!r} is {old.frequency}, in {old.unit}",
                         fix="give it another name with --as, or its unit with --unit")  # fmt: skip
    shared = pd.concat([old.values, new.values], axis="columns", join="inner", keys=["old", "new"])
    agreement = _closeness if stands_in else _agreement
    ratio, said = agreement(old, shared, where) if len(shared) else (None, "")
    before = pd.Series(new.values[new.values.index < old.values.index[0]])
    after = pd.Series(new.values[new.values.index > old.values.index[-1]])
    if not len(shared):
        _near(old, before, after, where)
    steps = list(old.steps)
    notes = [f"{old.name!r} goes on with {where}: {said}"] if said else []
    if len(after):
        if ratio is None:
            notes.append(_set_end_to_end(old.name, where, old.values.index[-1], after.index[0]))
            steps.append(Step(stamp_of(after.index[0]), used=False))
        elif ratio != 1.0 or stands_in:
            steps.append(Step(stamp_of(after.index[0]), ratio, used=not stands_in))
    if len(before) and ratio not in (None, 1.0):
        notes.append(f"{len(before)} days of {where} before {day_of(old.values.index[0])} are not used: another basis")
        before = pd.Series(before.iloc[:0])
    elif len(before) and ratio is None:
        notes.append(_set_end_to_end(old.name, where, before.index[-1], old.values.index[0]))
        steps.append(Step(stamp_of(old.values.index[0]), used=False))
    since = next((stamp_of(one.index[0]) for one in (before, after) if len(one)), None)
    if since is None:
        said = f"{where} has no day that {old.name!r} lacks at its ends"
        return replace(old, notes=(*old.notes, said), bars=_bars(old, new))
    values = pd.concat([before, old.values, after]).rename(old.name)
    news = tuple(step for step in new.steps if step.day in after.index or step.day in before.index)
    return replace(
        old, values=values, uri=f"{old.uri} + {new.uri}", sha256=sha256_of(f"{old.sha256} {new.sha256}"),
        steps=tuple(sorted({*steps, *news}, key=lambda one: one.day)),
        since=min((one for one in (since, old.since) if one is not None), default=None),
        notes=(*old.notes, *new.notes, *notes), bars=_bars(old, new),
    )  # fmt: skip


def _bars(old: Series, new: Series) -> Bars | None:
    """High, low and volume of both: the new series' where it has a day's."""
    if old.bars is None or new.bars is None:
        return new.bars or old.bars
    return new.bars.joined(old.bars)


def _set_end_to_end(name: str, where: str, last: object, first: object) -> str:
    return (f"{name!r} goes on with {where} without a day in common: the move from {day_of(last)} to {day_of(first)} "
            "is not used")  # fmt: skip


def _near(old: Series, before: pd.Series, after: pd.Series, where: str) -> None:
    """Without a day in common: levels next to each other are at least of one size. Errors: InputError."""
    if not len(before) and not len(after):
        raise InputError(f"{where} has no day in common with {old.name!r} and none outside it",
                         fix="give it another name with --as")  # fmt: skip
    pairs = [(old.values.index[-1], old.values.iloc[-1], after.index[0], after.iloc[0])] if len(after) else []
    if len(before):
        pairs.append((old.values.index[0], old.values.iloc[0], before.index[-1], before.iloc[-1]))
    for day, level, other_day, other in pairs:
        close = abs((day_of(other_day) - day_of(day)).days) <= JOIN_DAYS
        if close and old.unit == "price" and level > 0 and abs(other / level - 1) > NEAR_JOIN:
            raise InputError(
                f"{where} is {other:g} on {day_of(other_day)}, and {old.name!r} is {level:g} on {day_of(day)}: these "
                "are not one series", fix="give adjusted prices, or another name with --as",
            )  # fmt: skip


def _closeness(old: Series, shared: pd.DataFrame, where: str) -> tuple[float, str]:
    """The ratio 1, where a stand-in is close enough. Errors: InputError."""
    apart = np.abs(shared["new"].to_numpy() / shared["old"].to_numpy() - 1)
    if (apart <= STAND_IN).mean() >= STANDING_IN:
        return (
            1.0,
            f"which stands in for it: {(apart <= STAND_IN).mean():.1%} of {len(shared)} days in common are within "
            f"{STAND_IN:.0%}",
        )
    at = int(apart.argmax())
    raise InputError(
        f"{where} is {shared['new'].iloc[at]:g} on {day_of(shared.index[at])}, and {old.name!r} is "
        f"{shared['old'].iloc[at]:g}: too far apart to stand in for it",
        fix="correct the file, or give the column another name with --as",
    )


def _agreement(old: Series, shared: pd.DataFrame, where: str) -> tuple[float, str]:
    """What old values count from the first new day on, and in words how the two agree. Errors: InputError."""
    mine, theirs = shared["old"].to_numpy(), shared["new"].to_numpy()
    tolerance = LEVELS[old.unit]
    unit = {"price": f"{tolerance:.1%}", "percent": f"{tolerance:g} percentage points"}
    within = unit.get(old.unit, f"{tolerance:g} {old.unit}")
    rounding = _rounding(mine)
    apart = np.abs(theirs - mine)
    allowed = (tolerance * np.abs(mine) if old.unit == "price" else tolerance) + rounding
    days = f"{len(shared)} days in common"
    if (apart <= allowed).all():
        return 1.0, f"{days} agree within {within}"
    if old.unit == "price" and len(shared) >= MIN_SHARED and (mine > 0).all() and (theirs > 0).all():
        ratio = theirs / mine
        middle = float(np.median(ratio))
        if (np.abs(ratio / middle - 1) <= tolerance + rounding / mine).all():
            return (
                middle,
                f"{days} are {middle:.4g} times as high, so it is adjusted otherwise; earlier days are rescaled",
            )
        gaps = np.abs((theirs[1:] / theirs[:-1]) - (mine[1:] / mine[:-1]))
        loose = RETURNS + 2 * rounding / mine[:-1]
        if (gaps <= loose).mean() >= AGREEING and gaps.max() <= DIVIDEND + 2 * rounding / mine[:-1].min():
            late = float(np.median(ratio[-MIN_SHARED:]))
            return late, (
                f"{int((gaps <= loose).sum())} of {len(gaps)} daily returns agree within {RETURNS:.1%}, the "
                f"others are dividends of at most {gaps.max():.1%}; earlier days are rescaled by {late:.4g}"
            )
    at = int(np.flatnonzero(apart > allowed)[0])
    raise InputError(
        f"{where} is {theirs[at]:g} on {day_of(shared.index[at])}, and {old.name!r} of {old.uri} is {mine[at]:g}: on "
        f"{int((apart > allowed).sum())} of {days} they are more than {within} apart, and not by one ratio",
        fix="correct the file, or give the column another name with --as",
    )


def _rounding(values: np.ndarray) -> float:
    """Half a unit of the last decimal that values are written with, of two to four of them."""
    for places in range(5):
        if np.allclose(values, np.round(values, places), rtol=0, atol=1e-9):
            return min(0.005, 0.5 * 10.0**-places)
    return 0.5e-4
