"""Plain policies that take the first task of an order and the least loaded backend that it may have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from finllm.scheduler.placement.fairness import ServedTokens, service
from finllm.scheduler.placement.fleet import Bools, Fleet, Floats, Ints
from finllm.scheduler.placement.policies import Decision
from finllm.scheduler.placement.waiting import Tasks

Order = Callable[[Tasks, Ints], Floats]
"""A key for each waiting row; the least goes first."""
Filter = Callable[[int, Tasks, Fleet], Bools]
"""Which backends a row is to have of those that it may, (B,)."""


LOOKED_AT = 32
"""Tasks that are tried, in order, where the first find no free backend that they may have."""


def by_arrival(tasks: Tasks, rows: Ints) -> Floats:
    return tasks.arrived[rows]


def by_deadline(tasks: Tasks, rows: Ints) -> Floats:
    return tasks.due[rows]


def anywhere(row: int, tasks: Tasks, fleet: Fleet) -> Bools:
    return np.ones(len(fleet), dtype=np.bool_)


def on_edge(row: int, tasks: Tasks, fleet: Fleet) -> Bools:
    return ~fleet.deep


def on_deep(row: int, tasks: Tasks, fleet: Fleet) -> Bools:
    return fleet.deep


@dataclass(frozen=True)
class Split:
    """A fixed share of tasks to the deep tier, the others to the edge: those whose `score` is above `1 − share`."""

    share: float
    score: Callable[[int], float]

    def __call__(self, row: int, tasks: Tasks, fleet: Fleet) -> Bools:
        wanted = fleet.deep if self.score(row) > 1 - self.share else ~fleet.deep
        return wanted if (wanted & tasks.may[row]).any() else anywhere(row, tasks, fleet)


def hashed(row: int) -> float:
    """A number in [0, 1) that looks random and is always the same for a row (Knuth's multiplicative hash)."""
    return (row * 2_654_435_761 % 2**32) / 2**32


@dataclass
class Ordered:
    """`limit`: share of a backend's slots that are used at once, of which one always is."""

    order: Order = by_arrival
    where: Filter = anywhere
    limit: float = 1.0

    def arrive(self, row: int, tasks: Tasks, fleet: Fleet) -> None:
        """Nothing to remember."""

    def finish(self, row: int, backend: int, now: float, tasks: Tasks, output: float) -> None:
        """Nothing to remember."""

    def next(self, now: float, tasks: Tasks, waiting: Ints, fleet: Fleet) -> Decision | None:
        most = np.maximum((fleet.slots * self.limit).astype(np.int64), 1)
        free = (most - fleet.running) * fleet.up
        if len(waiting) == 0 or not (free > 0).any():
            return None
        for row in waiting[np.argsort(self.order(tasks, waiting), kind="stable")][:LOOKED_AT]:
            room = fleet.kv - fleet.held >= tasks.most[row]
            can = (free > 0) & tasks.may[row] & room & self.where(int(row), tasks, fleet)
            if can.any():
                return Decision(int(row), int(np.where(can, fleet.running / most, np.inf).argmin()))
        return None


@dataclass
class Turns:
    """VTC alone: the tenant served least goes first, by arrival within it."""

    limit: float = 1.0
    served: ServedTokens = field(default_factory=lambda: ServedTokens(0.0))

    def arrive(self, row: int, tasks: Tasks, fleet: Fleet) -> None:
        self.served.arrive(int(tasks.tenant[row]))

    def finish(self, row: int, backend: int, now: float, tasks: Tasks, output: float) -> None:
        self.served.charge(int(tasks.tenant[row]), service(0.0, output - tasks.output(row)))

    def next(self, now: float, tasks: Tasks, waiting: Ints, fleet: Fleet) -> Decision | None:
        decision = Ordered(self._order, limit=self.limit).next(now, tasks, waiting, fleet)
        if decision is not None:
            row = decision.row
            tenant = int(tasks.tenant[row])
            self.served.charge(tenant, service(tasks.prompt(row), tasks.output(row)))
            if np.count_nonzero(tasks.tenant[waiting] == tenant) <= 1:
                self.served.idle((tenant,))
        return decision

    def _order(self, tasks: Tasks, rows: Ints) -> Floats:
        counters = np.array([self.served.counter(int(tenant)) for tenant in tasks.tenant[rows]])
        return counters * 1e6 + tasks.arrived[rows]
