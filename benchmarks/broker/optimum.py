"""The best that any policy could have done in a window, all tasks known beforehand: a MILP over a time grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finllm.scheduler.placement.fleet import CHUNK, BackendSpec, Fleet, Profile, by_batch
from finllm.scheduler.simulation.trace import Arrival

STEPS_A_TASK = 10
"""Steps of the grid in the median service time."""


@dataclass(frozen=True)
class Optimum:
    """`bound`: no schedule of the fixed-batch model has more tasks in time. `proved`: the solver closed its gap."""

    bound: float
    found: int
    proved: bool


def fixed_batch(spec: BackendSpec) -> BackendSpec:
    """The backend with the speed of a full batch, whatever runs: what a task takes no longer depends on the others."""
    step = spec.slots / by_batch(spec.profile.decode, spec.slots)[-1]
    most = spec.slots + 1
    rates = {1: 1 / step, most: most / step}
    profile = Profile(spec.profile.prefill, rates, spec.profile.prefill_joules, spec.profile.decode_joules)
    return replace(spec, profile=profile, stalls=0.0)


def optimum(arrivals: Sequence[Arrival], specs: Sequence[BackendSpec], seconds: float = 60.0) -> Optimum:
    """Solve it with HiGHS, within a time limit, s. Times are rounded in the tasks' favour, so that it is a bound.

    max Σ x_ibs, s.t. Σ_bs x_ibs ≤ 1 for each task i, and Σ over those that run on b in step t ≤ slots of b.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    fleet = Fleet(specs, sorted({one.agent for one in arrivals}))
    service = np.array([
        fleet.link + one.prompt * (fleet.per_prompt_token + fleet.step[:, 1] / CHUNK) + one.output * fleet.step[:, 1]
        for one in arrivals
    ])  # (N, B)  # fmt: skip
    grid = float(np.median(service.min(axis=1))) / STEPS_A_TASK
    task: list[int] = []
    use: list[tuple[int, int, int]] = []
    for at, one in enumerate(arrivals):
        for backend in range(len(specs)):
            last = one.time + one.deadline - service[at, backend]
            length = max(int(service[at, backend] // grid), 1)
            if last >= one.time:
                for start in range(int(one.time // grid), int(last // grid) + 1):
                    task.append(at)
                    use.append((backend, start, length))
    if not task:
        return Optimum(0.0, 0, True)
    horizon = max(start + length for _, start, length in use)
    rows: list[int] = []
    columns: list[int] = []
    for column, (backend, start, length) in enumerate(use):
        for step in range(start, start + length):
            rows.append(backend * horizon + step)
            columns.append(column)
    ones = np.ones(len(rows))
    capacity = csr_matrix((ones, (rows, columns)), shape=(len(specs) * horizon, len(use)))
    once = csr_matrix((np.ones(len(task)), (task, range(len(task)))), shape=(len(arrivals), len(task)))
    slots: Any = np.repeat(fleet.slots, horizon)  # scipy's stubs know a single bound alone
    solved = milp(
        -np.ones(len(task)),
        constraints=[LinearConstraint(capacity, -np.inf, slots), LinearConstraint(once, -np.inf, 1)],
        integrality=np.ones(len(task)), bounds=Bounds(0, 1), options={"time_limit": seconds},
    )  # fmt: skip
    bound = -solved.mip_dual_bound if solved.mip_dual_bound is not None else float(len(arrivals))
    found = 0 if solved.x is None else round(float(solved.x.sum()))
    return Optimum(min(float(np.floor(bound + 1e-6)), float(len(arrivals))), found, solved.status == 0)
