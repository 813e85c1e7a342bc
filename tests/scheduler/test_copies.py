"""Critical tasks run in two domains: exactly one answer is committed, the other is cancelled and charged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from finllm.errors import BackendError, BudgetExceeded
from finllm.events import Event, EventBus, Placed
from finllm.scheduler.asking import COPY, Unanswered, first_of
from finllm.scheduler.backends import BackendLost, Generation, Request
from finllm.scheduler.broker import Answer, Broker
from finllm.scheduler.cluster import Refused
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.money.meter import Used
from finllm.scheduler.record import Entry
from finllm.testing import MemoryRecorder, ScriptedBackend
from tests.conftest import bounded
from tests.scheduler.brokers import TASK, unlimited

CRITICAL = replace(TASK, critical=True)
Fate = Literal["answers", "dies", "is forged", "fails", "hangs"]


@dataclass
class Twin:
    """A backend of the shared weights in a domain of its own: after `turns` of the loop it meets its `fate`.

    `told`: tokens that its meter reads before that.
    """

    name: str
    domain: str
    fate: Fate = "answers"
    turns: int = 0
    told: int = 0

    def __post_init__(self) -> None:
        self.asked = 0
        self.stopped = 0
        self._inner = ScriptedBackend([{}], name=self.name, weights="the same", power=f"p{self.domain}",
                                      network=f"n{self.domain}")  # fmt: skip
        self.offer = self._inner.offer

    async def generate(self, request: Request) -> Generation:
        self.asked += 1
        try:
            if self.told and request.meter is not None:
                request.meter.read(Used(self.told, 0.1))
            for _ in range(self.turns):
                await asyncio.sleep(0)
            match self.fate if self.asked == 1 else "answers":
                case "dies":
                    raise BackendLost("its node died", fix="ask again")
                case "is forged":
                    raise Refused("not signed by it", fix="revoke it")
                case "fails":
                    raise BackendError("out of memory", fix="free some")
                case "hangs":
                    await asyncio.Event().wait()
                case _:
                    return await self._inner.generate(request)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        raise AssertionError


def _broker(recorder: MemoryRecorder, *backends: Twin | ScriptedBackend, bus: EventBus | None = None) -> Broker:
    return Broker(backends, recorder, bus or EventBus(), call_timeout=30.0)


def _ask(broker: Broker, task: object = CRITICAL, account: Account | None = None) -> Answer:
    return bounded(broker.run(task, account or unlimited(), run_id="r"))  # type: ignore[arg-type]


def _entries(recorder: MemoryRecorder, kind: str) -> list[Entry]:
    return [entry for entry in recorder.entries.values() if entry.kind == kind]


def _placed(recorder: MemoryRecorder) -> Mapping[str, object]:
    return _entries(recorder, "placement")[0].response


def test_a_critical_task_runs_in_two_domains_and_the_first_answer_stands() -> None:
    slow, quick = Twin("a", "1", fate="hangs", told=12), Twin("b", "2")
    recorder, seen = MemoryRecorder(), list[Event]()
    account = unlimited()
    answer = _ask(_broker(recorder, slow, quick, bus=EventBus(seen.append)), account=account)
    assert (answer.offer.name, slow.asked, quick.asked, slow.stopped) == ("b", 1, 1, 1)
    assert [entry.actor for entry in _entries(recorder, "call")] == ["b"]
    (charge,) = _entries(recorder, "charge")
    assert (charge.actor, charge.response["why"], charge.response["spent"]["tokens"]) == ("a", COPY, 12)
    assert account.spent().tokens == 12 + _entries(recorder, "call")[0].response["spent"]["tokens"]
    assert (_placed(recorder)["chosen"], _placed(recorder)["twin"]) == ("a", "b")
    assert "b" not in _placed(recorder)["refused"]  # type: ignore[operator]
    (told,) = [event for event in seen if isinstance(event, Placed)]
    assert (told.twin, told.alone) == ("b", None)


def test_a_copy_that_told_no_count_is_charged_by_its_prompt() -> None:
    recorder, account = MemoryRecorder(), unlimited()
    _ask(_broker(recorder, Twin("a", "1", fate="hangs"), Twin("b", "2")), account=account)
    (charge,) = _entries(recorder, "charge")
    assert charge.response["why"].startswith(f"{COPY}; reckoned")
    assert charge.response["spent"]["tokens"] > 0
    assert account.spent().tokens == sum(
        entry.response["spent"]["tokens"] for entry in recorder.entries.values() if entry.kind in ("call", "charge")
    )


def test_the_death_of_one_domain_is_not_waited_for() -> None:
    """A node that stands still is found after seconds; the other domain's answer is there at once."""
    recorder, still, other = MemoryRecorder(), Twin("a", "1", fate="hangs"), Twin("b", "2", turns=3)
    answer = bounded(_broker(recorder, still, other).run(CRITICAL, unlimited(), run_id="r"), seconds=3)
    assert answer.offer.name == "b"


def test_an_answer_on_record_names_the_domain_that_gave_it() -> None:
    """So that a replay, which has the record alone, rebuilds the same state."""
    recorder = MemoryRecorder()
    first = _ask(_broker(recorder, Twin("a", "1", fate="hangs"), Twin("b", "2")))
    again = _ask(_broker(recorder, Twin("a", "1"), Twin("b", "2")))
    assert (again.offer, again.reused, first.reused) == (first.offer, True, False)


