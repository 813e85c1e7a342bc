"""The broker keeps to a run's budget: a hard stop in every dimension, and what failed calls used is charged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import BackendError, BudgetExceeded
from finllm.scheduler.backends import Generation, Request, TokenLimitReached
from finllm.scheduler.money.account import Account, Spent
from finllm.scheduler.money.amount import Amount
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.money.meter import Used
from finllm.testing import MemoryRecorder, ScriptedBackend
from tests.conftest import bounded
from tests.scheduler.brokers import DEEP_TASK, TASK, Counting, Hung, ask, broker, deep, unlimited


def test_the_seconds_budget_is_a_hard_stop() -> None:
    now = [0.0]
    account = Account(Budget(seconds=10), clock=lambda: now[0])
    backend = ScriptedBackend([{}])
    shared = broker(MemoryRecorder(), backend)
    ask(shared, account=account)
    now[0] = 10.5
    with pytest.raises(BudgetExceeded) as stop:
        ask(shared, replace(TASK, seed=1), account)
    assert "the budget of seconds is spent (10.5 s" in stop.value.message
    assert "not done: the call of 'market-signal' at 'market_signal'" in stop.value.message
    assert "larger --budget" in stop.value.fix
    assert len(backend.requests) == 1


def test_a_call_under_way_stops_when_the_seconds_are_spent() -> None:
    async def run() -> None:
        account = Account(Budget(seconds=0.05), clock=asyncio.get_running_loop().time)
        await broker(MemoryRecorder(), Hung(), deep()).run(TASK, account, run_id="run")

    with pytest.raises(BudgetExceeded, match="seconds"):
        bounded(run(), seconds=10)


def test_what_earlier_processes_spent_counts() -> None:
    account = Account(Budget(seconds=10), clock=lambda: 100.0, carried=Spent(10.0, 0, 0))
    with pytest.raises(BudgetExceeded):
        ask(broker(MemoryRecorder(), ScriptedBackend([{}])), account=account)


def test_a_run_whose_tokens_do_not_reach_for_the_next_call_stops_and_does_not_degrade() -> None:
    account = Account(Budget(tokens=60), clock=lambda: 0.0)
    with pytest.raises(
        BudgetExceeded,
        match=r"tokens is spent \(0.0 s, 60 tokens, 0 of them deep, .* J .table.\); not done: ",
    ):
        ask(broker(MemoryRecorder(), Counting((61,)), deep()), account=account)
    with pytest.raises(BudgetExceeded, match="tokens"):
        ask(broker(MemoryRecorder(), Counting(), deep()), account=Account(Budget(tokens=20), clock=lambda: 0.0))


def test_a_call_that_stops_before_it_spends_what_is_left_stops_the_run_too() -> None:
    class Careful(Counting):
        async def generate(self, request: Request) -> Generation:
            raise TokenLimitReached(request.token_limit, 0)

    far = deep()
    with pytest.raises(BudgetExceeded, match="tokens"):
        ask(broker(MemoryRecorder(), Careful(), far), account=Account(Budget(tokens=400), clock=lambda: 0.0))
    assert far.requests == []


def test_a_run_without_deep_tokens_degrades_and_goes_on() -> None:
    account = Account(Budget(tokens=5000, deep_tokens=70), clock=lambda: 0.0)
    with pytest.raises(BackendError, match="left"):
        ask(broker(MemoryRecorder(), Counting((80,), tier="deep", precision="F16")), DEEP_TASK, account)
    assert account.spent().deep_tokens == 70
    ask(broker(MemoryRecorder(), Counting((80,))), account=account)


costs = st.lists(st.integers(0, 400), min_size=1, max_size=6)


@given(
    edge_costs=costs,
    deep_costs=costs,
    floors=st.lists(st.sampled_from(("Q4_0", "F16")), max_size=12),
    tokens=st.none() | st.integers(1, 2000),
    deep_tokens=st.none() | st.integers(0, 1000),
    at_once=st.integers(1, 4),
)
@settings(deadline=None, max_examples=60)
def test_an_account_never_spends_more_than_its_budget_one_by_one_or_at_once(
    edge_costs: list[int],
    deep_costs: list[int],
    floors: list[str],
    tokens: int | None,
    deep_tokens: int | None,
    at_once: int,
) -> None:
    account = Account(Budget(None, tokens, deep_tokens), clock=lambda: 0.0)
    edge, far = Counting(edge_costs), Counting(deep_costs, tier="deep", precision="F16")
    shared = broker(MemoryRecorder(), edge, far)

    async def one(seed: int, floor: str) -> None:
        with contextlib.suppress(BackendError, BudgetExceeded):
            await shared.run(replace(TASK, seed=seed, floor=floor), account, run_id="run")

    async def everything() -> None:
        for start in range(0, len(floors), at_once):
            batch = floors[start : start + at_once]
            await asyncio.gather(*(one(start + i, floor) for i, floor in enumerate(batch)))

    bounded(everything())
    spent = account.spent()
    assert spent.tokens == edge.used + far.used
    assert spent.deep_tokens == far.used
    assert tokens is None or spent.tokens <= tokens
    assert deep_tokens is None or spent.deep_tokens <= deep_tokens


def test_calls_that_fit_side_by_side_run_side_by_side() -> None:
    class Meeting(Counting):
        """Answers only when two calls are under way."""

        def __init__(self) -> None:
            super().__init__()
            self._both = asyncio.Event()

        async def generate(self, request: Request) -> Generation:
            if self.asked:
                self._both.set()
            done = await super().generate(request)
            await self._both.wait()
            return done

    async def both() -> None:
        account = Account(Budget(tokens=100_000), clock=lambda: 0.0)
        shared = broker(MemoryRecorder(), Meeting())
        await asyncio.gather(*(shared.run(replace(TASK, seed=seed), account, run_id="r") for seed in range(2)))

    bounded(both(), seconds=10)


class Metered(Counting):
    """A backend that tells what a call has used as it goes on, and then fails or goes on for ever."""

    def __init__(self, readings: Sequence[Used], error: Exception | None = None) -> None:
        super().__init__()
        self._readings = readings
        self._error = error

    async def generate(self, request: Request) -> Generation:
        assert request.meter is not None
        for used in self._readings:
            request.meter.read(used)
            await anyio.sleep(0)
        if self._error is not None:
            raise self._error
        await anyio.sleep_forever()
        raise AssertionError


def joules(value: float) -> Amount:
    return Amount(value, "measured", "RAPL")


def test_what_a_failed_call_used_is_charged_and_on_record() -> None:
    recorder, account = MemoryRecorder(), unlimited()
    failing = Metered([Used(30, 0.2, joules(3.0))], BackendError("out of memory", fix="add some"))
    answer = ask(broker(recorder, failing, deep()), account=account)
    (charge,) = [entry for entry in recorder.entries.values() if entry.kind == "charge"]
    assert charge.response["why"] == "out of memory"
    assert (charge.response["spent"]["tokens"], charge.response["spent"]["joules"]["value"]) == (30, 3.0)
    assert account.spent().tokens == 30 + recorder.entries[answer.key].response["spent"]["tokens"]


def test_what_a_call_that_timed_out_used_is_charged_each_time() -> None:
    recorder, account = MemoryRecorder(), unlimited()
    slow = Metered([Used(10, 0.1, joules(1.0)), Used(25, 0.2, joules(2.0))])
    for _ in range(2):
        with pytest.raises(BackendError, match="gave no answer"):
            ask(broker(recorder, slow, call_timeout=0.1), account=account)
    assert account.spent().tokens == 50
    assert sum(entry.kind == "charge" for entry in recorder.entries.values()) == 2


def test_what_a_cancelled_call_used_is_charged() -> None:
    recorder, account = MemoryRecorder(), unlimited()
    shared = broker(recorder, Metered([Used(10, 0.1, joules(1.0))]))

    async def cancel() -> None:
        task = asyncio.create_task(shared.run(TASK, account, run_id="run"))
        while not account._holds or account._holds[0].used.tokens == 0:
            await anyio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    bounded(cancel())
    assert account.spent().tokens == 10
    assert [entry.kind for entry in recorder.entries.values()] == ["placement", "charge"]


def test_a_call_stops_where_its_joules_run_out() -> None:
    account = Account(Budget(joules=5.0), clock=lambda: 0.0)
    endless = Metered([Used(10 * at, 0.1 * at, joules(2.0 * at)) for at in range(1, 6)])
    with pytest.raises(BudgetExceeded, match=r"joules is spent .* J .measured.*not done: the call of 'market-signal'"):
        ask(broker(MemoryRecorder(), endless), account=account)
    assert 5.0 <= account.spent().of("joules") <= 10.0


def test_a_call_with_a_budget_of_its_own_ends_and_the_run_goes_on() -> None:
    account = unlimited()
    endless = Metered([Used(10, 0.1, joules(9.0))])
    with pytest.raises(BackendError, match="the call's budget of joules"):
        ask(broker(MemoryRecorder(), endless), replace(TASK, budget=Budget(joules=5.0)), account)
    account.check("the next call")
    assert account.spent().of("joules") == 9.0
