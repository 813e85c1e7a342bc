"""Health by progress: calls are guarded by one look-out, which fails them all when the engine behind them stands still.

A hung engine still answers `/health`: its web server is another process. What it cannot do is count another step.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

LONGEST_LOOK = 1.0
"""Longest wait for one look, s: a busy web server answers late."""


class Standstill(Exception):
    """No progress for `seconds` with a call under way."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no progress for {seconds:.1f} s")
        self.seconds = seconds


class Pulse:
    """Watches one engine while calls are under way, and only then.

    `look` gives a value that changes with every step of the engine; it is asked every `every` s and may fail, which
    counts as no progress. `limit()` is the longest standstill, s, looked up each time. One event loop at a time.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[Hashable]],
        limit: Callable[[], float],
        *,
        every: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._limit = limit
        self._every = every
        self._clock = clock
        self._calls = 0
        self._seen: Hashable = None
        self._moved = 0.0
        self._stalled: asyncio.Future[float] | None = None
        self._watcher: asyncio.Task[None] | None = None

    def beat(self) -> None:
        """Say that the engine has just done something, such as sending a token."""
        self._moved = self._clock()

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`, which is cancelled when the engine stands still. Errors: Standstill, and those of `work`."""
        stalled = self._enter()
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, stalled}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Standstill(stalled.result())
            self.beat()
            return task.result()
        finally:
            self._leave()
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    def _enter(self) -> asyncio.Future[float]:
        if self._calls == 0:
            self.beat()
        self._calls += 1
        if self._stalled is None or self._stalled.done():
            self._stalled = asyncio.get_running_loop().create_future()
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.ensure_future(self._watch())
        return self._stalled

    def _leave(self) -> None:
        self._calls -= 1
        if self._calls == 0 and self._watcher is not None:
            self._watcher.cancel()
            self._watcher = self._stalled = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            seen = await self._seen_now()
            if seen is not None and seen != self._seen:
                if self._seen is not None:
                    self.beat()
                self._seen = seen
            still = self._clock() - self._moved
            if still >= self._limit() and self._stalled is not None and not self._stalled.done():
                self._stalled.set_result(still)
                self.beat()

    async def _seen_now(self) -> Hashable:
        try:
            left = self._limit() - (self._clock() - self._moved)
            async with asyncio.timeout(max(self._every, min(left, LONGEST_LOOK))):
                return await self._look()
        except Exception:  # noqa: BLE001  whatever keeps the counters from being read, they show no progress
            return None
