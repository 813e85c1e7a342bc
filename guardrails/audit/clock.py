"""Whether the clock was set while a session went on: held against a clock that nobody sets and that counts in sleep."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST = 1_000_000_000
"""ns from which on a difference is a clock that was set; less is what a service that keeps it right does all day."""


def since_boot() -> int:
    """ns since the machine started, its sleep included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class ClockWatch:
    """Tells by how much the clock (ns, UTC) was set between two looks. Time zones and daylight saving have no part."""

    def __init__(self, clock: Callable[[], int] = time.time_ns, steady: Callable[[], int] = since_boot) -> None:
        self._clock, self._steady = clock, steady
        self._seen = clock(), steady()

    def step(self) -> int:
        """ns by which the clock was set since the last look, negative where it went back; 0 for less than a second."""
        now, passed = self._clock(), self._steady()
        by = (now - self._seen[0]) - (passed - self._seen[1])
        self._seen = now, passed
        return by if abs(by) >= LEAST else 0

    def behind(self, newest: int) -> int:
        """As `step`, against the time of the newest record: negative where that is in this clock's future, else 0."""
        by = self._clock() - newest
        return by if by <= -LEAST else 0