def test_other_tasks_and_backends_without_domains_of_their_own_run_once() -> None:
    recorder, a, b = MemoryRecorder(), Twin("a", "1"), Twin("b", "2")
    _ask(_broker(recorder, a, b), TASK)
    assert a.asked + b.asked == 1
    assert (_placed(recorder)["twin"], _placed(recorder)["alone"]) == (None, None)

    quiet = MemoryRecorder()
    _ask(_broker(quiet, ScriptedBackend([{}], name="x"), ScriptedBackend([{}], name="y")))
    assert (_placed(quiet)["twin"], _placed(quiet)["alone"]) == (None, None), "nobody tells a domain: nothing is said"


@pytest.mark.parametrize("domains", [("p1", "n1"), ("p1", "n2"), ("p2", "n1"), ("", "n2")])
def test_a_shared_domain_is_no_second_one_and_that_is_said(domains: tuple[str, str]) -> None:
    recorder, a = MemoryRecorder(), Twin("a", "1")
    beside = ScriptedBackend([{}], name="b", weights="the same", power=domains[0], network=domains[1])
    _ask(_broker(recorder, a, beside))
    assert _placed(recorder)["twin"] is None
    assert "no other backend with its weights" in str(_placed(recorder)["alone"])


def test_other_weights_are_no_copy() -> None:
    recorder = MemoryRecorder()
    other = ScriptedBackend([{}], name="b", weights="others", power="p2", network="n2")
    _ask(_broker(recorder, Twin("a", "1"), other))
    assert _placed(recorder)["twin"] is None


def test_a_budget_that_does_not_hold_two_runs_one_and_says_so() -> None:
    recorder, a, b = MemoryRecorder(), Twin("a", "1"), Twin("b", "2")
    tight = Account(Budget(tokens=CRITICAL.most_tokens() * 2 - 1), lambda: 0.0)
    _ask(_broker(recorder, a, b), account=tight)
    assert a.asked + b.asked == 1
    assert "the budget does not hold two copies" in str(_placed(recorder)["alone"])

    wide = MemoryRecorder()
    _ask(_broker(wide, Twin("a", "1"), Twin("b", "2")),
         account=Account(Budget(tokens=CRITICAL.most_tokens() * 2), lambda: 0.0))  # fmt: skip
    assert _placed(wide)["twin"] is not None


def test_a_copy_in_trouble_over_the_budget_does_not_stop_the_run() -> None:
    async def spent() -> str:
        raise BudgetExceeded("spent", fix="more")

    async def fine() -> str:
        await asyncio.sleep(0)
        return "fine"

    assert bounded(first_of({"a": spent, "b": fine})) == "fine"
    with pytest.raises(BudgetExceeded):
        bounded(first_of({"a": spent, "b": spent}))


def test_a_record_that_cannot_be_written_ends_both() -> None:
    recorder, slow = MemoryRecorder(), Twin("b", "2", fate="hangs")

    def full(entry: Entry) -> None:
        if entry.kind == "call":
            raise OSError("disk full")

    recorder.veto = full
    with pytest.raises(OSError, match="disk full"):
        _ask(_broker(recorder, Twin("a", "1"), slow))
    assert slow.stopped == 1


def test_where_neither_domain_answers_the_task_is_asked_again_elsewhere() -> None:
    recorder = MemoryRecorder()
    third = ScriptedBackend([{}], name="third")
    answer = _ask(_broker(recorder, Twin("a", "1", fate="fails"), Twin("b", "2", fate="is forged"), third))
    assert answer.offer.name == "third"
    assert set(_entries(recorder, "placement")[1].request["failed"]) == {"a", "b"}


FATES = st.sampled_from(["answers", "dies", "is forged", "fails", "hangs"])


@settings(max_examples=150, deadline=None)
@given(fates=st.tuples(FATES, FATES), turns=st.tuples(st.integers(0, 4), st.integers(0, 4)),
       told=st.tuples(st.integers(0, 50), st.integers(0, 50)))  # fmt: skip
def test_exactly_one_answer_is_committed_and_both_are_charged(
    fates: tuple[Fate, Fate], turns: tuple[int, int], told: tuple[int, int]
) -> None:
    """Whatever the order of answers, deaths and forgeries, and both in one turn of the loop too."""
    assume("hangs" not in fates or "answers" in fates)  # else what hangs is waited for, as it would be alone
    a, b = (Twin(name, name, fate, turn, tokens) for name, fate, turn, tokens in zip("ab", fates, turns, told,
                                                                                   strict=True))  # fmt: skip
    recorder, account = MemoryRecorder(), unlimited()
    third = ScriptedBackend([{}], name="third")
    broker = _broker(recorder, a, b, third)
    answer = _ask(broker, account=account)
    (call,) = _entries(recorder, "call")
    assert call.actor == answer.offer.name
    assert call.response["text"] == answer.text
    if "answers" in fates:
        assert call.actor in {name for name, fate in zip("ab", fates, strict=True) if fate == "answers"}
    charged = sum(entry.response["spent"]["tokens"] for entry in (call, *_entries(recorder, "charge")))
    assert account.spent().tokens == charged
    for twin in (a, b):
        worked = [entry for entry in _entries(recorder, "charge") if entry.actor == twin.name]
        assert twin.name == call.actor or worked or not (twin.told and twin.asked)
    assert broker.dispatch.fleet.running.sum() == 0, "every seat was given back"
    assert broker.dispatch.tasks.count <= 2


def test_all_errors_are_told_where_no_copy_answers() -> None:
    async def fails() -> str:
        raise BackendError("no", fix="yes")

    with pytest.raises(Unanswered) as none:
        bounded(first_of({"a": fails, "b": fails}))
    assert set(none.value.by) == {"a", "b"}
