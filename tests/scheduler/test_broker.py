"""The broker: recorded before it is returned, never asked twice, never over budget, and never hung."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from dataclasses import replace

import anyio
import pytest

from finllm.agents.market_signal import MarketSignal
from finllm.errors import BackendError, RecordError
from finllm.events import CallFailed, CallFinished, CallStarted, Event, EventBus, Placed
from finllm.scheduler.backends import BackendLost, Generation, Request
from finllm.scheduler.broker import Answer, Broker
from finllm.scheduler.decoding.template import compile_template
from finllm.scheduler.health.breaker import Patience
from finllm.scheduler.health.services import Services
from finllm.scheduler.money.account import Account, Spent
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.placement.task import Prompt, Task
from finllm.scheduler.record import Entry, Recorder
from finllm.testing import MemoryRecorder, ScriptedBackend
from tests.conftest import bounded
from tests.scheduler.brokers import DEEP_TASK, TASK, Counting, Hung, ask, broker, deep, unlimited


def test_an_answer_is_on_record_with_all_that_made_it(recorder: Recorder) -> None:
    answer = ask(broker(recorder, ScriptedBackend([{"say": {"regime": "crisis"}}])))
    entry = recorder.lookup(answer.key)
    assert entry is not None
    assert entry.response["text"] == answer.text
    assert entry.response["choices"] == answer.choices
    assert answer.choices["regime"]["crisis"] == pytest.approx(0.9)
    assert {"prompt", "template", "priors", "seed", "weights_sha256", "precision"} <= set(entry.request)
    assert entry.request["offer"]["name"] == "scripted"


def test_an_answer_that_cannot_be_recorded_is_not_given() -> None:
    recorder = MemoryRecorder()

    def full(entry: Entry) -> None:
        if entry.kind == "call":
            raise RecordError("the disk is full", fix="free some space")

    recorder.veto = full
    seen: list[Event] = []
    with pytest.raises(RecordError, match="the disk is full"):
        ask(broker(recorder, ScriptedBackend([{}]), bus=EventBus(seen.append)))
    assert not any(isinstance(event, CallFinished) for event in seen)


def test_no_model_is_asked_before_its_placement_is_on_record() -> None:
    recorder, backend = MemoryRecorder(), ScriptedBackend([{}])

    def full(entry: Entry) -> None:
        raise RecordError(f"no room for a {entry.kind}", fix="free some space")

    recorder.veto = full
    with pytest.raises(RecordError, match="no room for a placement"):
        ask(broker(recorder, backend))
    assert backend.requests == []


def test_a_recorded_answer_is_given_again_without_asking_a_model(recorder: Recorder) -> None:
    first = ask(broker(recorder, ScriptedBackend([{"say": {"regime": "crisis"}}])))
    silent = ScriptedBackend([{"fail": "asked again"}])
    seen: list[Event] = []
    again = ask(broker(recorder, silent, bus=EventBus(seen.append)), run_id="another run")
    assert (again.text, again.choices, again.key) == (first.text, first.choices, first.key)
    assert again.reused
    assert not first.reused
    assert silent.requests == []
    assert [event.reused for event in seen if isinstance(event, CallFinished)] == [True]
    assert not any(isinstance(event, CallStarted) for event in seen)


def test_a_resumed_run_is_given_its_recorded_answers_even_when_its_budget_is_spent(recorder: Recorder) -> None:
    ask(broker(recorder, ScriptedBackend([{}])))
    spent = Account(Budget(tokens=1000), clock=lambda: 0.0, carried=Spent(0.0, 1000, 0))
    assert ask(broker(recorder, ScriptedBackend([{"fail": "asked"}])), account=spent).reused
    assert spent.spent().tokens == 1000


@pytest.mark.parametrize(
    "other",
    [
        replace(TASK, prompt=Prompt("You are a risk analyst.", "Calm.")),
        replace(TASK, seed=1),
        replace(TASK, priors={"regime": {"calm": 0.9}}),
        replace(TASK, template=compile_template(MarketSignal, {"because": "A"})),
    ],
    ids=["prompt", "seed", "priors", "template"],
)
def test_another_question_is_another_call(other: Task) -> None:
    backend = ScriptedBackend([{}])
    shared = broker(MemoryRecorder(), backend)
    assert ask(shared).key != ask(shared, other).key
    assert len(backend.requests) == 2


def test_other_weights_are_asked_anew() -> None:
    recorder = MemoryRecorder()
    ask(broker(recorder, ScriptedBackend([{}], name="old")))
    new = ScriptedBackend([{}], name="new")
    assert not ask(broker(recorder, new)).reused
    assert len(new.requests) == 1


def test_two_equal_tasks_at_once_ask_once(recorder: Recorder) -> None:
    backend = Counting()
    shared = broker(recorder, backend)

    async def both() -> list[Answer]:
        account = unlimited()
        return await asyncio.gather(*(shared.run(TASK, account, run_id="run") for _ in range(2)))

    first, second = bounded(both())
    assert backend.asked == 1
    assert first.text == second.text
    assert sorted((first.reused, second.reused)) == [False, True]


def test_where_another_process_answered_first_its_answer_is_given() -> None:
    class Beaten(MemoryRecorder):
        def record(self, entry: Entry, *, run_id: str, node: str) -> None:
            if entry.kind == "call":
                theirs = {**entry.response, "text": entry.response["text"].replace("calm", "crisis")}
                super().record(replace(entry, response=theirs), run_id="theirs", node=node)
            super().record(entry, run_id=run_id, node=node)

    recorder = Beaten()
    answer = ask(broker(recorder, ScriptedBackend([{}])))
    assert '"crisis"' in answer.text
    assert recorder.entries[answer.key].response["text"] == answer.text


def test_a_backend_that_fails_hands_over_to_the_next_and_both_are_on_record(recorder: Recorder) -> None:
    seen: list[Event] = []
    edge = ScriptedBackend([{"fail": "out of memory"}], name="edge")
    answer = ask(broker(recorder, edge, deep(), bus=EventBus(seen.append)))
    assert answer.offer.name == "deep"
    placed = [event for event in seen if isinstance(event, Placed)]
    assert [event.chosen for event in placed] == ["edge", "deep"]
    assert placed[1].refused == {"edge": "failed on this task: out of memory"}


def test_the_next_backend_also_meets_the_floor() -> None:
    edge = ScriptedBackend([{}], name="edge")
    with pytest.raises(BackendError) as failure:
        ask(broker(MemoryRecorder(), edge, deep([{"fail": "on fire"}])), DEEP_TASK)
    assert edge.requests == []
    assert "edge: Q4_0 is below the floor F16" in failure.value.message
    assert "deep: failed on this task: on fire" in failure.value.message
    assert "'market-signal' at 'market_signal'" in failure.value.message


def test_without_backends_the_error_says_so() -> None:
    with pytest.raises(BackendError, match="there is none"):
        ask(broker(MemoryRecorder()))


def test_a_resumed_run_keeps_its_recorded_placement() -> None:
    recorder = MemoryRecorder()
    tight = Account(Budget(tokens=10_000), clock=lambda: 0.0)
    ask(broker(recorder, ScriptedBackend([{}], name="edge"), deep()), account=tight)
    before = dict(recorder.entries)
    resumed = Account(Budget(tokens=20_000), clock=lambda: 5.0, carried=tight.spent())
    assert ask(broker(recorder, ScriptedBackend([{}], name="edge"), deep()), account=resumed).reused
    assert recorder.entries == before


def test_a_resumed_run_keeps_the_answer_of_the_backend_that_stood_in(recorder: Recorder) -> None:
    down = ScriptedBackend([{"fail": "no answer within 29 s"}], name="edge")
    first = ask(broker(recorder, down, deep()))
    back = ScriptedBackend([{"say": {"regime": "crisis"}}], name="edge")
    again = ask(broker(recorder, back, deep([{"fail": "asked again"}])))
    assert again.reused
    assert again.key == first.key
    assert back.requests == []


def test_a_backend_that_is_back_is_asked_again_where_nobody_had_answered(recorder: Recorder) -> None:
    down = [{"fail": "down"}]
    with pytest.raises(BackendError):
        ask(broker(recorder, ScriptedBackend(down, name="edge"), deep(down)))
    assert ask(broker(recorder, ScriptedBackend([{}], name="edge"), deep(down))).offer.name == "edge"


def test_a_hung_backend_is_given_up_after_the_call_timeout_and_told_to_stop() -> None:
    hung = Hung()
    answer = bounded(
        broker(MemoryRecorder(), hung, deep(), call_timeout=0.05).run(TASK, unlimited(), run_id="run"), seconds=10
    )
    assert answer.offer.name == "deep"
    assert hung.told_to_stop


def test_a_task_does_not_wait_past_its_own_deadline() -> None:
    with pytest.raises(BackendError, match="'hung' gave no answer within"):
        bounded(broker(MemoryRecorder(), Hung()).run(replace(TASK, deadline=0.05), unlimited(), run_id="r"), seconds=10)


def test_a_cancelled_call_stops_its_backend_and_leaves_no_lock_behind() -> None:
    hung = Hung()
    shared = broker(MemoryRecorder(), hung, deep())

    async def cancel_then_ask() -> None:
        account = Account(Budget(tokens=5000), clock=lambda: 0.0)
        task = asyncio.create_task(shared.run(TASK, account, run_id="run"))
        while hung.request is None:
            await anyio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert hung.told_to_stop
        await shared.run(DEEP_TASK, account, run_id="run")

    bounded(cancel_then_ask())
    gc.collect()
    assert len(shared._in_flight) == 0


class Dying(Counting):
    """A backend whose engine dies under its first calls."""

    def __init__(self, deaths: int) -> None:
        super().__init__()
        self._deaths = deaths
        self.under = Counter[int]()
        """Its deaths by the seed of the call."""

    async def generate(self, request: Request) -> Generation:
        if self.asked < self._deaths:
            self.asked += 1
            self.under[request.seed] += 1
            raise BackendLost("the engine's process ended (signal 9)", fix="ask again")
        return await super().generate(request)


def test_a_backend_that_dies_under_a_call_is_asked_again_and_answers_once(recorder: Recorder) -> None:
    dying = Dying(2)
    answer = ask(broker(recorder, dying))
    assert dying.asked == 3
    assert recorder.lookup(answer.key) is not None


def test_a_task_whose_backend_dies_goes_elsewhere_where_it_may_and_is_answered_so_again(recorder: Recorder) -> None:
    dead, seen = Dying(100), list[Event]()
    answer = ask(broker(recorder, dead, deep(), bus=EventBus(seen.append)))
    assert (answer.offer.name, dead.asked) == ("deep", 1)
    assert [event.backend for event in seen if isinstance(event, CallFailed)] == ["edge"]
    again = ask(broker(recorder, Dying(0), deep([{"fail": "asked again"}])))
    assert (again.key, again.reused) == (answer.key, True)


def test_a_task_whose_only_backend_keeps_dying_is_given_up() -> None:
    dead = Dying(100)
    with pytest.raises(BackendError, match="no backend may serve"):
        ask(broker(MemoryRecorder(), dead))
    assert dead.asked == 5


def test_many_tasks_outlive_a_backend_that_dies_under_them_all() -> None:
    recorder, dying = MemoryRecorder(), Dying(7)

    services = Services([dying], patience=Patience(longest=0.5))

    async def all_of_them() -> list[Answer]:
        shared, account = Broker([dying], recorder, EventBus(), call_timeout=30.0, services=services), unlimited()
        return await asyncio.gather(*(shared.run(replace(TASK, seed=at), account, run_id="r") for at in range(10)))

    answers = bounded(all_of_them())
    assert max(dying.under.values()) <= 2, "deaths hit those first that had none"
    assert len({answer.key for answer in answers}) == 10
    assert sum(entry.kind == "call" for entry in recorder.entries.values()) == 10


def test_a_backend_that_keeps_failing_is_not_waited_for() -> None:
    down = ScriptedBackend([{"fail": "the engine is down"}], name="edge")
    shared = broker(MemoryRecorder(), down)
    for seed in range(6):
        with pytest.raises(BackendError, match="the engine is down"):
            bounded(shared.run(replace(TASK, seed=seed), unlimited(), run_id="run"), seconds=0.4)
    assert len(down.requests) < 6
