"""The grid's carbon intensity by zone and time, and the cleanest hour to come."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finllm.errors import InputError
from finllm.scheduler.money.amount import JOULES_PER_KWH, Amount, Grams, IntensityKind, checked_amount

_FIX = "set FINLLM_CARBON to a series that covers it, or to one figure in gCO₂e/kWh"


@dataclass(frozen=True)
class Intensity:
    """gCO₂e per kWh of a zone at a time. `basis`: the series and the hour, in words."""

    value: float
    kind: IntensityKind
    basis: str

    def of(self, joules: Amount) -> Grams:
        """gCO₂e of so many J: E / 3.6 MJ per kWh · I. The intensity is a table's, so are the grams."""
        grams = joules.times(
            self.value / JOULES_PER_KWH, "table", f"{self.value:g} gCO₂e/kWh {self.kind}, {self.basis}"
        )
        return Grams(grams.value, grams.provenance, grams.basis, self.kind)


@dataclass(frozen=True)
class GreenStart:
    """When to begin: `value` is the mean intensity from then on, `now` that of beginning at once, gCO₂e/kWh."""

    at: dt.datetime
    value: float
    now: float


class ZoneIntensity(Protocol):
    """The intensity of one zone."""

    @property
    def zone(self) -> str: ...

    @property
    def kind(self) -> IntensityKind: ...

    def at(self, when: dt.datetime) -> Intensity: ...

    def cheapest(self, earliest: dt.datetime, latest: dt.datetime, seconds: float) -> GreenStart: ...


@dataclass(frozen=True)
class Constant:
    """The same intensity at all times. Errors: InputError for a negative one."""

    zone: str
    value: float
    kind: IntensityKind = "average"

    def __post_init__(self) -> None:
        checked_amount(self.value, f"the grid intensity of zone {self.zone!r}", "give a figure from 0 up, in gCO₂e/kWh")

    def at(self, when: dt.datetime) -> Intensity:
        _utc(when)
        return Intensity(self.value, self.kind, f"{self.zone}, a constant")

    def cheapest(self, earliest: dt.datetime, latest: dt.datetime, seconds: float) -> GreenStart:
        _ordered(earliest, latest, seconds)
        return GreenStart(earliest, self.value, self.value)


