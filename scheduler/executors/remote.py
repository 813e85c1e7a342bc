"""A backend on another node, as the broker sees it: calls go there, answers are believed once they are verified."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

from finllm.errors import BackendError
from finllm.scheduler.backends import BackendLost, Generation, Offer, Request, TokenLimitReached
from finllm.scheduler.calibration.measured import RungCalibration
from finllm.scheduler.cluster import Refused, Told
from finllm.scheduler.cluster.place import Place
from finllm.scheduler.cluster.signed import generation_of, opened, request_digest
from finllm.scheduler.executors.records import NodeRecord
from finllm.scheduler.money.meter import Meter, Used

SILENCE = 3.5
"""s without a sign of life after which a node is taken to be gone: its calls are asked elsewhere."""

DOUBT = 2.5
"""s without a sign of life after which a node is doubted: once another doubts it too, it is suspected."""
LATE = 1.5
"""s that two signs of life in a row may take; beyond it the node is doubted."""


class Asks(Protocol):
    """How a node's room is reached. Errors of what it starts: `LostRoom`."""

    def ask(self, call: str, name: str, request: Request) -> Future[bytes]: ...

    def stop(self, call: str) -> None: ...


class LostRoom(Exception):
    """The room's process, or its node, has died or cannot be reached."""


@dataclass
class _Call:
    loop: asyncio.AbstractEventLoop
    lost: asyncio.Future[str]
    meter: Meter | None


