"""How alike two events are: by what the factors did, the channels opened (else the kind of event), region and severity.

Nothing of it reads a word of a title or a story. Distances are in σ; every weight stands below.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.factors import Direction
from finllm.tools.data.market import STALE_AFTER, Frequency
from finllm.tools.pnl.history import one_step
from finllm.tools.pnl.shocks import Window
from finllm.tools.pnl.sizes import MIN_MOVES, FactorView

FARTHEST = 3.0
"""σ from which a move counts as no larger: beyond it all are extreme."""
OTHER_KIND, OTHER_REGION, A_GRADE = 1.5, 0.5, 0.25
"""What another kind of event, or wholly other channels, another region, and each grade of severity add to the distance,
in σ."""
UNSEEN = 1.0
"""σ that a move counts as whose direction is known and whose size is not, where none was asked for either."""
GRADES = (1.0, 2.0, 3.0)
"""σ of the largest move up to which an event was low, medium, high in severity; beyond it is extreme."""
SEVERITIES = ("low", "medium", "high", "extreme")


@dataclass(frozen=True)
class Likeness:
    """An event by what it does: `sizes` in σ by factor, 0 for one that stands still; `directions` of factors whose size
    is not known. `kinds` and `regions` it may be called by, none where nobody said. `grade`: its severity, 0 to 3.
    `channels`: how surely it opened each transmission channel, none where nobody said.
    """

    sizes: Mapping[str, float]
    directions: Mapping[str, Direction]
    kinds: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    grade: int | None = None
    channels: Mapping[str, float] = field(default_factory=dict[str, float])

    def without(self, factor: str) -> Likeness:
        """The event but for one factor."""
        return replace(
            self,
            sizes={name: size for name, size in self.sizes.items() if name != factor},
            directions={name: way for name, way in self.directions.items() if name != factor},
        )

    def known(self) -> frozenset[str]:
        return frozenset(self.sizes) | frozenset(self.directions)


def apart(event: Likeness, past: Likeness, farthest: float = FARTHEST) -> float:
    """How far two events lie apart, in σ: the root mean square over the factors that both know of, and the additions.

    Infinite where they share no factor. `farthest`: σ from which a move counts as no larger.
    """
    shared = event.known() & past.known()
    if not shared:
        return math.inf
    gaps = [_size(event, name, past, farthest) - _size(past, name, event, farthest) for name in shared]
    far = math.sqrt(sum(gap**2 for gap in gaps) / len(gaps))
    if event.channels and past.channels:
        far += OTHER_KIND * (1.0 - _shared(event.channels, past.channels))
    elif event.kinds and past.kinds and not event.kinds & past.kinds:
        far += OTHER_KIND
    if event.regions and past.regions and not event.regions & past.regions:
        far += OTHER_REGION
    if event.grade is not None and past.grade is not None:
        far += A_GRADE * abs(event.grade - past.grade)
    return far


def _shared(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """How far the channels of two events are the same: what both opened over what either did (Jaccard, weighted)."""
    names = {*one, *other}
    both = sum(min(one.get(name, 0.0), other.get(name, 0.0)) for name in names)
    return both / sum(max(one.get(name, 0.0), other.get(name, 0.0)) for name in names)


def grade_of(sizes: Mapping[str, float]) -> int | None:
    """The severity that the largest of the moves shows, 0 to 3; None without any."""
    largest = max(map(abs, sizes.values()), default=None)
    return None if largest is None else sum(largest > bound for bound in GRADES)


class Moves:
    """σ of the factors' moves over any window, each history read once as it was known at the view's day."""

    def __init__(self, view: FactorView) -> None:
        self._view = view
        self._levels: dict[str, tuple[np.ndarray, np.ndarray, Frequency] | None] = {}
        self._sigmas: dict[tuple[str, int], float] = {}

    def over(self, window: Window, factors: Iterable[str]) -> dict[str, float]:
        """Each factor's move from the last observation by the start of the window to that by its end, over σ of all
        moves of so many observations; only of those whose history covers it.
        """
        found: dict[str, float] = {}
        for name in factors:
            seen = self._seen(name)
            if seen is None:
                continue
            days, values, frequency = seen
            first, last = (_last_known(days, frequency, day) for day in window)
            late = STALE_AFTER[frequency]
            if first < 0 or last <= first or any((day - days[at].astype(object)).days > late
                                                 for day, at in zip(window, (first, last), strict=True)):  # fmt: skip
                continue
            if sigma := self._sigma(name, values, last - first):
                found[name] = float(one_step(values[[first, last]], self._view.factors[name].unit)[0]) / sigma
        return found

    def _seen(self, name: str) -> tuple[np.ndarray, np.ndarray, Frequency] | None:
        if name not in self._levels:
            driver = self._view.factors[name]
            self._levels[name] = None
            with contextlib.suppress(InputError):  # it has no history, or none by then
                if driver.has_history:
                    values, frequency = driver.seen(self._view.market, self._view.as_of)
                    days = pd.DatetimeIndex(values.index).to_numpy().astype("datetime64[D]")
                    self._levels[name] = days, values.to_numpy(dtype="float64"), frequency
        return self._levels[name]

    def _sigma(self, name: str, values: np.ndarray, steps: int) -> float:
        key = name, steps
        if key not in self._sigmas:
            moves = one_step(values, self._view.factors[name].unit, steps)
            self._sigmas[key] = float(moves.std(ddof=1)) if len(moves) >= MIN_MOVES else 0.0
        return self._sigmas[key]


def _last_known(days: np.ndarray, frequency: Frequency, day: dt.date) -> int:
    """The last observation known after the close of a day; that of a month is once the month is over."""
    if frequency != "daily":
        month = day.month - (day.month - 1) % 3 if frequency == "quarterly" else day.month
        day = day.replace(month=month, day=1) - dt.timedelta(days=1)
    return int(days.searchsorted(np.datetime64(day), side="right")) - 1


def _size(one: Likeness, name: str, other: Likeness, farthest: float) -> float:
    """σ of a factor's move, bounded; of one whose direction alone is known, as large as the other's."""
    if name in one.sizes:
        return max(-farthest, min(farthest, one.sizes[name]))
    asked = min(farthest, abs(other.sizes.get(name, UNSEEN))) or UNSEEN
    return {"up": asked, "down": -asked, "none": 0.0}[one.directions[name]]
