"""A trace made ready for a fleet: cut to its context, with deadlines, at an offered load of its capacity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from finllm.errors import InputError
from finllm.scheduler.placement.fleet import BackendSpec, Fleet
from finllm.scheduler.placement.policies.ordered import Ordered
from finllm.scheduler.placement.waiting import solo_seconds
from finllm.scheduler.simulation.run import simulate
from finllm.scheduler.simulation.trace import (
    Arrival,
    assigned,
    at_rate,
    clipped,
    is_azure,
    read_azure,
    read_trace,
    with_deadlines,
)

AGENTS = 6
TENANTS = 6
"""How many an Azure trace's tasks are given to."""


def capacity(arrivals: Sequence[Arrival], specs: Sequence[BackendSpec]) -> float:
    """Tasks/s that the backends get through when all wait from the start, first come, first served."""
    at_once = [replace(one, time=0.0, deadline=1e9, defer=0.0, background=False) for one in arrivals]
    out = simulate(at_once, specs, lambda fleet: Ordered())
    return len(arrivals) / float(np.nanmax(out.finished))


def at_load(
    arrivals: Sequence[Arrival], specs: Sequence[BackendSpec], load: float, seed: int, per_second: float | None = None
) -> list[Arrival]:
    """The tasks at an offered load of the backends' capacity, deadlines by the rule of `with_deadlines`.

    `per_second`: the capacity, where it is known already. Errors: InputError for a load that is not above 0.
    """
    if not 0 < load < float("inf"):
        raise InputError(f"a load of {load}", fix="a share of capacity, such as 0.9")
    fleet = Fleet(specs, sorted({one.agent for one in arrivals}))

    def solo(one: Arrival) -> float:
        return float(solo_seconds(fleet, one.prompt, one.output).min())

    rate = capacity(arrivals, specs) if per_second is None else per_second
    return with_deadlines(at_rate(arrivals, load * rate), solo, seed)


def read_any(path: Path, specs: Sequence[BackendSpec], tasks: int | None, seed: int) -> tuple[list[Arrival], bool]:
    """A trace of either form and whether it still needs deadlines: one of Azure's does, cut to the backends' context.

    `tasks`: so many of it, from a place that the seed chooses. Errors: InputError as the readers, or for no task.
    """
    azure = is_azure(path)
    arrivals = read_azure(path) if azure else read_trace(path)
    if tasks is not None:
        if tasks < 1:
            raise InputError(f"--tasks {tasks}", fix="at least 1")
        first = int(np.random.default_rng(seed).integers(0, max(len(arrivals) - tasks, 0) + 1))
        arrivals = arrivals[first : first + tasks]
    if azure:
        context = int(min(spec.context for spec in specs))
        arrivals = clipped(arrivals, context, context // 8)
        arrivals = assigned(arrivals, [f"agent-{at + 1}" for at in range(AGENTS)], TENANTS, seed)
    return arrivals, azure
