"""The live queue: who gets a seat, who waits, and that every seat comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.scheduler.decoding.template import Choose, Force
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.placement.dispatch import Dispatch, Seat
from finllm.scheduler.placement.fleet import BackendSpec
from finllm.scheduler.placement.task import Prompt, Task
from tests.scheduler.fleets import DEEP, EDGE

TASK = Task("reader", "node", Prompt("You read.", "A tanker was seized. " * 20), "v",
            (Force("{"), Choose("f", ("a", "b"))), "Q4_0", 100.0, 0)  # fmt: skip
ACCOUNT = Account(Budget(), lambda: 0.0)
ONE_SLOT = replace(EDGE, slots=1)


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        with anyio.fail_after(10):
            await work

    asyncio.run(bounded())


async def seat(dispatch: Dispatch, task: Task = TASK) -> Seat:
    found = await dispatch.seat(task, ACCOUNT, {})
    assert found is not None
    return found


def test_a_seat_says_what_is_predicted_and_why_the_others_were_passed_over() -> None:
    async def story() -> None:
        found = await seat(Dispatch([EDGE, DEEP]))
        assert found.backend == "edge"
        assert found.seconds > 0
        assert found.joules > 0
        assert "finer than needed" in found.passed_over["deep"]

    run(story())


def test_a_floor_is_kept_and_no_backend_at_all_is_told() -> None:
    async def story() -> None:
        dispatch = Dispatch([EDGE, DEEP])
        assert (await seat(dispatch, replace(TASK, floor="F16"))).backend == "deep"
        assert await dispatch.seat(TASK, ACCOUNT, {"edge": "shut", "deep": "shut"}) is None

    run(story())


def test_the_most_valuable_task_that_waits_gets_the_slot_that_comes_free() -> None:
    async def story() -> None:
        dispatch = Dispatch([ONE_SLOT])
        first = await seat(dispatch)
        order: list[float] = []

        async def waits(value: float) -> None:
            mine = await seat(dispatch, replace(TASK, value=value))
            order.append(value)
            dispatch.leave(mine, 1)

        others = [asyncio.create_task(waits(value)) for value in (1.0, 3.0, 2.0)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert dispatch.waiting() == 3
        dispatch.leave(first, 1)
        await asyncio.gather(*others)
        assert order == [3.0, 2.0, 1.0]

    run(story())


def test_a_caller_that_leaves_the_queue_takes_no_seat() -> None:
    async def story() -> None:
        dispatch = Dispatch([ONE_SLOT])
        first = await seat(dispatch)
        gone = asyncio.create_task(seat(dispatch))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        dispatch.leave(first, 1)
        assert (await seat(dispatch)).backend == "edge"

    run(story())


def test_a_task_whose_last_backend_shuts_while_it_waits_is_told_and_one_with_another_goes_there() -> None:
    async def story() -> None:
        shut: dict[str, str] = {}
        dispatch = Dispatch([ONE_SLOT, replace(DEEP, slots=1)], lambda: shut)
        held = [await seat(dispatch), await seat(dispatch, replace(TASK, floor="F16"))]
        edge_only = asyncio.create_task(dispatch.seat(TASK, ACCOUNT, {"deep": "not wanted"}))
        either = asyncio.create_task(dispatch.seat(TASK, ACCOUNT, {}))
        await asyncio.sleep(0)
        shut["edge"] = "its circuit is open"
        assert await edge_only is None
        dispatch.leave(held[1], 1)
        found = await either
        assert found is not None
        assert found.backend == "deep"

    run(story())


def test_a_task_that_will_be_late_starts_all_the_same() -> None:
    async def story() -> None:
        dispatch = Dispatch([EDGE])
        await seat(dispatch)
        assert (await seat(dispatch, replace(TASK, deadline=0.001))).backend == "edge"

    run(story())


def test_deep_tokens_spent_too_fast_make_them_dearer() -> None:
    async def story() -> None:
        dispatch = Dispatch([EDGE, DEEP])
        before = dispatch.policy.prices.deep
        account = Account(Budget(seconds=100.0, deep_tokens=1000), lambda: 0.0)
        account.spend(replace(account.spent(), tokens=900, deep_tokens=900))
        await dispatch.seat(TASK, account, {})
        assert dispatch.policy.prices.deep > before

    run(story())


@settings(max_examples=30, deadline=None)
@given(
    plan=st.lists(st.tuples(st.booleans(), st.floats(0.1, 5.0)), min_size=1, max_size=30),
    slots=st.integers(1, 3),
)
def test_no_more_seats_than_slots_and_all_come_back(plan: list[tuple[bool, float]], slots: int) -> None:
    specs: list[BackendSpec] = [replace(EDGE, slots=slots), replace(DEEP, slots=slots)]

    async def story() -> None:
        dispatch = Dispatch(specs)
        held: dict[str, int] = {"edge": 0, "deep": 0}

        async def one(cancels: bool, value: float) -> None:
            mine = await seat(dispatch, replace(TASK, value=value))
            held[mine.backend] += 1
            try:
                assert held[mine.backend] <= slots
                await asyncio.sleep(0)
                if cancels:
                    raise asyncio.CancelledError
            finally:
                held[mine.backend] -= 1
                dispatch.leave(mine, None if cancels else 3)

        await asyncio.gather(*(one(*each) for each in plan), return_exceptions=True)
        assert dispatch.fleet.running.tolist() == [0, 0]
        assert dispatch.fleet.held.tolist() == [0.0, 0.0]

    run(story())
