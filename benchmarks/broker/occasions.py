"""What each mechanism of the broker earns in traces made to call for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from benchmarks.broker.cells import DAY, SEEDS, Cell, arrivals, bare, specs, traces
from benchmarks.broker.energy import FRUGAL
from benchmarks.broker.terms import ABLATED, BASE
from finllm.scheduler.placement.fleet import BackendSpec
from finllm.scheduler.placement.policies.weighted import Weighted
from finllm.scheduler.placement.prices import Prices
from finllm.scheduler.simulation.achieved import Metrics, metrics
from finllm.scheduler.simulation.run import simulate
from finllm.scheduler.simulation.trace import Arrival

CROWDED, UNHURRIED = 1.2, 0.7
"""Offered loads."""
SPREAD, LEAST, MOST = 1.15, 0.1, 10.0
"""Values: standard deviation of the logarithm, so that nineteen in twenty lie between what `value.py` allows."""
DEARER = 5.0
"""How many times as much one tenant's tasks are worth as the other's."""
READERS, SHARED, EVENTS = 12, 0.8, 24
"""Tasks that read one event's text, its part of their prompts, and events that are read at once."""
MANY = "thirty-two-mixed"
WAITING, SMALL_KV = 200, 8_192


@dataclass(frozen=True)
class Occasion:
    """A `measure`, mean over node sets, traces and seeds, with the mechanism and without it."""

    mechanism: str
    occasion: str
    measure: str
    on: float
    off: float


@dataclass(frozen=True)
class Place:
    nodes: str
    trace: str
    seed: int

    def at(self, load: float) -> Sequence[Arrival]:
        return arrivals(Cell(self.nodes, self.trace, load, self.seed))


def occasions(pool: ProcessPoolExecutor) -> list[Occasion]:
    """Value, turns among tenants, the price of a joule, cached prefixes."""
    everywhere = [Place(nodes, trace, seed) for nodes in ABLATED for trace in traces() for seed in SEEDS]
    days = [place for place in everywhere if place.trace == DAY]
    many = [Place(MANY, DAY, seed) for seed in SEEDS]
    readers = f"{READERS} tasks read each of {EVENTS} events at once, 32 backends, load {CROWDED}"

    def earned(
        mechanism: str, occasion: str, measure: str, run: Callable[..., float], places: Sequence[Place]
    ) -> Occasion:
        on, off = (float(np.mean([*pool.map(partial(run, on=on), places)])) for on in (True, False))
        return Occasion(mechanism, occasion, measure, on, off)

    return [
        earned("value", f"values up to a hundredfold apart, load {CROWDED}", "in time, by value", valued, everywhere),
        earned("turns among tenants", f"two tenants' tasks all wait, one's are worth {DEARER:.0f} times the other's",
               "service gap / VTC's bound", crowded, days),
        earned("price of a joule", f"a budget of joules used too fast, load {UNHURRIED}", "joules", frugal, days),
        earned("cached prefixes", readers, "in time", partial(shared, measure="goodput"), many),
        earned("cached prefixes", readers, "joules", partial(shared, measure="joules"), many),
    ]  # fmt: skip


def valued(place: Place, on: bool) -> float:
    """Share of the value that was in time."""
    tasks = place.at(CROWDED)
    drawn = np.exp(SPREAD * np.random.default_rng([place.seed, 5]).standard_normal(len(tasks)))
    values = np.clip(drawn, LEAST, MOST)
    tasks = [replace(one, value=float(value)) for one, value in zip(tasks, values, strict=True)]
    return _run(tasks, place, by_value=on).worth


def crowded(place: Place, on: bool) -> float:
    """The service gap's share of its bound; little KV, so that the bound is reached by few tasks."""
    day = [one for one in bare(place.nodes, place.trace, place.seed, 2 * WAITING) if not one.background][:WAITING]
    tasks = [
        replace(one, time=0.0, deadline=1e6, tenant=f"tenant-{at % 2}", value=DEARER if at % 2 else 1.0)
        for at, one in enumerate(day)
    ]
    backends = [replace(spec, kv_tokens=SMALL_KV) for spec in specs(place.nodes)]
    found = _run(tasks, place, backends, fair=on)
    return found.gap / found.gap_bound


def frugal(place: Place, on: bool) -> float:
    """Joules of a day."""
    return _run(place.at(UNHURRIED), place, prices=FRUGAL if on else replace(FRUGAL, joule=0.0)).joules


def shared(place: Place, on: bool, measure: str) -> float:
    """A measure of a day whose texts every engine keeps; only the policy knows of that, or not."""
    drawn = np.random.default_rng([place.seed, 7])
    tasks = [
        replace(one, prefix=f"event-{at // (READERS * EVENTS)}-{drawn.integers(EVENTS)}",
                shared=int(SHARED * one.prompt))
        for at, one in enumerate(place.at(CROWDED))
    ]  # fmt: skip
    return float(getattr(_run(tasks, place, affinity=on), measure))


def _run(
    tasks: Sequence[Arrival], place: Place, backends: Sequence[BackendSpec] | None = None,
    prices: Prices | None = None, **terms: object,
) -> Metrics:  # fmt: skip
    changed = replace(BASE, **terms)  # pyright: ignore[reportArgumentType]
    return metrics(
        simulate(tasks, backends or specs(place.nodes), lambda fleet: Weighted(fleet, prices or Prices(), changed))
    )
