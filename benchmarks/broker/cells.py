"""The cases of the broker's comparison: node set × trace × load; policies are tuned on other hours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.broker.rivals import POLICIES
from benchmarks.broker.trading_day import trading_day
from finllm.scheduler.placement.fleet import BackendSpec
from finllm.scheduler.placement.nodes_file import read_nodes, specs_of
from finllm.scheduler.simulation.achieved import Metrics, metrics
from finllm.scheduler.simulation.prepared import AGENTS, TENANTS, at_load, capacity
from finllm.scheduler.simulation.run import simulate
from finllm.scheduler.simulation.trace import Arrival, assigned, clipped, read_azure

ROOT = Path(__file__).resolve().parents[2]
TRACES_FOLDER = ROOT.parent / "shared" / "traces"
SIZES = {"edge-deep": 120, "four-mixed": 160, "thirty-two-mixed": 280}
"""Tasks of a cell, by node set."""
AZURE = {"conv": "AzureLLMInferenceTrace_conv.csv", "code": "AzureLLMInferenceTrace_code.csv"}
DAY = "trading day"
LOADS = (0.7, 0.9, 1.2)
SEEDS = range(5)
TUNING = 1_000
"""Seeds from here on choose tuning hours."""
TUNED_AT = 0.9


@dataclass(frozen=True)
class Cell:
    nodes: str
    trace: str
    load: float
    seed: int


def traces() -> tuple[str, ...]:
    """The traces that are here: the generated day always, Azure's where their files lie beside the project."""
    return (*(name for name, file in AZURE.items() if (TRACES_FOLDER / file).exists()), DAY)


@lru_cache
def specs(nodes: str) -> tuple[BackendSpec, ...]:
    return tuple(specs_of(read_nodes(ROOT / "scenarios" / "nodes" / f"{nodes}.yaml")))


@lru_cache
def _azure(trace: str) -> tuple[Arrival, ...]:
    return tuple(read_azure(TRACES_FOLDER / AZURE[trace]))


def bare(nodes: str, trace: str, seed: int, count: int | None = None) -> list[Arrival]:
    """A cell's tasks before load and deadlines: tuning hours come from a trace's first half, measured ones from its
    second; days of other seeds are other days."""
    count = SIZES[nodes] if count is None else count
    if trace == DAY:
        return trading_day(count, TENANTS, seed)
    whole = _azure(trace)
    half = len(whole) // 2
    part = whole[:half] if seed >= TUNING else whole[half:]
    first = int(np.random.default_rng([seed, 3]).integers(0, len(part) - count))
    found = clipped(part[first : first + count], 4_096, 512)
    return assigned(found, [f"agent-{at + 1}" for at in range(AGENTS)], TENANTS, seed)


@lru_cache(maxsize=64)
def arrivals(cell: Cell) -> tuple[Arrival, ...]:
    """The tasks of a cell."""
    tasks = bare(cell.nodes, cell.trace, cell.seed)
    return tuple(at_load(tasks, specs(cell.nodes), cell.load, cell.seed, _capacity(cell.nodes, cell.trace, cell.seed)))


@lru_cache(maxsize=64)
def _capacity(nodes: str, trace: str, seed: int) -> float:
    return capacity(bare(nodes, trace, seed), specs(nodes))


def measure(job: tuple[Cell, str, int]) -> Metrics:
    """A policy at one of its settings on a cell."""
    cell, policy, setting = job
    return metrics(simulate(arrivals(cell), specs(cell.nodes), POLICIES[policy][setting]))


def tuned(pool: ProcessPoolExecutor, nodes: Iterable[str]) -> dict[tuple[str, str, str], int]:
    """By node set, trace and policy: the setting with the highest goodput on the tuning hour."""
    places = [(set_, trace) for set_ in nodes for trace in traces()]
    jobs = [
        (Cell(set_, trace, TUNED_AT, TUNING), policy, setting)
        for (set_, trace), policy in product(places, POLICIES)
        for setting in range(len(POLICIES[policy]))
    ]
    best: dict[tuple[str, str, str], tuple[float, int]] = {}
    for (cell, policy, setting), found in zip(jobs, pool.map(measure, jobs, chunksize=8), strict=True):
        key = (cell.nodes, cell.trace, policy)
        if key not in best or found.goodput > best[key][0]:
            best[key] = (found.goodput, setting)
    return {key: setting for key, (_, setting) in best.items()}


def measured(
    pool: ProcessPoolExecutor, settings: dict[tuple[str, str, str], int], nodes: Sequence[str]
) -> Iterator[tuple[Cell, str, Metrics]]:
    """Every policy on every cell, at its tuned setting."""
    cells = [Cell(*one) for one in product(nodes, traces(), LOADS, SEEDS)]
    jobs = [(cell, policy, settings[cell.nodes, cell.trace, policy]) for cell in cells for policy in POLICIES]
    for job, found in zip(jobs, pool.map(measure, jobs, chunksize=8), strict=True):
        yield job[0], job[1], found
