"""The executor of a cluster: every node's backends as actors of Ray; nodes come, leave and die while calls go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from finllm.errors import BackendError, FinllmError, InputError
from finllm.events import Noted
from finllm.scheduler.backends import Backend
from finllm.scheduler.backends.kind import Opening
from finllm.scheduler.cluster import Told
from finllm.scheduler.cluster.place import Place
from finllm.scheduler.executors.members import LOOK, Member, Members
from finllm.scheduler.executors.ray_processes import the_ray
from finllm.scheduler.executors.ray_room import connect
from finllm.scheduler.executors.records import NodeRecord
from finllm.scheduler.executors.remote import RemoteBackend

ALONE = 10.0
"""s without a sign of life of any node, after which this process's own backends answer too."""
FIRST = 10.0
"""Longest wait for the first node's backends when a desk opens, s."""


class RayExecutor:
    """Backends of the cluster that this home has joined. `told` puts on record what is refused, and which nodes go.

    `alone` opens this process's own backends where the cluster cannot be reached: the run goes on without it, and says
    so.
    """

    def __init__(self, place: Place, address: str, told: Told, alone: Callable[[Opening], list[Backend]]) -> None:
        self._place, self._told, self._alone = place, told, alone
        state = place.state()
        if address not in (state["address"], "here"):
            raise InputError(
                f"FINLLM_CLUSTER is {address!r}, and this home has joined {state['address']!r}",
                fix="set FINLLM_CLUSTER to that address, or to 'here'",
            )
        self._state = state
        self._members = Members(place, told, self._has_heard)
        self._fresh: list[Backend] = []
        self._lock = threading.Lock()
        self._opening: Opening | None = None
        self._heard = 0.0
        self._threads: list[threading.Thread] = []

    def open(self, opening: Opening) -> list[Backend]:
        try:
            connect(self._place, self._state)
        except BackendError as error:
            told = f"without the cluster at {self._state['address']}: {error.message}; this machine's backends serve"
            opening.bus.emit(Noted(level="warning", message=told))
            return self._alone(opening)
        opening.closing.callback(self._close)
        self._opening, self._heard = opening, time.monotonic()
        ends = time.monotonic() + FIRST
        self._look()
        while not any(one.link.seconds for one in self._members) and time.monotonic() < ends:
            time.sleep(0.05)
            self._look()
        self._threads = self._members.start(self._look_after_itself)
        found = list(self.joined())
        if not found:
            told = f"no node of the cluster at {self._state['address']} serves; this machine's own backends do"
            opening.bus.emit(Noted(level="warning", message=told))
            return self._alone(opening)
        return found

    def joined(self) -> Sequence[Backend]:
        if not self._fresh:
            return ()
        with self._lock:
            fresh, self._fresh = self._fresh, []
        return fresh

    def _close(self) -> None:
        self._members.ending.set()
        for thread in self._threads:
            thread.join(2 * LOOK)  # one that waits for a first node that has died waits on
        the_ray().shutdown()

    def _look(self) -> None:
        self._members.read_records()
        self._members.hear()

    def _look_after_itself(self) -> None:
        """Where no node is heard of any more, as after a new start of the first one: this machine's own backends take
        what waits, once.
        """
        opening = self._opening
        if opening is None or time.monotonic() - self._heard < ALONE:
            return
        self._opening = None
        why = f"no node of the cluster has been heard of for {ALONE:.0f} s"
        self._told("cluster.unreachable", {"why": f"{why}; this process goes on with its own backends"})
        told = f"{why}: this machine's own backends serve; nodes that come back do, too"
        opening.bus.emit(Noted(level="warning", message=told))
        try:
            own = self._alone(opening)
        except FinllmError as error:
            own = []
            opening.bus.emit(Noted(level="warning", message=f"this machine has no backend: {error.message}"))
        with self._lock:
            self._fresh.extend(own)
        for member in self._members:
            member.link.given_up = True

    def _has_heard(self, member: Member) -> None:
        """Hand out a node's backends once it has given a sign of life."""
        self._heard = time.monotonic()
        record: NodeRecord = member.link.record
        if not member.backends and record.state == "serving":
            member.backends = [RemoteBackend(member.link, offer) for offer in record.offers]
            with self._lock:
                self._fresh.extend(member.backends)
