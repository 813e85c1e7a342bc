"""The nodes of a cluster as one process sees them: their records, their signs of life, and what they doubt of others.

A run's process looks at every node, a node's at the next few. Each tells with its own signs of life whom it doubts; a
node that two doubt is suspected by everybody who hears of it. These words go from process to process, so that they
need neither the first node nor the directory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finllm.scheduler.cluster import Refused, Told
from finllm.scheduler.cluster.place import Place
from finllm.scheduler.cluster.signed import Signer, opened
from finllm.scheduler.executors.ray_processes import the_ray
from finllm.scheduler.executors.ray_room import RayRoom, keys, read
from finllm.scheduler.executors.records import read_record
from finllm.scheduler.executors.remote import Link, LostRoom, RemoteBackend

LOOK = 0.5
"""s between two looks at the nodes: their records, and their signs of life."""
VOICES = 2
"""Who has to doubt a node until it is suspected; what a process sees itself is one of them."""
NEXT = 3
"""How many nodes that are there a node watches: those that follow it in the order of names, and after the last the
first; and those that are away between them, so that it sees them come back."""


@dataclass
class Member:
    """A node: `doubts` is whom its own process doubts, and why, as `view`, signed by it, says."""

    envelope: bytes
    link: Link
    beat: Any = None
    asked: float = 0.0
    backends: list[RemoteBackend] = field(default_factory=list[RemoteBackend])
    view: bytes | None = None
    doubts: Mapping[str, str] = field(default_factory=dict[str, str])


class Members:
    """What this process knows of the nodes. `of`: the node that looks, where it is one; `heard`: called with each sign
    of life; `told` puts on record what is refused, and which nodes go.
    """

    def __init__(self, place: Place, told: Told, heard: Callable[[Member], None], of: str = "") -> None:
        self._place, self._told, self._heard, self._of = place, told, heard, of
        self._all: dict[str, Member] = {}
        self._listed: frozenset[str] = frozenset()
        self._refused: dict[str, bytes] = {}
        self._unreachable = False
        self.ending = threading.Event()

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._all.values()))

    def start(self, *more: Callable[[], None]) -> list[threading.Thread]:
        """Look again and again until `ending`, at `more` too. Records are read apart from signs of life, which need
        not wait for the first node.
        """
        threads = [threading.Thread(target=self._watch, args=(look,), daemon=True, name="finllm-cluster")
                   for look in (self.read_records, self.hear, *more)]  # fmt: skip
        for thread in threads:
            thread.start()
        return threads

    def _watch(self, look: Callable[[], None]) -> None:
        while not self.ending.wait(LOOK):
            try:
                look()
            except Exception as error:  # noqa: BLE001  whatever Ray raises while its first node is away
                if self.ending.is_set():
                    return
                if not self._unreachable:
                    self._told("cluster.unreachable", {"why": str(error)[:300]})
                self._unreachable = True
            else:
                self._unreachable = False

    def read_records(self) -> None:
        """Read the nodes' records, and take in what is new."""
        crl = read("crl")
        if crl is not None:
            self._place.learn_revoked(crl)
        names = keys("node:")
        self._listed = frozenset(names)
        for name in names:
            envelope = read(name)
            known = self._all.get(name)
            if envelope is None or self._refused.get(name) == envelope:
                continue
            if known is None or known.envelope != envelope:
                self._take_in(name, envelope, known)

    def _take_in(self, key: str, envelope: bytes, known: Member | None) -> None:
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
        self._all[key] = Member(envelope, Link(record, room, self._place, self._told))

    def hear(self) -> None:
        """Ask for signs of life, take those that have come, and agree on who is suspected."""
        ray = the_ray()
        for member in self._watched():
            if member.beat is None:
                member.beat = member.link.room.actor.beat.remote(member.link.calls())  # pyright: ignore
                member.asked = time.monotonic()
                member.link.asked = member.asked
        waiting = {member.beat: member for member in self._watched() if member.beat is not None}
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
                said: Any = ray.get(beat)
            except ray.exceptions.RayError as error:
                member.link.lose(f"{member.link.record.name!r} is gone: {str(error).splitlines()[0][:200]}")
                continue
            member.link.heard(said["calls"], time.monotonic() - member.asked, said["still"])
            self._learn(member, said["view"])
            self._heard(member)
        agree(list(self._all.values()))

    def doubted(self) -> dict[str, str]:
        """Whom this process doubts by itself, and why."""
        found = {member.link.record.name: member.link.doubt for member in self._watched()}
        return {name: why for name, why in found.items() if why}

    def _watched(self) -> Sequence[Member]:
        members = dict(self._all)
        if not self._of:
            return list(members.values())
        found: list[Member] = []
        for name in sorted(self._listed & members.keys(), key=lambda key: (key <= f"node:{self._of}", key)):
            if name != f"node:{self._of}" and sum(not member.link.away for member in found) < NEXT:
                found.append(members[name])
        return found

    def _learn(self, member: Member, view: bytes | None) -> None:
        if view == member.view:
            return
        member.view, member.doubts = view, {}
        if view is None:
            return
        try:
            member.doubts = view_of(view, member.link.record.name, self._place)
        except Refused as error:
            self._told("cluster.refused", {"node": member.link.record.name, "why": error.message})


def agree(members: Sequence[Member]) -> None:
    """Suspect whom `VOICES` doubt, of this process and the nodes' own; let go whom fewer do."""
    for member in members:
        name = member.link.record.name
        said = [(repr(peer.link.record.name), peer.doubts[name]) for peer in members
                if peer is not member and name in peer.doubts and not peer.link.away]  # fmt: skip
        if mine := member.link.doubt:
            said.append(("this process", mine))
        who = " and ".join(by for by, _ in said)
        member.link.suspect(f"{name!r} {said[0][1]}, by {who}" if len(said) >= VOICES else "")


def view_signed(node: str, doubts: Mapping[str, str], signer: Signer) -> bytes:
    """Whom a node doubts, as it says so with its signs of life."""
    return signer.sign("view", {"node": node, "doubts": dict(doubts)})


def view_of(envelope: bytes, node: str, place: Place) -> dict[str, str]:
    """Whom this node doubts. Errors: Refused where it did not say so."""
    holder, said = opened(envelope, "view", place)
    if holder.name != node or said.get("node") != node or not isinstance(said.get("doubts"), dict):
        raise Refused(
            f"{holder.name!r} doubts in the name of {node!r}", fix="run 'finllm cluster revoke' for that node"
        )
    return {str(name): str(why) for name, why in said["doubts"].items()}


_REVOKE = "run 'finllm cluster revoke' for that node"
