"""Policies that bind a task to a backend when it arrives; each backend then has a queue of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from finllm.scheduler.placement.fleet import Fleet, Floats, Ints
from finllm.scheduler.placement.policies import Decision
from finllm.scheduler.placement.policies.ordered import Order, by_arrival
from finllm.scheduler.placement.waiting import Tasks

Assign = Callable[[int, Tasks, Fleet, Floats], int]
"""A row's backend; the floats are the seconds of work that each backend has been given and not done, (B,)."""


@dataclass
class RoundRobin:
    """Each task to the next backend that may serve it."""

    _last: int = -1

    def __call__(self, row: int, tasks: Tasks, fleet: Fleet, backlog: Floats) -> int:
        for step in range(1, len(fleet) + 1):
            at = (self._last + step) % len(fleet)
            if tasks.may[row, at]:
                self._last = at
                return at
        return 0


@dataclass(frozen=True)
class Balanced:
    """Hexgen-Flow's dispatch (Peng et al. 2025): α of the task's own time there, 1 − α of the queue before it."""

    alpha: float = 0.5

    def __call__(self, row: int, tasks: Tasks, fleet: Fleet, backlog: Floats) -> int:
        own = own_seconds(row, tasks, fleet)
        score = self.alpha * own + (1 - self.alpha) * backlog / fleet.slots
        return int(np.where(tasks.may[row] & fleet.up, score, np.inf).argmin())


def own_seconds(row: int, tasks: Tasks, fleet: Fleet) -> Floats:
    """s that a task takes on each backend with half its slots in use, (B,)."""
    half = np.maximum(fleet.slots // 2, 1)
    step = fleet.step[fleet.rows, half]
    return fleet.link + tasks.prompt(row) * fleet.per_prompt_token + tasks.output(row) * step


def by_urgency(tasks: Tasks, rows: Ints) -> Floats:
    """Hexgen-Flow's local order: the budget that is left, less the time that the task takes."""
    return tasks.due[rows] - tasks.solo[rows]


@dataclass
class Assigned:
    """`limit`: share of a backend's slots that are used at once, of which one always is."""

    assign: Assign
    order: Order = by_arrival
    limit: float = 1.0
    _backend: dict[int, int] = field(default_factory=dict[int, int])
    _backlog: Floats | None = None

    def arrive(self, row: int, tasks: Tasks, fleet: Fleet) -> None:
        backlog = np.zeros(len(fleet)) if self._backlog is None else self._backlog
        chosen = self.assign(row, tasks, fleet, backlog)
        backlog[chosen] += own_seconds(row, tasks, fleet)[chosen]
        self._backend[row], self._backlog, self._fleet = chosen, backlog, fleet

    def finish(self, row: int, backend: int, now: float, tasks: Tasks, output: float) -> None:
        if self._backlog is not None:
            done = own_seconds(row, tasks, self._fleet)[backend]
            self._backlog[backend] = max(self._backlog[backend] - done, 0.0)
        self._backend.pop(row, None)

    def next(self, now: float, tasks: Tasks, waiting: Ints, fleet: Fleet) -> Decision | None:
        if len(waiting) == 0:
            return None
        most = np.maximum((fleet.slots * self.limit).astype(np.int64), 1)
        free = (most - fleet.running) * fleet.up
        if not (free > 0).any():
            return None
        bound = np.array([self._backend[row] for row in waiting.tolist()])
        gone = ~fleet.up[bound]
        for at in np.flatnonzero(gone):
            self.arrive(int(waiting[at]), tasks, fleet)
        if gone.any():
            bound = np.array([self._backend[row] for row in waiting.tolist()])
        room = (fleet.kv - fleet.held)[bound] >= tasks.most[waiting]
        can = np.flatnonzero((free[bound] > 0) & room)
        if len(can) == 0:
            return None
        first = can[int(self.order(tasks, waiting[can]).argmin())]
        return Decision(int(waiting[first]), int(bound[first]))
