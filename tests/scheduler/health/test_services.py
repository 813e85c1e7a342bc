"""Backends in service: slots are kept, given back whatever happens, and a backend that stands still is found."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import anyio
import pytest

from finllm.agents.market_signal import MarketSignal
from finllm.errors import BackendError
from finllm.scheduler.backends import BackendLost, Generation, Offer, Request
from finllm.scheduler.decoding.template import compile_template
from finllm.scheduler.health.breaker import Patience
from finllm.scheduler.health.services import Services
from finllm.scheduler.money.meter import Meter, Used
from finllm.scheduler.placement.task import Prompt
from finllm.testing import ScriptedBackend
from tests.conftest import bounded

REQUEST = Request(Prompt("You judge.", "Oil rises."), compile_template(MarketSignal, {"because": "A"}), None, 0)


class Gated:
    """A backend that answers when it is let; it counts who is in it, and notes the order of seeds."""

    def __init__(self) -> None:
        self._inner = ScriptedBackend([{}], name="edge")
        self.gate = asyncio.Event()
        self.inside = self.most = 0
        self.order: list[int] = []

    @property
    def offer(self) -> Offer:
        return self._inner.offer

    async def generate(self, request: Request) -> Generation:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.order.append(request.seed)
        try:
            await self.gate.wait()
            return await self._inner.generate(request)
        finally:
            self.inside -= 1


class Frozen(Gated):
    """A backend whose engine may stand still until it is restarted."""

    def __init__(self) -> None:
        super().__init__()
        self.restarts: list[str] = []

    def restart(self, why: str) -> None:
        self.restarts.append(why)
        self.gate.set()


def test_no_more_calls_than_slots_the_highest_rank_first_and_background_last() -> None:
    async def run() -> Gated:
        gated = Gated()
        services = Services([gated], slots={"edge": 2})
        asked = [
            asyncio.create_task(
                services.generate("edge", replace(REQUEST, seed=seed, rank=rank, background=background), "run")
            )
            for seed, rank, background in ((0, 1, False), (1, 1, False), (2, 9, True), (3, 1, False), (4, 5, False))
        ]
        await anyio.sleep(0.01)
        assert [(one.running, one.waiting) for one in services.state()] == [(2, 3)]
        gated.gate.set()
        await asyncio.gather(*asked)
        assert [(one.running, one.waiting, one.answered) for one in services.state()] == [(0, 0, 5)]
        return gated

    gated = bounded(run())
    assert gated.most == 2
    assert gated.order == [0, 1, 4, 3, 2]


def test_slots_come_back_from_calls_that_fail_time_out_or_are_cancelled() -> None:
    async def run() -> None:
        gated = Gated()
        services = Services([gated], slots={"edge": 1})
        with pytest.raises(BackendError, match="gave no answer within 0 s"):
            await services.generate("edge", replace(REQUEST, within=0.01), "run")
        holding = asyncio.create_task(services.generate("edge", REQUEST, "run"))
        waiting = [asyncio.create_task(services.generate("edge", REQUEST, "run")) for _ in range(3)]
        await anyio.sleep(0.01)
        waiting[0].cancel()
        holding.cancel()
        gated.gate.set()
        await asyncio.gather(*waiting[1:])
        assert services.state()[0].running == services.state()[0].waiting == 0

    bounded(run())


def test_a_backend_without_a_token_is_restarted_once_and_its_calls_are_lost_together() -> None:
    async def run() -> None:
        frozen = Frozen()
        services = Services([frozen], patience=Patience(stall=0.3, first=0.3, pause=0.05))
        started = asyncio.get_running_loop().time()
        found = await asyncio.gather(
            *(services.generate("edge", REQUEST, "run") for _ in range(4)), return_exceptions=True
        )
        assert asyncio.get_running_loop().time() - started < 3
        assert [type(one) for one in found] == [BackendLost] * 4
        assert len(frozen.restarts) == 1
        assert services.state()[0].breaker == "open"
        await services.opened(["edge"])
        await services.generate("edge", REQUEST, "run")
        assert services.state()[0].breaker == "closed"

    bounded(run())


def test_a_backend_that_gets_on_is_left_alone_however_long_it_takes() -> None:
    async def run() -> None:
        frozen = Frozen()
        services = Services([frozen], patience=Patience(stall=0.4, first=0.4))
        meter = Meter()
        call = asyncio.create_task(services.generate("edge", replace(REQUEST, meter=meter), "run"))
        for tokens in range(1, 11):
            await anyio.sleep(0.1)
            meter.read(Used(tokens))
            services.progress("edge", 1)
        frozen.gate.set()
        await call
        assert frozen.restarts == []
        assert services.state()[0].tokens == 10

    bounded(run())
