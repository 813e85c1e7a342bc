"""The executor of a cluster: every node's backends as actors of Ray; nodes come, leave and die while calls go on."""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, cast

from finllm.errors import BackendError, FinllmError, InputError
from finllm.events import Noted
from finllm.scheduler.backends import Backend, Request
from finllm.scheduler.backends.kind import Opening
from finllm.scheduler.cluster import Refused, Told
from finllm.scheduler.cluster.door import handshake
from finllm.scheduler.cluster.knock import split
from finllm.scheduler.cluster.place import Place
from finllm.scheduler.executors.ray_processes import NAMESPACE, ray_environment, the_ray
from finllm.scheduler.executors.records import NodeRecord, read_record
from finllm.scheduler.executors.remote import Link, LostRoom, RemoteBackend

LOOK = 0.5
"""s between two looks at the nodes: their records, and their signs of life."""
ALONE = 10.0
"""s without a sign of life of any node, after which this process's own backends answer too."""
FIRST = 10.0
"""Longest wait for the first node's backends when a desk opens, s."""
_KEYS = b"finllm"


class RayRoom:
    """A node's room by the name of its actor."""

    def __init__(self, name: str) -> None:
        ray = the_ray()
        self._ray, self.name = ray, name
        try:
            self.actor: Any = ray.get_actor(name, namespace=NAMESPACE)
        except ValueError as error:
            raise LostRoom(str(error)) from error

    def ask(self, call: str, name: str, request: Request) -> Future[bytes]:
        done: Future[bytes] = Future()
        inner: Future[bytes] = self.actor.ask.remote(call, name, request).future()

        def settle(_: object) -> None:
            error = inner.exception()
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(LostRoom(str(error).splitlines()[0]))
            else:
                done.set_result(inner.result())

        inner.add_done_callback(settle)
        return done

    def stop(self, call: str) -> None:
        self.actor.stop.remote(call)


@dataclass
class _Member:
    envelope: bytes
    link: Link
    beat: Any = None
    asked: float = 0.0
    backends: list[RemoteBackend] = field(default_factory=list[RemoteBackend])


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
        self._members: dict[str, _Member] = {}
        self._refused: dict[str, bytes] = {}
        self._fresh: list[Backend] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._unreachable = False
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
        while not any(one.link.seconds for one in self._members.values()) and time.monotonic() < ends:
            time.sleep(0.05)
            self._look()
        self._threads = [threading.Thread(target=self._watch, args=(look,), daemon=True, name="finllm-cluster")
                         for look in (self._read_records, self._hear, self._look_after_itself)]  # fmt: skip
        for thread in self._threads:
            thread.start()
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
        self._ending.set()
        for thread in self._threads:
            thread.join(2 * LOOK)  # one that waits for a first node that has died waits on
        the_ray().shutdown()

    def _watch(self, look: Callable[[], None]) -> None:
        """Look again and again. Records are read apart from signs of life, which need not wait for the first node."""
        while not self._ending.wait(LOOK):
            try:
                look()
            except Exception as error:  # noqa: BLE001  whatever Ray raises while its first node is away
                if self._ending.is_set():
                    return
                if not self._unreachable:
                    self._told("cluster.unreachable", {"why": str(error)[:300]})
                self._unreachable = True
            else:
                self._unreachable = False

    def _look(self) -> None:
        self._read_records()
        self._hear()

    def _read_records(self) -> None:
        """Read the nodes' records, and take in what is new."""
        crl = read("crl")
        if crl is not None:
            self._place.learn_revoked(crl)
        for name in keys("node:"):
            envelope = read(name)
            known = self._members.get(name)
            if envelope is None or self._refused.get(name) == envelope:
                continue
            if known is None or known.envelope != envelope:
                self._take_in(name, envelope, known)

    def _take_in(self, key: str, envelope: bytes, known: _Member | None) -> None:
        try:
            record = read_record(envelope, self._place)
            room = RayRoom(record.room)
        except Refused as error:
            self._refused[key] = envelope
            self._told("cluster.refused", {"node": key.removeprefix("node:"), "why": error.message})
            return
        except LostRoom:
            return  # its actor is not there yet, or no more
        if known is not None:
            known.envelope, known.link.record, known.link.room = envelope, record, room
            known.beat = None
            return
        self._members[key] = _Member(envelope, Link(record, room, self._place, self._told))

    def _hear(self) -> None:
        ray = the_ray()
        members = list(self._members.values())
        for member in members:
            if member.beat is None:
                member.beat = member.link.room.actor.beat.remote(member.link.calls())  # pyright: ignore
                member.asked = time.monotonic()
        waiting = {member.beat: member for member in members if member.beat is not None}
        if not waiting:
            return
        ray.wait(list(waiting), num_returns=len(waiting), timeout=LOOK / 2)
        for beat, member in waiting.items():
            ready, _ = ray.wait([beat], timeout=0)
            if not ready:
                member.link.look()
                continue
            member.beat = None
            try:
                readings: Any = ray.get(beat)
            except ray.exceptions.RayError as error:
                member.link.lose(f"{member.link.record.name!r} is gone: {str(error).splitlines()[0][:200]}")
                continue
            member.link.heard(readings, time.monotonic() - member.asked)
            self._heard = time.monotonic()
            self._offer(member)

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
        for member in self._members.values():
            member.link.given_up = True

    def _offer(self, member: _Member) -> None:
        """Hand out a node's backends once it has given a sign of life."""
        record: NodeRecord = member.link.record
        if not member.backends and record.state == "serving":
            member.backends = [RemoteBackend(member.link, offer) for offer in record.offers]
            with self._lock:
                self._fresh.extend(member.backends)


def _silent(*_: Any, **__: Any) -> None: ...


def connect(place: Place, state: dict[str, Any]) -> None:
    """Make this process one of Ray's drivers, under this home's certificate. Errors: BackendError."""
    os.environ.update(ray_environment(place))
    try:
        ray, driver = the_ray(), cast(Any, importlib.import_module("ray._private.worker"))
    except ImportError as error:
        raise BackendError("Ray is not installed", fix="pip install 'finllm[cluster]'") from error
    if ray.is_initialized():
        return
    logging.getLogger("ray").addHandler(logging.NullHandler())  # what it says is told by errors
    driver.print_to_stdstream = _silent  # it tells of nodes that died on stdout, which is for data
    try:
        place.holder(place.certificate_path.read_bytes())
        handshake(place, *split(state["gcs"]))  # Ray itself would try for a day
        ray.init(address=state["gcs"], _node_ip_address=state["host"], namespace=NAMESPACE, log_to_driver=False,
                 configure_logging=False, logging_level=logging.ERROR)  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BackendError(f"it does not answer: {why}", fix="run 'finllm cluster status' there") from error


def _table() -> Any:
    """What Ray keeps for a cluster by key; its functions have no public name."""
    return importlib.import_module("ray.experimental.internal_kv")


def read(key: str) -> bytes | None:
    return _table()._internal_kv_get(key.encode(), namespace=_KEYS)


def write(key: str, value: bytes) -> None:
    _table()._internal_kv_put(key.encode(), value, overwrite=True, namespace=_KEYS)


def remove(key: str) -> None:
    _table()._internal_kv_del(key.encode(), namespace=_KEYS)


def keys(prefix: str) -> list[str]:
    return sorted(key.decode() for key in _table()._internal_kv_list(prefix.encode(), namespace=_KEYS))
