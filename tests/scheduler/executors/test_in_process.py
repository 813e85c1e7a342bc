"""The default executor opens backends here and loads nothing of a cluster; one that comes later takes waiting tasks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import anyio

from finllm.events import EventBus
from finllm.scheduler.backends import Backend, Generation, Request
from finllm.scheduler.broker import Broker
from finllm.scheduler.placement.dispatch import spec_of
from finllm.scheduler.placement.fleet import BackendSpec
from finllm.testing import MemoryRecorder, ScriptedBackend
from tests.conftest import bounded
from tests.scheduler.brokers import TASK, unlimited


class Later:
    """Knows of backends that come while calls are under way."""

    def __init__(self) -> None:
        self.coming: list[Backend] = []

    def joined(self) -> Sequence[Backend]:
        coming, self.coming = self.coming, []
        return coming

    def spec(self, backend: Backend) -> BackendSpec:
        return replace(spec_of(backend.offer), node=backend.offer.name)


class Slow:
    """One slot, and an answer only once it is let go."""

    def __init__(self, name: str) -> None:
        self._inner = ScriptedBackend([{}], name=name, slots=1)
        self.offer = self._inner.offer
        self.go = asyncio.Event()
        self.asked = 0

    async def generate(self, request: Request) -> Generation:
        self.asked += 1
        await self.go.wait()
        return await self._inner.generate(request)


class Leaving(ScriptedBackend):
    """One that may be told to leave."""

    away = ""
    returns = False


def test_a_backend_that_joins_takes_the_tasks_that_wait() -> None:
    async def play() -> tuple[int, int]:
        first, second, later = Slow("first"), Slow("second"), Later()
        broker = Broker([first], MemoryRecorder(), EventBus(), call_timeout=30.0, joining=later)
        tasks = [asyncio.create_task(broker.run(replace(TASK, seed=at), unlimited(), run_id="r")) for at in range(6)]
        with anyio.fail_after(20):
            while first.asked < 1:
                await asyncio.sleep(0.01)
            later.coming.append(second)
            while second.asked < 1:
                await asyncio.sleep(0.01)
            first.go.set()
            second.go.set()
            answers = await asyncio.gather(*tasks)
        names = [answer.offer.name for answer in answers]
        assert broker.dispatch.waiting() == 0
        assert {spec.name for spec in broker.dispatch.fleet.specs} == {"first", "second"}
        assert broker.dispatch.fleet.running.sum() == 0
        return names.count("first"), names.count("second")

    first, second = bounded(play())
    assert first >= 1
    assert second >= 1
    assert first + second == 6, "no task was lost"


def test_a_backend_that_leaves_is_asked_no_more_and_its_tasks_go_to_another() -> None:
    leaving, other = Leaving([{}], name="leaving"), ScriptedBackend([{}], name="other")
    broker = Broker([leaving, other], MemoryRecorder(), EventBus(), call_timeout=30.0)
    leaving.away = "it is being drained"
    answer = bounded(broker.run(TASK, unlimited(), run_id="r"))
    assert answer.offer.name == "other"
    assert leaving.requests == []
    assert broker.services.shut() == {"leaving": "it is being drained"}


def test_the_default_executor_loads_nothing_of_a_cluster() -> None:
    code = "import sys, finllm.cli.run, finllm.desk.desk, finllm.sessions.session; sys.exit('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
