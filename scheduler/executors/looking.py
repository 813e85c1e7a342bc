"""Looking at a cluster from a member: its nodes' records and signs of life, wishes to them, and what is wrong here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

from finllm.errors import FinllmError, InputError
from finllm.files import looser_than
from finllm.processes import lives
from finllm.scheduler.cluster import Refused
from finllm.scheduler.cluster.door import reachable
from finllm.scheduler.cluster.knock import split
from finllm.scheduler.cluster.place import Place, utc_now
from finllm.scheduler.cluster.signed import Signer
from finllm.scheduler.executors.members import view_of
from finllm.scheduler.executors.ray_processes import the_ray
from finllm.scheduler.executors.ray_room import RayRoom, connect, keys, read, write
from finllm.scheduler.executors.records import NodeRecord, asked_to, read_record
from finllm.scheduler.executors.remote import SILENCE, LostRoom


class Looking:
    """A connection to the cluster for as long as the block lasts. Errors: BackendError where there is none."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._state = place.state()

    def __enter__(self) -> Looking:
        connect(self._place, self._state)
        return self

    def __exit__(self, *_: object) -> None:
        the_ray().shutdown()

    def look(self) -> dict[str, Any]:
        """The nodes now, as JSON-able data; `refused`: records that are not believed, with why. `doubted_by`: the nodes
        whose processes doubt it.
        """
        records: list[NodeRecord] = []
        refused: list[dict[str, str]] = []
        for key in keys("node:"):
            try:
                records.append(self._record(key))
            except Refused as error:
                refused.append({"node": key.removeprefix("node:"), "why": error.message})
        states = _asked(records)
        doubts = {name: self._doubts(name, state.pop("view")) for name, state in states.items()}
        nodes = [{
            "name": one.name, "address": one.address, "state": one.state, "labels": dict(one.labels),
            "backends": [offer.name for offer in one.offers], **states[one.name],
            "doubted_by": [by for by, doubted in doubts.items() if one.name in doubted and by != one.name],
        } for one in records]  # fmt: skip
        return {"cluster": self._state["address"], "nodes": nodes, "refused": refused}

    def _doubts(self, name: str, view: bytes | None) -> dict[str, str]:
        with contextlib.suppress(Refused):
            return {} if view is None else view_of(view, name, self._place)
        return {}

    def state_of(self, node: str) -> str:
        """Errors: InputError for a node that has not offered."""
        if f"node:{node}" not in (known := keys("node:")):
            names = ", ".join(key.removeprefix("node:") for key in known)
            raise InputError(f"no node {node!r} offers", fix=f"use one of {names or 'none'}")
        return self._record(f"node:{node}").state

    def wish(self, node: str, verb: str) -> None:
        """Tell a node what is wished of it, signed as this one. Errors: as `state_of`."""
        self.state_of(node)
        signer = Signer(self._place.key(), self._place.certificate_path.read_bytes())
        write(f"wish:{node}:{self._state['name']}:{time.time_ns()}", asked_to(node, verb, signer))

    def _record(self, key: str) -> NodeRecord:
        envelope = read(key)
        if envelope is None:
            raise Refused(f"{key.removeprefix('node:')!r} has just gone", fix="look again")
        return read_record(envelope, self._place)


def _asked(records: Sequence[NodeRecord]) -> dict[str, dict[str, Any]]:
    """What each node's room says of itself within `SILENCE` s, by node; all are asked at once."""
    asked: dict[str, tuple[Any, Future[Any]]] = {}
    started, took = time.monotonic(), dict[str, float]()
    for record in records:
        with contextlib.suppress(LostRoom):
            room: Any = RayRoom(record.room).actor
            asked[record.name] = room, room.busy.remote().future()
            asked[record.name][1].add_done_callback(
                lambda _, name=record.name: took.setdefault(name, time.monotonic() - started)
            )
    wait([calls for _, calls in asked.values()], timeout=SILENCE)
    found: dict[str, dict[str, Any]] = {
        record.name: {"alive": False, "calls": 0, "seconds": 0.0, "view": None} for record in records
    }
    for name, (room, calls) in asked.items():
        if calls.done() and calls.exception() is None:
            found[name] = {"alive": True, "calls": int(calls.result()), "seconds": took[name], "view": _view(room)}
    return found


def _view(room: Any) -> bytes | None:
    """Whom the room's node doubts, as it says."""
    ray = the_ray()
    try:
        return ray.get(room.beat.remote([]), timeout=SILENCE)["view"]
    except ray.exceptions.RayError:
        return None


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what was found."""

    what: str
    ok: bool
    said: str


def examined(place: Place) -> list[Check]:
    """This home's part of the cluster, as far as it can be told without asking others."""
    state, found = place.state(), list[Check]()
    open_keys = [path.name for path in (place.key_path, place.folder / "ca.key", place.secret_path)
                 if path.exists() and looser_than(path, 0o600)]  # fmt: skip
    found.append(Check("secrets", not open_keys, f"others may read {', '.join(open_keys)}" if open_keys
                       else "readable by their owner alone"))  # fmt: skip
    try:
        holder = place.holder(place.certificate_path.read_bytes())
        hours = (holder.until - utc_now()).total_seconds() / 3600
        found.append(Check("certificate", True, f"of {holder.name!r}, holds for {hours:.1f} h"))
    except (FinllmError, OSError) as error:
        found.append(Check("certificate", False, str(error)))
    pid = state.get("pid")
    alive = bool(pid) and lives(pid, state.get("ticks"))
    found.append(Check("node", alive, f"process {pid}" if alive else "its process does not run"))
    host, port = split(state["address"])
    there = reachable(host, port)
    found.append(Check("cluster", there, f"{state['address']} {'answers' if there else 'does not answer'}"))
    bare = state["host"].startswith("127.")
    found.append(Check("listeners", bare, "this machine alone can reach them" if bare else _BARE))
    return found


_BARE = (
    "Ray's runtime-environment agent listens at this address without TLS, behind its token: let only the cluster's "
    "machines reach its port"
)
