"""Nodes watch each other: what one doubts and a second confirms is suspected by every process that asks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finllm.scheduler.cluster import Refused
from finllm.scheduler.cluster.signed import Signer
from finllm.scheduler.executors import remote, room
from finllm.scheduler.executors.members import Member, Members, agree, view_of, view_signed
from finllm.scheduler.executors.remote import Link
from finllm.scheduler.executors.room import Progress
from tests.scheduler.executors.nodes import COMMAND, Nodes
from tests.scheduler.executors.test_remote import Room, Stand

FOUND_WITHIN = 5.0


def _member(stand: Stand) -> Member:
    return Member(b"", Link(stand.record(), Room(stand.one), stand.here, stand.tell))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1000.0]
    monkeypatch.setattr(remote.time, "monotonic", lambda: now[0])

    def later(seconds: float) -> None:
        now[0] += seconds

    return later


def _peers(stand: Stand, *names: str) -> list[Member]:
    """Nodes of these names, which are all like the stand's one."""
    members = [_member(stand) for _ in names]
    for member, name in zip(members, names, strict=True):
        object.__setattr__(member.link.record, "name", name)
    return members


def test_a_node_is_suspected_once_a_second_peer_doubts_it_and_not_before(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    one, two, three = _peers(stand, "one", "two", "three")
    two.doubts = {"one": "answers after 2.0 s"}
    agree([one, two, three])
    assert not one.link.away
    three.doubts = {"one": "answers after 2.1 s"}
    agree([one, two, three])
    assert one.link.away == "'one' answers after 2.0 s, by 'two' and 'three'"
    one.link.heard({}, 0.001)
    assert one.link.away, "it is away until those who watch it take back their doubt"
    three.doubts = {}
    agree([one, two, three])
    assert not one.link.away
    assert [about["node"] for what, about in stand.told if what == "cluster.lost"] == ["one"]


def test_what_a_node_that_is_away_doubts_and_what_one_doubts_of_itself_does_not_count(tmp_path: Path) -> None:
    one, two, three = members = _peers(Stand(tmp_path), "one", "two", "three")
    one.doubts = two.doubts = three.doubts = {"one": "gave no sign of life for 3.0 s"}
    three.link.lose("it is gone")
    agree(members)
    assert not one.link.away


def test_a_node_that_answers_late_twice_is_doubted_and_one_spike_is_forgiven(
    tmp_path: Path, clock: Callable[[float], None]
) -> None:
    link = _member(Stand(tmp_path)).link
    link.heard({}, 2.0)
    assert not link.doubt
    clock(1.0)
    link.heard({}, 1.8)
    assert link.doubt == "answers after 1.8 s"
    link.heard({}, 0.1)
    assert not link.doubt
    clock(remote.DOUBT + 0.1)
    assert "no sign of life" in link.doubt


def test_a_backend_that_makes_no_token_for_far_longer_than_a_step_stands_still() -> None:
    now = [0.0]
    progress = Progress(lambda: now[0])
    progress.begin()
    now[0] = 60.0
    assert progress.still == 0.0, "it loads its weights: nobody knows how long that takes"
    progress.moved()
    for _ in range(80):
        now[0] += 0.1
        progress.moved()
    now[0] += room.STILL + 0.1
    assert progress.still == pytest.approx(room.STILL + 0.1)
    progress.moved()
    assert progress.still == 0.0
    progress.end(lost=False)
    now[0] += 100.0
    assert progress.still == 0.0, "it has nothing to do"


def test_a_node_watches_the_next_three_that_are_there_and_none_that_has_left(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    names = ["a", "b", "c", "d", "e", "f"]
    members = dict(zip(names, _peers(stand, *names), strict=True))
    looking = Members(stand.here, stand.tell, lambda _: None, of="d")
    looking._all = {f"node:{name}": member for name, member in members.items()}  # pyright: ignore[reportPrivateUsage]
    looking._listed = frozenset(looking._all) - {"node:f"}  # pyright: ignore[reportPrivateUsage]  # it has left
    members["a"].link.lose("it is gone")
    for member in members.values():
        member.link._still = "made no token"  # pyright: ignore[reportPrivateUsage]
    assert list(looking.doubted()) == ["e", "a", "b", "c"]


def test_whom_a_node_doubts_is_believed_by_its_signature_alone(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    signer = Signer(stand.one.key(), stand.one.certificate_path.read_bytes())
    view = view_signed("one", {"two": "is away"}, signer)
    assert view_of(view, "one", stand.here) == {"two": "is away"}
    with pytest.raises(Refused, match="in the name of 'two'"):
        view_of(view, "two", stand.here)
    with pytest.raises(Refused):
        view_of(view.replace(b"two", b"six"), "one", stand.here)


@pytest.mark.slow
def test_nodes_find_a_stopped_one_and_tell_a_process_that_asks_them(tmp_path: Path) -> None:
    """No run is under way: the nodes find it, and whoever looks hears it of the two that are left."""
    pytest.importorskip("ray", reason="'finllm[cluster]' is not installed")
    nodes = Nodes(tmp_path)
    try:
        nodes.begin("first")
        nodes.join("second")
        nodes.join("third")
        command = [sys.executable, "-c", COMMAND, "cluster", "status", "--watch", "--json"]
        with subprocess.Popen(command, env=nodes.environment("first"), stdout=subprocess.PIPE, text=True) as looking:
            said = ({node["name"]: node["doubted_by"] for node in json.loads(line)["nodes"]}
                    for line in looking.stdout or ())  # fmt: skip
            assert _until(said, lambda row: set(row) == {"first", "second", "third"} and not any(row.values()))
            assert nodes.strike("third", "", signal.SIGSTOP) > 3
            struck = time.monotonic()
            assert _until(said, lambda row: row["third"] == ["first", "second"])
            assert time.monotonic() - struck <= FOUND_WITHIN
            nodes.strike("third", "", signal.SIGCONT)
            assert _until(said, lambda row: not any(row.values())), "it is doubted no more"
            os.kill(looking.pid, signal.SIGTERM)
    finally:
        nodes.close()


def _until(said: Any, holds: Callable[[dict[str, list[str]]], bool], within: float = 60.0) -> bool:
    ends = time.monotonic() + within
    return any(holds(row) or time.monotonic() > ends for row in said) and time.monotonic() <= ends
