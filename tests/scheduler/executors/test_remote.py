"""Answers of other nodes are believed once they are verified: forged, replayed and misdirected ones are refused."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finllm.errors import BackendError
from finllm.events import EventBus
from finllm.scheduler.backends import BackendLost, Generation, Request
from finllm.scheduler.broker import Broker
from finllm.scheduler.cluster import Refused
from finllm.scheduler.cluster.place import Place
from finllm.scheduler.cluster.signed import Signer, answer_of, request_digest
from finllm.scheduler.executors import remote
from finllm.scheduler.executors.records import NodeRecord, read_record
from finllm.scheduler.executors.remote import Link, LostRoom, RemoteBackend
from finllm.scheduler.money.amount import Amount
from finllm.scheduler.money.meter import Meter
from finllm.testing import MemoryRecorder, ScriptedBackend
from tests.conftest import bounded
from tests.scheduler.brokers import TASK, unlimited
from tests.scheduler.cluster.test_trust import Town
from tests.scheduler.executors.test_in_process import Later

Forge = Callable[[dict[str, Any]], bytes]
GOOD = Generation('{"regime":"calm"}', {"regime": {"calm": 0.75, "stress": 0.25}}, 40, 9, 0.5, 3, 2,
                  Amount(1.25, "modelled", "CPU time"))  # fmt: skip
REQUEST = Request(TASK.prompt, TASK.template, None, 7)


class Room:
    """A node's room without Ray: it signs what `forge` makes of the true answer, or never answers."""

    def __init__(self, place: Place, forge: Forge | None = None) -> None:
        self._signer = Signer(place.key(), place.certificate_path.read_bytes())
        self.forge: Forge = forge or (lambda said: self._signer.sign("answer", said))
        self.answers, self.stopped = True, list[str]()

    def ask(self, call: str, name: str, request: Request) -> Future[bytes]:
        done: Future[bytes] = Future()
        said = {"call": call, "backend": name, "asked": request_digest(request), "answer": answer_of(GOOD)}
        if self.answers:
            done.set_result(self.forge(said))
        return done

    def stop(self, call: str) -> None:
        self.stopped.append(call)


class Stand:
    """An authority, the node `one` with a room, and what this process, the node `here`, puts on record."""

    def __init__(self, folder: Path) -> None:
        self.town = Town(folder)
        self.here, self.one, self.two = (self.town.node(name) for name in ("here", "one", "two"))
        self.offer = ScriptedBackend([{}], name="edge", weights="aa").offer
        self.told = list[tuple[str, dict[str, Any]]]()
        self.room = Room(self.one)
        self.link = Link(self.record(), self.room, self.here, self.tell)
        self.backend = RemoteBackend(self.link, self.offer)

    def tell(self, what: str, about: Mapping[str, Any]) -> None:
        self.told.append((what, dict(about)))

    def record(self) -> NodeRecord:
        word = self.town.authority.admission("one", 1, ["aa"], "build").decode()
        return NodeRecord("one", "127.0.0.1:1", "room-one", "serving", {"zone": "z1"}, (self.offer,), {}, word)

    def refusals(self) -> list[str]:
        return [about["why"] for what, about in self.told if what == "cluster.refused"]


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def test_a_signed_answer_comes_through_whole(stand: Stand) -> None:
    assert bounded(stand.backend.generate(REQUEST)) == GOOD
    assert (stand.backend.offer.name, stand.backend.offer.where, stand.backend.zone) == ("edge@one", "remote", "z1")
    assert stand.told == []


def _other_text(stand: Stand, said: dict[str, Any]) -> bytes:
    parts = json.loads(Signer(stand.one.key(), stand.one.certificate_path.read_bytes()).sign("answer", said))
    parts["said"] = parts["said"].replace("calm", "wild")
    return json.dumps(parts).encode()


def _by(place: Place, said: dict[str, Any]) -> bytes:
    return Signer(place.key(), place.certificate_path.read_bytes()).sign("answer", said)


def _without_signature(_: Stand, said: dict[str, Any]) -> bytes:
    return json.dumps({"said": json.dumps(["answer", said]), "signature": base64.b64encode(b"x").decode(),
                       "certificate": ""}).encode()  # fmt: skip


@pytest.mark.parametrize(("forged", "why"), [
    (_other_text, "not signed by 'one'"),
    (lambda stand, said: _by(stand.two, said), "'two' answered for 'one'"),
    (lambda stand, said: _by(stand.one, said | {"call": "an earlier one"}), "another call"),
    (lambda stand, said: _by(stand.one, said | {"asked": "another request"}), "another call"),
    (lambda stand, said: _by(stand.one, said | {"answer": {"text": "?"}}), "cannot be read"),
    (_without_signature, "cannot be read"),
    (lambda stand, said: b"no JSON", "cannot be read"),
])  # fmt: skip
def test_a_forged_answer_enters_no_ledger_and_is_on_record(
    stand: Stand, forged: Callable[[Stand, dict[str, Any]], bytes], why: str
) -> None:
    stand.room.forge = lambda said: forged(stand, said)
    recorder, other = MemoryRecorder(), ScriptedBackend([{}], name="other")
    broker = Broker([stand.backend, other], recorder, EventBus(), call_timeout=30.0)
    answer = bounded(broker.run(replace(TASK, seed=1), unlimited(), run_id="r"))
    calls = [entry for entry in recorder.entries.values() if entry.kind == "call"]
    assert answer.offer.name == "other"
    assert [entry.actor for entry in calls] == ["other"]
    assert [why in one for one in stand.refusals()] == [True]


