"""Weighted token throughput: tasks by value per second while they can be in time, each at its cheapest backend.

Order, placement, deferral and shedding of the design's section 7. A pure decision over arrays; what it remembers is
who was served, for turns among tenants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from finllm.scheduler.placement.copies import Second, second
from finllm.scheduler.placement.fairness import ServedTokens, bound, service
from finllm.scheduler.placement.fleet import Fleet, Floats, Ints
from finllm.scheduler.placement.placing import Costs, FleetState, costs
from finllm.scheduler.placement.policies import Decision
from finllm.scheduler.placement.prices import Prices
from finllm.scheduler.placement.waiting import NO_PREFIX, Tasks

HOPELESS = 1e-6
"""Weight of a task that no backend could answer in time even alone, against one that can still be."""


@dataclass(frozen=True)
class Terms:
    """What the ordering weighs, and which mechanisms are on (each may be switched off to see what it earns).

    `patience`: slack, in solo times, at which a task's urgency has halved. `looked_at`: most tasks weighed in one
    decision. `spare`: share of a backend's slots in use up to which it takes tasks that will be late anyway. `limit`:
    share of a backend's slots in use at once, one slot at least: where lengths are guessed, fewer side by side are
    surer to be in time. `affinity`: a prompt's beginning that a backend holds makes a task cheaper there.
    """

    patience: float = 16.0
    looked_at: int = 16
    spare: float = 0.0
    limit: float = 1.0
    by_value: bool = True
    by_length: bool = True
    fair: bool = True
    affinity: bool = True
    refuse: bool = False


@dataclass
class Weighted:
    """The project's policy. `prices` may be set between decisions; `parked` says that background work is to wait at a
    moment; `greener` that a task which may wait from the first time until the second should."""

    fleet: Fleet
    prices: Prices = field(default_factory=Prices)
    terms: Terms = field(default_factory=Terms)
    intensity: Callable[[float], Floats] | None = None
    parked: Callable[[float], bool] | None = None
    greener: Callable[[float, float], bool] | None = None
    served: ServedTokens = field(init=False)
    standing: FleetState = field(init=False)

    def __post_init__(self) -> None:
        self.served = ServedTokens(bound(float(self.fleet.context.max(initial=0.0)), float(self.fleet.kv.sum())))
        self.standing = FleetState(self.fleet, self.terms.limit, affinity=self.terms.affinity)
        self._given: dict[int, Floats] = {}

    def grow(self, fleet: Fleet) -> None:
        """The fleet has more backends from now on; who was served, and what each family answered, stays."""
        places = [fleet.families.index(family) for family in self.fleet.families]
        for prefix, given in self._given.items():
            self._given[prefix] = np.zeros(len(fleet.families))
            self._given[prefix][places] = given
        self.fleet = fleet
        self.standing = FleetState(fleet, self.terms.limit, affinity=self.terms.affinity)

    def arrive(self, row: int, tasks: Tasks, fleet: Fleet) -> None:
        self.served.arrive(int(tasks.tenant[row]))

    def finish(self, row: int, backend: int, now: float, tasks: Tasks, output: float) -> None:
        """The charge made at the start was for the predicted output; the difference is settled."""
        self.served.charge(int(tasks.tenant[row]), service(0.0, output - tasks.output(row)))

    def next(self, now: float, tasks: Tasks, waiting: Ints, fleet: Fleet) -> Decision | None:
        if len(waiting) == 0:
            return None
        if self.terms.refuse and (refused := self._refused(now, tasks, waiting)) is not None:
            return refused
        standing = self.standing
        standing.refresh(now, self.prices, None if self.intensity is None else self.intensity(now))
        if not np.count_nonzero(standing.free):
            return None
        rows = self._eligible(now, tasks, waiting)
        if len(rows) > 1:
            rows = rows[self._order(now, tasks, rows)]
        wait = free_at = standing.wait(now)
        cost = costs(rows, tasks, standing, self.prices, now, wait)
        self._spread(rows, tasks, cost)
        late: list[int] = []
        for at, row in enumerate(rows.tolist()):
            here = cost if wait is free_at else costs(rows[at : at + 1], tasks, standing, self.prices, now, wait)
            of = at if here is cost else 0
            if here is not cost:
                self._spread(rows[at : at + 1], tasks, here)
            best = int(here.total[of].argmin())
            if here.total[of, best] == np.inf:
                continue
            if here.lateness[of, best] > 0:
                late.append(at)
            elif standing.free[best] > 0:
                return self._taken(row, best, tasks, waiting, now)
            else:
                wait = wait.copy()
                wait[best] += (here.seconds[of, best] - wait[best]) / standing.most[best]
        return self._left_over(late, rows, cost, tasks, waiting, now)

    def _spread(self, rows: Ints, tasks: Tasks, cost: Costs) -> None:
        """Charge synchronised behaviour: what share of an event's answers a backend's model family has given."""
        if not self.prices.spread:
            return
        for at, row in enumerate(rows.tolist()):
            given = self._given.get(int(tasks.prefix[row]))
            if given is not None:
                cost.total[at] += self.prices.spread * (given / given.sum())[self.fleet.family]

    def _eligible(self, now: float, tasks: Tasks, waiting: Ints) -> Ints:
        rows = waiting
        background = tasks.background[rows]
        if np.count_nonzero(background):
            held = np.zeros(len(rows), dtype=np.bool_)
            can_wait = background & (tasks.until[rows] > now)
            if self.parked is not None and can_wait.any() and self.parked(now):
                held |= can_wait
            if self.greener is not None:
                for at in np.flatnonzero(can_wait & ~held):
                    held[at] = self.greener(now, float(tasks.until[rows[at]]))
            rows = rows[~held]
        if self.terms.fair and len(tasks.tenants) > 1:
            rows = rows[self.served.eligible(tasks.tenant[rows])]
        return rows

    def _order(self, now: float, tasks: Tasks, rows: Ints) -> Ints:
        """Indices of the tasks to weigh, the one with the highest g·φ(slack)/T first."""
        terms = self.terms
        solo = tasks.solo[rows]
        slack = tasks.due[rows] - now - solo
        urgency = np.where(slack >= 0, 1.0 / (1.0 + np.maximum(slack, 0.0) / (terms.patience * solo)), HOPELESS)
        if terms.by_value:
            urgency *= tasks.value[rows]
        if terms.by_length:
            urgency /= solo
        most = terms.looked_at
        if len(rows) > most:
            top = np.argpartition(-urgency, most)[:most]
            return top[np.argsort(-urgency[top], kind="stable")]
        return np.argsort(-urgency, kind="stable")

    def _left_over(
        self, late: list[int], rows: Ints, cost: Costs, tasks: Tasks, waiting: Ints, now: float
    ) -> Decision | None:
        """A task that will be late anyway, where it harms nobody and the backend is idle enough for those to come."""
        if not late:
            return None
        fleet = self.fleet
        idle = (self.standing.free > 0) & (fleet.running <= self.terms.spare * fleet.slots)
        if not idle.any():
            return None
        for at in late:
            total = np.where(idle, cost.total[at], np.inf)
            best = int(total.argmin())
            if total[best] < np.inf:
                return self._taken(int(rows[at]), best, tasks, waiting, now)
        return None

    def _refused(self, now: float, tasks: Tasks, waiting: Ints) -> Decision | None:
        lost = ~tasks.background[waiting] & (tasks.due[waiting] < now + tasks.solo[waiting])
        if not lost.any():
            return None
        row = int(waiting[int(lost.argmax())])
        self.gone(row, tasks, waiting)
        return Decision(row, None, "no backend could answer it in time, even alone")

    def _taken(self, row: int, backend: int, tasks: Tasks, waiting: Ints, now: float) -> Decision:
        copy = second(row, backend, tasks, self.standing, self.prices, now) if tasks.critical[row] else Second(None)
        charge = service(tasks.prompt(row), tasks.output(row))
        self.served.charge(int(tasks.tenant[row]), charge * (1 if copy.backend is None else 2))
        self.gone(row, tasks, waiting)
        prefix = int(tasks.prefix[row])
        if prefix != NO_PREFIX:
            given = self._given.setdefault(prefix, np.zeros(len(self.fleet.families)))
            given[self.fleet.family[backend]] += 1
        return Decision(row, backend, copy.why, copy.backend)

    def gone(self, row: int, tasks: Tasks, waiting: Ints) -> None:
        """A task, still among the `waiting`, waits no longer."""
        tenant = int(tasks.tenant[row])
        if np.count_nonzero(tasks.tenant[waiting] == tenant) <= 1:
            self.served.idle((tenant,))
