"""What each mechanism of the broker earns: the policy without it, on the same cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from benchmarks.broker.cells import DAY, SEEDS, Cell, arrivals, bare, specs, traces
from benchmarks.broker.trading_day import OPENS, bursts
from finllm.scheduler.placement.arrivals import Arrivals, Calendar
from finllm.scheduler.placement.fleet import BackendSpec, Fleet
from finllm.scheduler.placement.policies.weighted import Terms, Weighted
from finllm.scheduler.placement.prices import Prices
from finllm.scheduler.simulation.achieved import Metrics, metrics
from finllm.scheduler.simulation.faults import Fault
from finllm.scheduler.simulation.prepared import at_load
from finllm.scheduler.simulation.run import Setup, simulate
from finllm.scheduler.simulation.trace import Arrival

BASE = Terms(refuse=True)


def _with(prices: Prices | None = None, **changed: object) -> Callable[[Fleet], Weighted]:
    return lambda fleet: Weighted(fleet, prices or Prices(), replace(BASE, **changed))  # pyright: ignore[reportArgumentType]


VARIANTS: Mapping[str, Callable[[Fleet], Weighted]] = {
    "all on": _with(),
    "value": _with(by_value=False),
    "length": _with(by_length=False),
    "urgency": _with(patience=1e9),
    "turns among tenants": _with(fair=False),
    "early refusal": _with(refuse=False),
    "late tasks wait for idle backends": _with(spare=1.0),
    "price of a joule": _with(Prices(joule=0.0)),
    "price of a deep token": _with(Prices(deep=0.0)),
    "price of a slot's time": _with(Prices(busy=0.0)),
    "protection of running tasks": _with(),
    "cached prefixes": _with(affinity=False),
}
"""By the mechanism that is off."""
ABLATED = ("edge-deep", "four-mixed")
LOAD = 0.9


@dataclass(frozen=True)
class Earned:
    """Means over cells and seeds without a mechanism."""

    off: str
    goodput: float
    worth: float
    late_p99: float
    joules: float
    deep_share: float
    gap: float


def ablation(pool: ProcessPoolExecutor) -> list[Earned]:
    """Every variant on every trace at load 0.9."""
    jobs = [
        (Cell(nodes, trace, LOAD, seed), off)
        for off in VARIANTS for nodes in ABLATED for trace in traces() for seed in SEEDS
    ]  # fmt: skip
    found: dict[str, list[Metrics]] = {}
    for (_, off), one in zip(jobs, pool.map(_variant, jobs, chunksize=4), strict=True):
        found.setdefault(off, []).append(one)
    return [
        Earned(off, *(float(np.mean([getattr(one, name) for one in each]))
                      for name in ("goodput", "worth", "late_p99", "joules", "deep_share", "gap")))
        for off, each in found.items()
    ]  # fmt: skip


def _variant(job: tuple[Cell, str]) -> Metrics:
    cell, off = job
    tasks: Sequence[Arrival] = arrivals(cell)
    backends: Sequence[BackendSpec] = specs(cell.nodes)
    if off == "protection of running tasks":
        backends = [replace(spec, stalls=-1e9) for spec in backends]
    return metrics(simulate(tasks, backends, VARIANTS[off]))


@dataclass(frozen=True)
class Foresight:
    """A day at a load, whose deep backend sleeps when idle: share of live tasks in time, and p99 latency, s."""

    load: float
    name: str
    live: float
    latency_p99: float
    joules: float


SLEEPY_LOADS = (0.2, 0.5, 0.8)
FORESIGHT = ("none", "calendar", "calendar and forecast")


@lru_cache
def _sleepy() -> tuple[BackendSpec, ...]:
    return tuple(replace(spec, wake=20.0, asleep_after=60.0) if spec.tier == "deep" else spec
                 for spec in specs("edge-deep"))  # fmt: skip


def foresight(pool: ProcessPoolExecutor) -> list[Foresight]:
    """The trading day without foresight, with the two opens announced, and with arrivals forecast as well."""
    jobs = [(load, name, seed) for load in SLEEPY_LOADS for name in FORESIGHT for seed in SEEDS]
    found: dict[tuple[float, str], list[Metrics]] = {}
    for (load, name, _), one in zip(jobs, pool.map(_foreseen, jobs), strict=True):
        found.setdefault((load, name), []).append(one)
    return [
        Foresight(load, name, *(float(np.mean([getattr(one, field) for one in each]))
                                for field in ("live", "latency_p99", "joules")))
        for (load, name), each in found.items()
    ]  # fmt: skip


def _foreseen(job: tuple[float, str, int]) -> Metrics:
    load, name, seed = job
    unscaled = bare("edge-deep", DAY, seed)
    day = at_load(unscaled, _sleepy(), load, seed)
    scale = day[-1].time / (unscaled[-1].time - unscaled[0].time)
    opens = tuple((time - unscaled[0].time) * scale for time in OPENS)
    length = bursts(seed)[0].length * scale
    calendar = Calendar(opens, before=60.0, after=length)
    ahead = Arrivals(calendar, forecasts=name == FORESIGHT[2], surge=3.0 if name == FORESIGHT[2] else float("inf"),
                     bin=max(day[-1].time / 400, 1.0))  # fmt: skip
    if name == "none":
        return metrics(simulate(day, _sleepy(), _with()))
    setup = Setup(on_arrival=lambda now, one: None if one.background else ahead.arrived(now), wake=ahead.coming)
    return metrics(
        simulate(day, _sleepy(), lambda fleet: Weighted(fleet, terms=BASE, parked=ahead.bursting), setup)
    )  # fmt: skip


@dataclass(frozen=True)
class Diversity:
    """With a price on synchronised answers: the commonest model family's share of an event's answers, and tasks in
    time.
    """

    price: float
    synchronised: float
    goodput: float


def diversity(pool: ProcessPoolExecutor) -> list[Diversity]:
    """The trading day on four backends of two families."""
    jobs = [(price, seed) for price in (0.0, 0.01, 0.1) for seed in SEEDS]
    found: dict[float, list[Metrics]] = {}
    for (price, _), one in zip(jobs, pool.map(_diverse, jobs), strict=True):
        found.setdefault(price, []).append(one)
    return [
        Diversity(
            price, *(float(np.mean([getattr(one, name) for one in each])) for name in ("synchronised", "goodput"))
        )
        for price, each in found.items()
    ]


def _diverse(job: tuple[float, int]) -> Metrics:
    price, seed = job
    day = arrivals(Cell("four-mixed", DAY, LOAD, seed))
    return metrics(simulate(day, specs("four-mixed"), _with(Prices(spread=price))))


@dataclass(frozen=True)
class Faults:
    """Simulated faults: how many tasks were lost or answered twice, how many were found, and the s it took at most."""

    injected: int
    lost: int
    doubles: int
    found: int
    slowest: float


def faults(count: int = 180, per_run: int = 3) -> Faults:
    """Backends killed and frozen at random moments under load; a fault on an idle backend need not be found."""
    lost = doubles = found = 0
    slowest = 0.0
    for seed in range(count // per_run):
        random = np.random.default_rng([seed, 9])
        tasks = [replace(one, deadline=1e6) for one in arrivals(Cell("four-mixed", DAY, 0.9, 0))[:80]]
        end = tasks[-1].time
        planned = sorted(
            (Fault(float(random.uniform(0, end)), int(random.integers(4)), ("kill", "freeze")[int(random.integers(2))],
                   float(random.uniform(8, 60))) for _ in range(per_run)),
            key=lambda one: one.time,
        )  # fmt: skip
        out = simulate(tasks, specs("four-mixed"), Weighted, Setup(faults=planned))
        lost += int((~np.isfinite(out.finished)).sum())
        committed = [span.task for span in out.spans if span.committed]
        doubles += out.doubles + len(committed) - len(set(committed))
        found += len(out.found)
        slowest = max([slowest, *(one.after for one in out.found)])
    return Faults(count, lost, doubles, found, slowest)