class CarbonSeries:
    """Intensity by time: `values[i]` holds from `times[i]` on, for one step (the commonest one).

    `times`: s since 1970 (UTC), rising; `values`: gCO₂e/kWh, ndarrays of shape (n,). `basis` names the source in words.
    Errors: InputError for times that go back, values below 0 or that are none, or fewer than two rows.
    """

    def __init__(
        self, zone: str, times: Sequence[float], values: Sequence[float], kind: IntensityKind, basis: str
    ) -> None:
        self.zone = zone
        self.kind: IntensityKind = kind
        self.basis = basis
        if len(times) < 2 or len(times) != len(values):
            raise InputError(f"the grid intensity of zone {zone!r} has {len(times)} rows", fix="give two rows or more")
        for before, after in pairwise(times):
            if after <= before:
                raise InputError(
                    f"the grid intensity of zone {zone!r} goes back in time at {_said(after)}",
                    fix="sort the rows by time, each time once",
                )
        for time, value in zip(times, values, strict=True):
            checked_amount(
                value, f"the grid intensity of zone {zone!r} at {_said(time)}", "correct that row: from 0 up"
            )
        self._times: NDArray[np.float64] = np.asarray(times, dtype=np.float64)
        self._values: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
        steps, counts = np.unique(np.diff(self._times), return_counts=True)
        self._step = float(steps[counts.argmax()])
        self._ends = np.minimum(np.append(self._times[1:], np.inf), self._times + self._step)
        grams = self._values * (self._ends - self._times)
        self._sums = np.concatenate([[0.0], np.cumsum(grams)])

    @property
    def first(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(float(self._times[0]), dt.UTC)

    @property
    def last(self) -> dt.datetime:
        """The moment from which nothing is known any more."""
        return dt.datetime.fromtimestamp(float(self._ends[-1]), dt.UTC)

    def at(self, when: dt.datetime) -> Intensity:
        """The intensity at a time. Errors: InputError outside the series, or in a gap of it."""
        row = self._row(_utc(when))
        return Intensity(float(self._values[row]), self.kind, f"{self.basis}, {_said(float(self._times[row]))}")

    def cheapest(self, earliest: dt.datetime, latest: dt.datetime, seconds: float) -> GreenStart:
        """The start within [earliest, latest] of `seconds` of steady work that emits least; the first of equals.

        The mean over [s, s + seconds) is piecewise linear in s, so that the least lies where the start or the end meets
        a change. It looks at the series as it is: no forecast. Errors: InputError where the window is not covered.
        """
        begin, end = _ordered(earliest, latest, seconds)
        span = max(seconds, 1e-9)
        self._covered(begin, end + span)
        changes = np.concatenate([self._times, self._times - span])
        inside = changes[(changes > begin) & (changes < end)]
        starts = np.unique(np.concatenate([[begin, end], inside]))
        means = (self._integral(starts + span) - self._integral(starts)) / span
        best = int(np.flatnonzero(means <= means.min() + 1e-9)[0])
        return GreenStart(dt.datetime.fromtimestamp(float(starts[best]), dt.UTC), float(means[best]), float(means[0]))

    def _integral(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """∫ of the intensity from the first row, gCO₂e/kWh · s."""
        rows = np.clip(np.searchsorted(self._times, times, side="right") - 1, 0, len(self._times) - 1)
        return self._sums[rows] + self._values[rows] * (np.minimum(times, self._ends[rows]) - self._times[rows])

    def _row(self, time: float) -> int:
        row = int(np.searchsorted(self._times, time, side="right")) - 1
        if row < 0 or time >= self._ends[-1]:
            raise InputError(
                f"no grid intensity of zone {self.zone!r} at {_said(time)}: the series covers {_said(self._times[0])} "
                f"to {_said(self._ends[-1])}",
                fix=_FIX,
            )
        if time >= self._ends[row]:
            raise InputError(
                f"the grid intensity of zone {self.zone!r} has a gap from {_said(self._ends[row])} to "
                f"{_said(self._times[row + 1])}",
                fix="fill the gap in the series",
            )
        return row

    def _covered(self, begin: float, end: float) -> None:
        first, last = self._row(begin), self._row(np.nextafter(end, begin))
        for row in range(first, last):
            self._row(np.nextafter(self._times[row + 1], begin))


class Grid:
    """The intensities of all zones that are known. Errors: InputError for a zone that is not, or two kinds mixed."""

    def __init__(self, sources: Sequence[ZoneIntensity]) -> None:
        self._sources: Mapping[str, ZoneIntensity] = {source.zone: source for source in sources}
        kinds = sorted({source.kind for source in sources})
        if len(kinds) > 1:
            raise InputError(f"zones by {' and '.join(kinds)} intensity cannot be compared", fix="give all by one kind")

    @property
    def zones(self) -> tuple[str, ...]:
        return tuple(self._sources)

    def zone(self, name: str) -> ZoneIntensity:
        """The source of a zone. Errors: InputError for one that is not known, naming those that are."""
        if name not in self._sources:
            known = ", ".join(sorted(self._sources)) or "none is"
            raise InputError(
                f"no grid intensity of zone {name!r}", fix=f"set FINLLM_ZONE to one that is known: {known}"
            )
        return self._sources[name]

    def at(self, zone: str, when: dt.datetime) -> Intensity:
        """The intensity of a zone at a time. Errors: as `zone` and `Series.at`."""
        return self.zone(zone).at(when)


def _utc(when: dt.datetime) -> float:
    if when.tzinfo is None:
        raise InputError(f"the time {when.isoformat()} has no zone", fix="give it in UTC, such as 2022-01-01T00:00:00Z")
    return when.timestamp()


def _ordered(earliest: dt.datetime, latest: dt.datetime, seconds: float) -> tuple[float, float]:
    begin, end = _utc(earliest), _utc(latest)
    if end < begin:
        raise InputError(f"the window ends at {_said(end)}, before it begins at {_said(begin)}", fix="turn it round")
    checked_amount(seconds, "the work's length in seconds", "give it from 0 up")
    return begin, end


def _said(time: float) -> str:
    return f"{dt.datetime.fromtimestamp(float(time), dt.UTC):%Y-%m-%d %H:%M:%SZ}"
