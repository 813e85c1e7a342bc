"""Checks the simulator: the same hundred tasks live, through the broker onto real engines, and simulated."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

import numpy as np

from finllm.events import EventBus
from finllm.scheduler.backends import Backend
from finllm.scheduler.backends.llama_cpp import LlamaCppBackend, llama_backends
from finllm.scheduler.broker import Broker
from finllm.scheduler.calibration.probe import measure_rung
from finllm.scheduler.decoding.template import Write
from finllm.scheduler.engine.process import EngineProcess
from finllm.scheduler.health.services import Services
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.placement.dispatch import Dispatch, spec_of
from finllm.scheduler.placement.fleet import BackendSpec, Profile
from finllm.scheduler.placement.policies.weighted import Weighted
from finllm.scheduler.placement.task import Prompt, Task
from finllm.scheduler.simulation.run import Setup, simulate
from finllm.scheduler.simulation.trace import Arrival
from finllm.settings import Settings
from finllm.testing import MemoryRecorder

TASKS = 100
DEEP = 0.3
"""Share of tasks whose floor is the deep tier's precision."""
OVER = 20.0
"""s over which they arrive."""
LONGEST = 400.0
_WORDS = ("oil", "gas", "yield", "spread", "bank", "strait", "tariff", "output", "index", "credit", "dollar", "gold")


@dataclass(frozen=True)
class Validity:
    """s until the last of the tasks was answered, live and simulated."""

    live: float
    simulated: float
    tokens: int

    @property
    def ratio(self) -> float:
        return self.simulated / self.live

    @property
    def told(self) -> str:
        return (
            f"{TASKS} tasks of {self.tokens} tokens, on the edge and the deep engine of this machine, took "
            f"{self.live:.1f} s live and {self.simulated:.1f} s simulated, {self.ratio:.2f} of it"
        )


def validity(settings: Settings) -> Validity:
    """Measure both rungs, run the tasks live, and simulate what was run: the same arrivals, lengths and floors."""
    process = EngineProcess()
    try:
        backends = llama_backends(settings, process)
        specs = [_measured(backend, settings) for backend in backends]
        asked = _tasks(specs)
        live, arrivals = asyncio.run(_live(backends, specs, asked))
    finally:
        process.close()
    out = simulate(arrivals, specs, Weighted, Setup(known_lengths=True))
    tokens = sum(one.prompt + one.output for one in arrivals)
    return Validity(live, float(np.max(out.finished)), tokens)


def _measured(backend: LlamaCppBackend, settings: Settings) -> BackendSpec:
    speed = measure_rung(backend.path, settings.threads)
    return spec_of(backend.offer, Profile.of(speed))


def _tasks(specs: list[BackendSpec]) -> list[tuple[float, Task]]:
    random = np.random.default_rng(5)
    edge, deep = (next(spec.precision for spec in specs if spec.tier == tier) for tier in ("edge", "deep"))
    found: list[tuple[float, Task]] = []
    for at, time_ in enumerate(np.sort(random.uniform(0, OVER, TASKS))):
        words = " ".join(random.choice(_WORDS, int(np.clip(120 * np.exp(0.5 * random.standard_normal()), 20, 500))))
        floor = deep if random.random() < DEEP else edge
        template = (Write("text", int(random.integers(8, 48)), None),)
        found.append((float(time_), Task("writer", f"node-{at}", Prompt(f"Case {at}.", words), "benchmark", template,
                                         floor, LONGEST, seed=at)))  # fmt: skip
    return found


async def _live(
    backends: list[LlamaCppBackend], specs: list[BackendSpec], asked: list[tuple[float, Task]]
) -> tuple[float, list[Arrival]]:
    """s that the tasks took, and what they were, as a trace. The engines are loaded before."""
    recorder = MemoryRecorder()
    services = Services(backends)
    broker = Broker(_as_backends(backends), recorder, EventBus(), call_timeout=LONGEST, services=services,
                    dispatch=Dispatch(specs, services.shut))  # fmt: skip
    account = Account(Budget(), time.monotonic)
    for spec in specs:
        warm = replace(asked[0][1], node=f"warm-{spec.name}", floor=spec.precision, seed=10_000)
        await broker.run(warm, account, run_id="warm")

    async def one(at: float, task: Task) -> tuple[float, Arrival]:
        await asyncio.sleep(at)
        answer = await broker.run(task, account, run_id="live")
        said = recorder.entries[answer.key].response
        done = time.monotonic() - started
        return done, Arrival(at, said["prompt_tokens"], max(said["output_tokens"], 1), task.agent, LONGEST, "one",
                             floor=task.floor)  # fmt: skip

    started = time.monotonic()
    found = await asyncio.gather(*(one(at, task) for at, task in asked))
    return max(done for done, _ in found), [arrival for _, arrival in found]


def _as_backends(backends: list[LlamaCppBackend]) -> list[Backend]:
    return list(backends)
