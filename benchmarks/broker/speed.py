"""How long one decision takes, beside LiteLLM's router, with the same backends in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.broker.cells import specs
from benchmarks.broker.litellm import GROUP, MESSAGES, router
from finllm.scheduler.placement.fleet import Fleet
from finllm.scheduler.placement.policies.weighted import Weighted
from finllm.scheduler.placement.waiting import Tasks, Want

BARS = {4: 60e-6, 100: 120e-6, 1_000: 400e-6}
"""s that a decision may take, by backends."""
TURNS, LASTING = 20, 0.2
"""How often everything that is timed has its turn, and for how many s: all of it sees a busy machine's slow moments."""


@dataclass(frozen=True)
class Speed:
    """Median s of a decision: with one task waiting, with sixteen, and of LiteLLM's least-busy router."""

    backends: int
    one: float
    sixteen: float
    litellm: float


def speeds() -> list[Speed]:
    """Each fleet has half its slots in use; between two decisions the task decided on starts, is read and ends."""
    timed = [call for count in BARS for call in (_ours(count, 1), _ours(count, 16), _litellm(count))]
    taken: list[list[float]] = [[] for _ in timed]
    for _ in range(TURNS):
        for call, so_far in zip(timed, taken, strict=True):
            so_far.extend(_timed(call))
    medians = [statistics.median(of) for of in taken]
    return [Speed(count, *medians[3 * at : 3 * at + 3]) for at, count in enumerate(BARS)]


def _ours(count: int, queue: int) -> Callable[[], object]:
    base = specs("four-mixed")
    fleet = Fleet([replace(base[at % 4], name=f"backend-{at}", node=f"node-{at}") for at in range(count)], ["a"])
    for backend in range(count):
        for _ in range(fleet.slots[backend] // 2):
            fleet.take(backend, 60, 500, 0, 500.0)
    policy = Weighted(fleet)
    tasks = Tasks(fleet)
    rows = np.array([tasks.add(Want("a", "t", 0.0, 500 + at, 60, 120, 900.0 + at)) for at in range(queue)])
    for row in rows:
        policy.arrive(int(row), tasks, fleet)

    def decide() -> None:
        found = policy.next(1.0, tasks, rows, fleet)
        assert found is not None
        assert found.backend is not None
        slot = fleet.take(found.backend, 60, 560, 500, 500.0)
        fleet.pending[found.backend] -= 500
        fleet.leave(found.backend, slot, 560)

    return decide


def _litellm(count: int) -> Callable[[], object]:
    chooser = router([f"backend-{at}" for at in range(count)], "least-busy")
    return lambda: chooser.get_available_deployment(model=GROUP, messages=MESSAGES)


def _timed(call: Callable[[], object]) -> list[float]:
    """s of one call after the other."""
    taken: list[float] = []
    end = time.perf_counter() + LASTING
    while time.perf_counter() < end:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return taken
