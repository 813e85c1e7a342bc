"""A broker over scripted, counting, hung and dying backends, and tasks to ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import anyio

from finllm.agents.market_signal import MarketSignal
from finllm.events import EventBus
from finllm.scheduler.backends import Backend, Generation, Offer, Request, TokenLimitReached
from finllm.scheduler.broker import Answer, Broker
from finllm.scheduler.decoding.template import compile_template
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.placement.task import Prompt, Task, Tier
from finllm.scheduler.record import Recorder
from finllm.testing import ScriptedBackend
from tests.conftest import bounded

TASK = Task(
    agent="market-signal",
    node="market_signal",
    prompt=Prompt("You are a risk analyst.", "Volatility doubled. " * 10),
    prompt_version="v1",
    template=compile_template(MarketSignal, {"because": "AB"}),
    floor="Q4_0",
    deadline=60.0,
    seed=0,
)
DEEP_TASK = replace(TASK, floor="F16")


def unlimited() -> Account:
    return Account(Budget(), clock=lambda: 0.0)


def deep(script: Sequence[Mapping[str, object]] = ({},)) -> ScriptedBackend:
    return ScriptedBackend(script, name="deep", tier="deep", precision="F16")


def broker(recorder: Recorder, *backends: Backend, bus: EventBus | None = None, call_timeout: float = 30.0) -> Broker:
    return Broker(backends, recorder, bus or EventBus(), call_timeout=call_timeout)


def ask(asked: Broker, task: Task = TASK, account: Account | None = None, run_id: str = "run") -> Answer:
    return bounded(asked.run(task, account or unlimited(), run_id=run_id))


class Counting:
    """A backend that takes its time and charges what it is told to, within the limit it is given."""

    def __init__(self, costs: Sequence[int] = (10,), *, tier: Tier = "edge", precision: str = "Q4_0") -> None:
        self._inner = ScriptedBackend([{}], name=tier, tier=tier, precision=precision)
        self._costs = costs
        self.asked = 0
        self.used = 0

    @property
    def offer(self) -> Offer:
        return self._inner.offer

    async def generate(self, request: Request) -> Generation:
        cost = self._costs[self.asked % len(self._costs)]
        self.asked += 1
        await anyio.sleep(0)
        if cost > request.token_limit:
            spent = max(int(request.token_limit), 0)
            self.used += spent
            raise TokenLimitReached(request.token_limit, spent)
        self.used += cost
        done = await self._inner.generate(replace(request, token_limit=float("inf")))
        return replace(done, prompt_tokens=cost, output_tokens=0)


class Hung:
    """A backend that never answers."""

    offer = Offer("hung", "edge", "Q4_0", "sha256-of-hung", "build", 4096)

    def __init__(self) -> None:
        self.request: Request | None = None
        self.told_to_stop = False

    async def generate(self, request: Request) -> Generation:
        self.request = request
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            self.told_to_stop = True
            raise
        raise AssertionError
