"""How often a visitor may ask: a bucket of tokens for each, filled at a steady rate, for so many visitors."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """`per_second` on average, `burst` at once."""

    per_second: float
    burst: float


READING = Rate(20, 120)
"""Of one session."""
VISITING = Rate(5, 60)
"""Of one address that has not signed in."""
WRITING = Rate(2, 30)
SIGNING_IN = Rate(0.2, 10)
"""Pass phrases from one address; an account locks itself beside that."""
REMEMBERED = 10_000
"""Visitors; the one that was not seen for longest is forgotten, whose bucket is full by then."""


class Rates:
    """The buckets. `allow` is thread-safe; `now` is a monotonic time, s."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most, self._lock = most, threading.Lock()
        self._left: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def allow(self, what: str, whose: str, rate: Rate, now: float) -> bool:
        """Take a token of the bucket of `what` and `whose`; False where none is left."""
        with self._lock:
            left, since = self._left.pop((what, whose), (rate.burst, now))
            left = min(rate.burst, left + (now - since) * rate.per_second)
            self._left[what, whose] = (left - 1 if left >= 1 else left, now)
            while len(self._left) > self._most:
                self._left.popitem(last=False)
            return left >= 1

    def __len__(self) -> int:
        return len(self._left)
