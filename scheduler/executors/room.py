"""The room that a node's backends answer from: it fills requests, tells how far calls are, and signs what it says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from finllm.errors import BackendError
from finllm.events import EventBus
from finllm.scheduler.backends import Backend, BackendLost, Request, TokenLimitReached
from finllm.scheduler.backends.kind import Opening
from finllm.scheduler.backends.registry import open_backends
from finllm.scheduler.cluster.place import Place
from finllm.scheduler.cluster.signed import Signer, answer_of, request_digest
from finllm.scheduler.money.meter import Meter
from finllm.settings import Settings, load_settings

STILL, USUAL = 2.5, 4.0
"""A backend with calls under way that makes no token for so many s, and so many times its longest step of late, is
said to stand still."""
VIEW = 3.0
"""s for which what this node's process sees is passed on: a process that has died sees nothing."""


def open_here(settings: Settings) -> tuple[Sequence[Backend], Callable[[], None]]:
    """The backends that this home's settings name, and what closes them."""
    closing = contextlib.ExitStack()
    return open_backends(Opening(settings, EventBus(), closing)), closing.close


class Progress:
    """How a backend gets on, whose calls' meters move with each of the model's steps. From any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._calls, self._last, self._usual = clock, 0, 0.0, 0.0

    def begin(self) -> None:
        self._last = self._last if self._calls else self._clock()
        self._calls += 1

    def moved(self) -> None:
        now = self._clock()
        self._usual, self._last = max(now - self._last, 0.9 * self._usual), now

    def end(self, *, lost: bool) -> None:
        """A call ended; `lost`: with its engine, which loads its weights anew."""
        self._calls -= 1
        self._last, self._usual = self._clock(), 0.0 if lost else self._usual

    @property
    def still(self) -> float:
        """s for which it has not got on with calls under way, where that is far longer than its steps took; else 0.

        An engine that has made no token yet loads its weights, which takes what it takes.
        """
        since = self._clock() - self._last
        return since if self._calls and self._usual and since > max(STILL, USUAL * self._usual) else 0.0


class Room:
    """One process's backends, for calls from other processes. Its methods are what may be asked from elsewhere."""

    def __init__(self, opens: Callable[[Settings], tuple[Sequence[Backend], Callable[[], None]]] = open_here) -> None:
        settings = load_settings().settings
        self._place = Place(settings.cluster_dir)
        opened, self._close = opens(settings)
        self._backends = {backend.offer.name: backend for backend in opened}
        self._progress = {name: Progress() for name in self._backends}
        self._view: tuple[float, bytes] = (float("-inf"), b"")
        self._meters: dict[str, Meter] = {}
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    async def offers(self) -> list[dict[str, Any]]:
        return [asdict(backend.offer) for backend in self._backends.values()]

    async def beat(self, calls: Sequence[str]) -> dict[str, Any]:
        """A sign of life: how far these calls are (tokens, and s of the model's work), which backend makes no tokens,
        and whom this node's process doubts, signed by it.
        """
        found = {call: self._meters[call].used for call in calls if call in self._meters}
        still = {name: one.still for name, one in self._progress.items() if one.still}
        at, view = self._view
        return {
            "calls": {call: (used.tokens, used.seconds) for call, used in found.items()},
            "still": "".join(f"made no token for {s:.1f} s in {name!r}" for name, s in list(still.items())[:1]),
            "view": view if time.monotonic() - at < VIEW else None,
        }

    async def sees(self, view: bytes) -> None:
        """What this node's process sees of the others, for whoever asks for a sign of life."""
        self._view = time.monotonic(), view

    async def busy(self) -> int:
        """Calls under way."""
        return len(self._tasks)

    async def stop(self, call: str) -> None:
        """Nobody wants this call's answer any more."""
        if task := self._tasks.get(call):
            task.cancel()

    async def ask(self, call: str, name: str, request: Request) -> bytes:
        """The signed answer to a call, or why there is none: never an exception, which nobody would have signed."""
        said: dict[str, Any] = {"call": call, "backend": name, "asked": request_digest(request)}
        progress = self._progress.get(name) or Progress()
        meter = self._meters[call] = Meter(progress.moved)
        progress.begin()
        work = asyncio.ensure_future(self._generate(name, replace(request, meter=meter)))
        self._tasks[call] = work
        try:
            said |= await work
        except asyncio.CancelledError:
            said |= {"failed": "stopped", "why": "nobody wanted it any more"}
        finally:
            progress.end(lost=said.get("failed") == "lost")
            del self._meters[call], self._tasks[call]
        return self._signer().sign("answer", said)

    async def close(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()
        self._close()

    async def _generate(self, name: str, request: Request) -> Mapping[str, Any]:
        backend = self._backends.get(name)
        if backend is None:
            return {"failed": "error", "why": f"this node has no backend {name!r}"}
        try:
            return {"answer": answer_of(await backend.generate(request))}
        except TokenLimitReached as error:
            return {"failed": "limit", "why": error.message, "limit": error.limit, "tokens": error.tokens}
        except BackendLost as error:
            return {"failed": "lost", "why": error.message}
        except BackendError as error:
            return {"failed": "error", "why": error.message}

    def _signer(self) -> Signer:
        """With the certificate as it is now: it is renewed while calls go on."""
        return Signer(self._place.key(), self._place.certificate_path.read_bytes())
