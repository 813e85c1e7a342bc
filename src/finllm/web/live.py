"""Live pages: a held connection is told that what its page shows has changed, and nothing else; the page reads it anew.

What is told is a digest of what this viewer may see. So a page that is loaded again shows the same, a browser that was
away and says which digest it had last is told only where that is another one, and a blind page says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from hashlib import sha256

import anyio
import anyio.to_thread

from finllm.web.refusals import Refused

BETWEEN = 0.25
"""s between two looks at the ledger, and at least between two messages to a page."""
HEARTBEAT = 10.0
"""s after which a silent connection is shown to live, and its session looked at."""
LONGEST = 600.0
"""s after which a connection ends; the browser comes again with the digest that it had last."""
MOST, MOST_EACH = 400, 8
"""Connections in all, and of one session."""

State = Callable[[], str | None]
"""A digest of what a page shows now; None where its viewer may see it no more."""


def digest_of(*shown: object) -> str:
    """The digest that stands for what is shown."""
    return sha256("\x1f".join(map(repr, shown)).encode()).hexdigest()[:24]


class Live:
    """The held connections of a server; belongs to its event loop."""

    def __init__(self, newest: Callable[[], int], limiter: anyio.CapacityLimiter) -> None:
        """`newest`: a number that changes once something that pages show is on record."""
        self._newest, self._limiter = newest, limiter
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: dict[str, int] = {}

    @property
    def open(self) -> int:
        """Connections that are held now."""
        return sum(self._open.values())

    async def watch(self) -> None:
        """Look at the ledger for as long as the server runs: one look for all connections."""
        self._loop, seen = asyncio.get_running_loop(), -1
        while True:
            with contextlib.suppress(Exception):  # a ledger that cannot be read now is looked at again
                now = await anyio.to_thread.run_sync(self._newest, limiter=self._limiter)
                if now != seen:
                    seen = now
                    self._tell()
            await asyncio.sleep(BETWEEN)

    def changed(self) -> None:
        """Something that pages show is not what it was. From any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def admit(self, whose: str) -> None:
        """Errors: Refused where as many are held as may be."""
        if self.open >= MOST or self._open.get(whose, 0) >= MOST_EACH:
            raise Refused(429, "Too many live pages", "as many pages are kept up to date as may be",
                          "close some; a page that is not live is right when it is loaded")  # fmt: skip

    async def stream(self, whose: str, state: State, last: str) -> AsyncIterator[bytes]:
        """Server-sent events. `last`: the digest of what the browser shows."""
        self._open[whose] = self._open.get(whose, 0) + 1
        began = told = time.monotonic()
        try:
            yield b"retry: 2000\n\n"
            while time.monotonic() - began < LONGEST:
                waiting = self._changed
                now = await anyio.to_thread.run_sync(state, limiter=self._limiter)
                if now is None:
                    yield b"event: gone\ndata: gone\n\n"
                    return
                if now != last:
                    last, told = now, time.monotonic()
                    yield f"id: {now}\nevent: changed\ndata: {now}\n\n".encode()
                elif time.monotonic() - told >= HEARTBEAT:
                    told = time.monotonic()
                    yield b": here\n\n"
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(waiting.wait(), HEARTBEAT)
                    await asyncio.sleep(BETWEEN / 2)
        finally:
            self._open[whose] -= 1
            if not self._open[whose]:
                del self._open[whose]
