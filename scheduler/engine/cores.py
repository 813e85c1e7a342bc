"""The cores that the engines of a process share: one that works alone has all of them, several have their part each.

Threads of one step wait for each other at every operation of the model; steps of two engines wait for nothing.
"""

from __future__ import annotations

import threading
from collections import deque


class Cores:
    """At most `count` threads compute at once."""

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._news = threading.Condition()
        self._working: set[CoreSeat] = set()
        self._queue: deque[object] = deque()
        self._taken = 0

    def seat(self) -> CoreSeat:
        """A place for one engine."""
        return CoreSeat(self)

    def work(self, seat: CoreSeat, working: bool) -> None:
        with self._news:
            (self._working.add if working else self._working.discard)(seat)
            self._news.notify_all()

    def take(self) -> int:
        """Wait for a part of the cores, first come first served; how many it is."""
        with self._news:
            ticket = object()
            self._queue.append(ticket)
            self._news.wait_for(lambda: self._queue[0] is ticket and self._taken + self._part() <= max(self.count, 1))
            self._queue.popleft()
            part = self._part()
            self._taken += part
            self._news.notify_all()
            return part

    def give_back(self, part: int) -> None:
        with self._news:
            self._taken -= part
            self._news.notify_all()

    def _part(self) -> int:
        return max(1, self.count // max(1, len(self._working)))


class CoreSeat:
    """An engine's place at the cores: entered for each step, it says with how many threads that may compute."""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores
        self._part = 0

    def works(self, working: bool) -> None:
        """Whether the engine has requests: then the cores are divided with it in mind."""
        self._cores.work(self, working)

    def __enter__(self) -> int:
        self._part = self._cores.take()
        return self._part

    def __exit__(self, *_: object) -> None:
        self._cores.give_back(self._part)
