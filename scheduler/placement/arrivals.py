"""Foresees bursts of tasks: a calendar of market opens and releases, and a forecast from the log of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finllm.scheduler.placement.fleet import Floats

BIN = 60.0
"""s of arrivals that are counted together."""
SEASON = 30
"""Bins until arrivals are thought to repeat: half an hour."""
HISTORY = 240
"""Bins that are looked back on."""
EVERY = 10
"""Bins between two forecasts."""


@dataclass(frozen=True)
class Calendar:
    """Announced bursts, s on the caller's clock; `before` and `after`: s around one in which background work is
    parked.
    """

    times: tuple[float, ...] = ()
    before: float = 120.0
    after: float = 600.0

    def near(self, now: float) -> bool:
        return any(time - self.before <= now < time + self.after for time in self.times)

    def coming(self, now: float) -> bool:
        """True shortly before one: what sleeps is to be woken."""
        return any(time - self.before <= now < time for time in self.times)


@dataclass
class Arrivals:
    """Counts arrivals and says whether there are, or will be, far more than usual.

    `surge`: arrivals of a bin, as a multiple of the median, from which a burst is seen. The forecast is statsforecast's
    AutoETS (Hyndman et al. 2002) over the last hours.
    """

    calendar: Calendar = field(default_factory=Calendar)
    surge: float = 3.0
    bin: float = BIN
    forecasts: bool = True
    _counts: dict[int, int] = field(default_factory=dict[int, int])
    _forecast: tuple[int, float] = (-(10**9), 0.0)

    def arrived(self, now: float) -> None:
        """A task came."""
        at = int(now // self.bin)
        self._counts[at] = self._counts.get(at, 0) + 1

    def bursting(self, now: float) -> bool:
        """Background work should wait: a burst is announced, under way, or forecast for the next bin."""
        return self.calendar.near(now) or self._rate(now) >= self.surge * max(self._usual(now), 1.0)

    def coming(self, now: float) -> bool:
        """Sleeping backends should wake."""
        return self.calendar.coming(now) or self.bursting(now)

    def _usual(self, now: float) -> float:
        return float(np.median(self._past(now)))

    def _rate(self, now: float) -> float:
        """Arrivals of this bin so far or of the last, or of the next as forecast, whichever is more."""
        at = int(now // self.bin)
        seen = max(self._counts.get(at, 0), self._counts.get(at - 1, 0))
        return max(float(seen), self._next(now))

    def _next(self, now: float) -> float:
        at = int(now // self.bin)
        if not self.forecasts or at < 2 * SEASON:
            return 0.0
        made, value = self._forecast
        if at - made >= EVERY:
            value = forecast_arrivals(self._past(now))
            self._forecast = (at, value)
        return value

    def _past(self, now: float) -> Floats:
        at = int(now // self.bin)
        return np.array(
            [self._counts.get(bin_, 0) for bin_ in range(max(0, at - HISTORY), max(at, 1))], dtype=np.float64
        )


def forecast_arrivals(counts: Sequence[float] | Floats) -> float:
    """The most arrivals expected in one of the next `EVERY` bins, from counts by bin, oldest first."""
    from statsforecast.models import AutoETS

    values = np.asarray(counts, dtype=np.float64)
    if len(values) < 2 * SEASON or float(values.std()) == 0.0:
        return float(values.mean()) if len(values) else 0.0
    model: Any = AutoETS(season_length=1)
    return float(max(model.forecast(y=values, h=EVERY)["mean"]))