class Link:
    """One node as this process sees it. Signs of life come from a thread, calls from the broker's loop."""

    def __init__(self, record: NodeRecord, room: Asks, place: Place, told: Told) -> None:
        self.record, self.room = record, room
        self.seconds = 0.0
        """s of a sign of life there and back, smoothed."""
        self._place, self._told = place, told
        self._lock = threading.Lock()
        self._calls: dict[str, _Call] = {}
        self._seen = time.monotonic()
        self._lost = ""
        self._took = (0.0, 0.0)
        self._still = ""
        self._suspected = ""
        self.asked = self._seen
        """When the sign of life was asked for that is awaited, or came last."""
        self.given_up = False
        """Nobody waits for the node, should it be away: others answer in its place."""

    @property
    def away(self) -> str:
        if self.record.state != "serving":
            return f"{self.record.name!r} is {self.record.state}"
        return self._lost or self._suspected

    @property
    def doubt(self) -> str:
        """What is amiss with the node, as this process sees it by itself: silence, lateness, or no tokens."""
        now = time.monotonic()
        if self._lost:
            return "is away"
        if now - self._seen > DOUBT:
            return f"gave no sign of life for {now - self._seen:.1f} s"
        before, last = self._took
        if last > LATE and max(before, now - self.asked) > LATE:
            return f"answers after {last:.1f} s"
        return self._still

    def suspect(self, why: str) -> None:
        """The node is doubted by enough of those who watch it: it takes no call until it is not. Empty: it is not."""
        first, self._suspected = why and not self._suspected, why
        if first and not self._lost:
            self._told("cluster.lost", {"node": self.record.name, "why": why})
            self._let_go(why)

    @property
    def returns(self) -> bool:
        return self.record.state == "serving" and not (self.given_up and self._lost)

    def calls(self) -> list[str]:
        with self._lock:
            return list(self._calls)

    def heard(self, readings: Mapping[str, tuple[int, float]], seconds: float, still: str = "") -> None:
        """A sign of life came, after so many s, with how far its calls are. `still`: what makes no tokens there."""
        self._seen, self._lost = time.monotonic(), ""
        self._took, self._still, self.asked = (self._took[1], seconds), still, self._seen
        self.seconds = seconds if self.seconds == 0.0 else 0.8 * self.seconds + 0.2 * seconds
        with self._lock:
            known = {call: self._calls[call].meter for call in readings if call in self._calls}
        for call, meter in known.items():
            if meter is not None:
                tokens, worked = readings[call]
                meter.read(Used(int(tokens), float(worked)))

    def look(self) -> None:
        """No sign of life came: beyond `SILENCE` the node counts as gone."""
        silent = time.monotonic() - self._seen
        if silent > SILENCE and not self._lost:
            self.lose(f"{self.record.name!r} gave no sign of life for {silent:.1f} s")

    def lose(self, why: str) -> None:
        """The node is gone until it gives a sign of life: its calls end, and are asked elsewhere."""
        first, self._lost = not self._lost, why
        if first:
            self._told("cluster.lost", {"node": self.record.name, "why": why})
        self._let_go(why)

    def _let_go(self, why: str) -> None:
        with self._lock:
            calls, self._calls = self._calls, {}
        for call in calls.values():
            with contextlib.suppress(RuntimeError):
                call.loop.call_soon_threadsafe(_set, call.lost, why)

    async def ask(self, name: str, request: Request) -> Generation:
        """Errors: BackendLost where the node goes meanwhile; Refused for an answer that does not hold, on record;
        those of the backend there.
        """
        if self.away:
            raise BackendLost(self.away, fix=_ASK)
        loop, call = asyncio.get_running_loop(), uuid.uuid4().hex
        waiting = _Call(loop, loop.create_future(), request.meter)
        with self._lock:
            self._calls[call] = waiting
        asked = asyncio.wrap_future(self.room.ask(call, name, replace(request, meter=None)))
        try:
            await asyncio.wait({asked, waiting.lost}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise BackendLost(waiting.lost.result(), fix=_ASK)
            try:
                envelope = asked.result()
            except LostRoom as error:
                self.lose(f"{self.record.name!r} died under a call: {error}")
                raise BackendLost(f"{self.record.name!r} died under a call", fix=_ASK) from error
            return self._believed(envelope, call, name, request)
        except asyncio.CancelledError:
            self.room.stop(call)
            raise
        finally:
            with self._lock:
                self._calls.pop(call, None)
            asked.cancel()
            waiting.lost.cancel()

    def _believed(self, envelope: bytes, call: str, name: str, request: Request) -> Generation:
        try:
            holder, said = opened(envelope, "answer", self._place)
            if holder.name != self.record.name:
                raise Refused(f"{holder.name!r} answered for {self.record.name!r}", fix=_REVOKE)
            if (said.get("call"), said.get("backend"), said.get("asked")) != (call, name, request_digest(request)):
                raise Refused(f"{holder.name!r} answered another call than it was asked", fix=_REVOKE)
            return generation_of(said["answer"]) if "answer" in said else _failed(said)
        except Refused as error:
            self._told("cluster.refused", {"node": self.record.name, "call": call, "why": error.message})
            raise


class RemoteBackend:
    """One of a node's backends; its name ends in `@node`. Implements `MayBeAway` and `Measured`."""

    def __init__(self, link: Link, offer: Offer) -> None:
        self._link = link
        self._there = offer.name
        self.node, self.zone = link.record.name, link.record.labels.get("zone") or "local"
        self.shares = offer.where == "local"
        self.calibration: RungCalibration | None = link.record.calibrations.get(offer.name)
        self.offer = replace(offer, name=f"{offer.name}@{self.node}", where="remote", link=link.seconds,
                             calibratable=False, weights_file=None, power=link.record.labels.get("power") or "",
                             network=link.record.labels.get("network") or "")  # fmt: skip

    @property
    def link(self) -> float:
        return self._link.seconds

    @property
    def away(self) -> str:
        return self._link.away

    @property
    def returns(self) -> bool:
        return self._link.returns

    async def generate(self, request: Request) -> Generation:
        return await self._link.ask(self._there, request)


def _failed(said: Mapping[str, Any]) -> Generation:
    """Raise what a node says that happened there."""
    why = str(said.get("why"))
    if said.get("failed") == "limit":
        raise TokenLimitReached(float(said["limit"]), int(said["tokens"]))
    if said.get("failed") in ("lost", "stopped"):
        raise BackendLost(why, fix=_ASK)
    raise BackendError(why, fix="see 'finllm cluster status'")


def _set(future: asyncio.Future[str], why: str) -> None:
    if not future.done():
        future.set_result(why)


_ASK = "ask again: another node takes it; see 'finllm cluster status'"
_REVOKE = "run 'finllm cluster revoke' for that node"