def test_an_answer_of_a_node_that_was_revoked_meanwhile_is_refused(stand: Stand) -> None:
    stand.town.authority.revoke("one", "lost")
    stand.here.learn_revoked(stand.town.authority.crl)
    with pytest.raises(Refused, match="was revoked"):
        bounded(stand.backend.generate(REQUEST))


def test_a_node_that_falls_silent_loses_its_calls_within_five_seconds(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "SILENCE", 0.2)
    stand.room.answers = False

    async def play() -> float:
        asked = asyncio.create_task(stand.backend.generate(REQUEST))
        started = time.monotonic()
        while not stand.backend.away:
            stand.link.look()
            await asyncio.sleep(0.05)
        with pytest.raises(BackendLost, match="no sign of life"):
            await asked
        return time.monotonic() - started

    assert bounded(play()) < 5
    assert stand.backend.returns
    stand.link.heard({}, 0.001)
    assert stand.backend.away == ""
    assert [what for what, _ in stand.told] == ["cluster.lost"]


def test_readings_come_with_the_signs_of_life_and_a_cancelled_call_is_stopped_there(stand: Stand) -> None:
    stand.room.answers, meter = False, Meter()

    async def play() -> None:
        asked = asyncio.create_task(stand.backend.generate(replace(REQUEST, meter=meter)))
        await asyncio.sleep(0.01)
        (call,) = stand.link.calls()
        stand.link.heard({call: (12, 0.5)}, 0.002)
        assert meter.used.tokens == 12
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert stand.room.stopped == [call]
        assert stand.link.calls() == []

    bounded(play())


def test_a_room_that_dies_under_a_call_is_lost_and_a_drained_one_is_not_asked(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_: dict[str, Any]) -> bytes:
        raise LostRoom("its process ended")

    stand.room.forge = die
    failed: Future[bytes] = Future()
    failed.set_exception(LostRoom("its process ended"))
    monkeypatch.setattr(stand.room, "ask", lambda *_: failed)
    with pytest.raises(BackendLost, match="died under a call"):
        bounded(stand.backend.generate(REQUEST))
    stand.link.heard({}, 0.001)
    stand.link.record = stand.link.record.in_state("draining")
    assert stand.backend.away == "'one' is draining"
    assert not stand.backend.returns
    with pytest.raises(BackendError, match="is draining"):
        bounded(stand.backend.generate(REQUEST))


def test_a_record_is_believed_with_the_authoritys_word_on_its_weights_alone(stand: Stand) -> None:
    one = Signer(stand.one.key(), stand.one.certificate_path.read_bytes())
    two = Signer(stand.two.key(), stand.two.certificate_path.read_bytes())
    record = stand.record()
    assert read_record(record.signed(one), stand.here) == record
    own_word = two.sign("admission", {"node": "one", "weights": ["aa"]}).decode()
    foreign = replace(record, offers=(replace(stand.offer, weights_sha256="bb"),))
    for envelope, why in (
        (record.signed(two), "'two' speaks for 'one'"),
        (replace(record, admission=own_word).signed(one), "who is not the authority"),
        (foreign.signed(one), "weights that it was not admitted with: bb"),
        (replace(record, name="two").signed(two), "shows the admission of 'one'"),
    ):
        with pytest.raises(Refused, match=why):
            read_record(envelope, stand.here)


def test_a_node_that_nobody_waits_for_any_more_counts_again_once_it_is_heard_of(stand: Stand) -> None:
    stand.link.lose("it is gone")
    assert stand.backend.returns, "it may come back: what waits for it does"
    stand.link.given_up = True
    assert not stand.backend.returns
    stand.link.heard({}, 0.001)
    assert stand.backend.away == ""
    assert stand.backend.returns


def test_tasks_that_wait_for_a_node_go_on_with_a_backend_that_takes_its_place(stand: Stand) -> None:
    """As when no node is heard of any more: this machine's own backends are opened, and nobody waits for a timeout."""
    later = Later()

    async def play() -> str:
        broker = Broker([stand.backend], MemoryRecorder(), EventBus(), call_timeout=60.0, joining=later)
        stand.link.lose("it is gone")
        asked = asyncio.create_task(broker.run(TASK, unlimited(), run_id="r"))
        await asyncio.sleep(0.1)
        assert not asked.done()
        later.coming.append(ScriptedBackend([{}], name="own"))
        stand.link.given_up = True
        return (await asked).offer.name

    assert bounded(play(), seconds=5) == "own"


def test_tasks_that_wait_for_a_node_that_is_given_up_end_with_why_where_nothing_takes_its_place(stand: Stand) -> None:
    async def play() -> None:
        broker = Broker([stand.backend], MemoryRecorder(), EventBus(), call_timeout=60.0)
        stand.link.lose("it is gone")
        asked = asyncio.create_task(broker.run(TASK, unlimited(), run_id="r"))
        await asyncio.sleep(0.1)
        stand.link.given_up = True
        with pytest.raises(BackendError, match="it is gone"):
            await asked

    bounded(play(), seconds=5)
