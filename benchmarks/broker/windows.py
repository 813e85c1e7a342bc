"""Windows of fifty tasks in the fixed-batch model: the policy, which sees tasks as they come, beside the optimum."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.broker.cells import SEEDS, bare, specs, traces
from benchmarks.broker.optimum import Optimum, fixed_batch, optimum
from finllm.scheduler.placement.policies.ordered import Ordered, by_deadline
from finllm.scheduler.placement.policies.registry import Factory
from finllm.scheduler.placement.policies.weighted import Terms, Weighted
from finllm.scheduler.simulation.achieved import metrics
from finllm.scheduler.simulation.prepared import at_load
from finllm.scheduler.simulation.run import Setup, simulate

TASKS = 50
LOAD = 1.2
SLOTS = 2
"""Of each backend, so that fifty tasks fill them many times over."""
SECONDS = 20.0
"""Of the solver on a window; 60 s closed no window that 20 s did not."""
NODES = ("edge-deep", "four-mixed")


@dataclass(frozen=True)
class Window:
    """Tasks in time, of fifty: ours, earliest deadline first, and the optimum's upper bound."""

    nodes: str
    trace: str
    seed: int
    ours: int
    edf: int
    best: Optimum


def against_optimum(pool: ProcessPoolExecutor) -> list[Window]:
    """A window of each trace and seed on two node sets."""
    jobs = [(nodes, trace, seed) for nodes in NODES for trace in traces() for seed in SEEDS]
    return list(pool.map(_window, jobs))


def _window(job: tuple[str, str, int]) -> Window:
    nodes, trace, seed = job
    backends = [fixed_batch(replace(spec, slots=SLOTS)) for spec in specs(nodes)]
    tasks = bare(nodes, trace, seed, 500)[225 : 225 + TASKS]
    at_once = [replace(one, time=0.0, deadline=1e9, defer=0.0, background=False) for one in tasks]
    done = simulate(at_once, backends, lambda _fleet: Ordered(), Setup(fixed=True)).finished
    window = at_load(tasks, backends, LOAD, seed, TASKS / float(np.max(done)))

    def kept(policy: Factory) -> int:
        return round(metrics(simulate(window, backends, policy, Setup(fixed=True, known_lengths=True))).goodput * TASKS)

    ours = kept(lambda fleet: Weighted(fleet, terms=Terms(refuse=True)))
    return Window(nodes, trace, seed, ours, kept(lambda _f: Ordered(by_deadline)), optimum(window, backends, SECONDS))


def share_of_best(windows: Sequence[Window]) -> float:
    """Our tasks in time over all windows, as a share of the optimum's bound."""
    return sum(one.ours for one in windows) / sum(one.best.bound for one in windows)
