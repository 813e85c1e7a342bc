"""The simulator: a trace's tasks through a policy onto calibrated backends, event by event."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from finllm.errors import BackendError
from finllm.scheduler.placement.fleet import BackendSpec, Bools, Fleet, Floats, Ints
from finllm.scheduler.placement.policies import Policy
from finllm.scheduler.placement.predict import Lengths
from finllm.scheduler.placement.task import PRECISIONS
from finllm.scheduler.placement.waiting import NO_PREFIX, Tasks, Want, refusals
from finllm.scheduler.simulation.answers import Answers
from finllm.scheduler.simulation.engines import Engines
from finllm.scheduler.simulation.faults import Fault, Found
from finllm.scheduler.simulation.trace import Arrival

PREFIXES = 16
"""Prompts that a backend keeps the keys and values of."""
NO_PROGRESS = 3.0
"""s without a token, while there is work, after which a backend is taken out of service."""
TICK = 1.0
"""s between two looks at the backends' progress, and at tasks that nothing else wakes."""
IDLE_TICK = 20.0
"""The same where nothing runs."""
STUCK = 6 * 3_600.0
"""s without an event, while tasks wait, after which a simulation is given up."""


@dataclass(frozen=True)
class Span:
    """A task's stay on a backend: what a Gantt chart draws."""

    task: int
    backend: int
    slot: int
    start: float
    end: float
    committed: bool


@dataclass
class TaskOutcomes:
    """What became of each task of a trace, (N,) a column. `finished`: NaN where it was refused. `served`: for each
    moment that a tenant was given service, (time, tenant, weighted tokens).
    """

    arrivals: Sequence[Arrival]
    fleet: Fleet
    started: Floats
    finished: Floats
    backend: Ints
    deep_tokens: Floats
    joules: Floats
    grams: Floats
    right: Bools
    escalated: Bools
    spans: list[Span] = field(default_factory=list[Span])
    found: list[Found] = field(default_factory=list[Found])
    served: list[tuple[float, int, float]] = field(default_factory=list[tuple[float, int, float]])
    waits: list[tuple[float, int, bool]] = field(default_factory=list[tuple[float, int, bool]])
    """(time, tenant, whether it has tasks that wait from now on)"""
    doubles: int = 0
    """Answers that came after another had been committed: dropped, and counted."""
    total_joules: float = 0.0
    decisions: int = 0


@dataclass
class Setup:
    """How a simulation differs from the plain one. `escalate_below`: confidence under which an answer is asked for
    again on the next precision. `grams_per_kwh`: the grid's intensity by backend at a time, (B,). `fixed`: see
    `Engines`.
    """

    faults: Sequence[Fault] = ()
    answers: Answers | None = None
    escalate_below: float = float("-inf")
    grams_per_kwh: Callable[[float], Floats] | None = None
    fixed: bool = False
    known_lengths: bool = False
    on_arrival: Callable[[float, Arrival], None] | None = None
    wake: Callable[[float], bool] | None = None


class Simulation:
    """One run of a trace."""

    def __init__(
        self,
        arrivals: Sequence[Arrival],
        specs: Sequence[BackendSpec],
        policy: Callable[[Fleet], Policy],
        setup: Setup | None = None,
    ) -> None:
        self.arrivals = arrivals
        self.setup = setup or Setup()
        agents = sorted({one.agent for one in arrivals})
        self.fleet = Fleet(specs, agents)
        self.policy = policy(self.fleet)
        self.tasks = Tasks(self.fleet, room=max(len(arrivals), 16))
        self.engines = Engines(self.fleet, fixed=self.setup.fixed)
        self.lengths = Lengths()
        count = len(arrivals)
        self.out = TaskOutcomes(
            arrivals, self.fleet, np.full(count, np.nan), np.full(count, np.nan), np.full(count, -1, dtype=np.int64),
            np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(count, dtype=np.bool_),
            np.zeros(count, dtype=np.bool_),
        )  # fmt: skip
        self.now = 0.0
        self._waiting: list[int] = []
        self._task_of: dict[int, int] = {}
        self._place: dict[tuple[int, int], tuple[int, float, float]] = {}
        self._prefix = {name: at for at, name in enumerate(sorted({one.prefix for one in arrivals if one.prefix}))}
        self._recent: list[list[int]] = [[] for _ in specs]
        self._idle_since = np.zeros(len(specs))
        self._timers: list[tuple[float, int, str, int]] = []
        self._waiting_tenants: dict[int, int] = {}
        self._open = count

    def run(self) -> TaskOutcomes:
        """Play the trace to its end.

        Errors: BackendError where a task may run nowhere, with the constraint; or where nothing moves any more.
        """
        at, count = 0, len(self.arrivals)
        for number, fault in enumerate(self.setup.faults):
            heapq.heappush(self._timers, (fault.time, number, "fault", number))
        idle_from = 0.0
        while self._open:
            arrival = self.arrivals[at].time if at < count else np.inf
            engine = self.now + self.engines.until_next()
            tick = self._timers[0][0] if self._timers else np.inf
            then = min(arrival, engine, tick)
            if then == np.inf:
                self._after(TICK, "tick", 0)
                continue
            idle_from = then if then in (arrival, engine) else idle_from
            if self._waiting and then - idle_from > STUCK:
                raise BackendError(f"{len(self._waiting)} tasks wait and nothing moves", fix="try another --policy")
            self.engines.advance(then - self.now)
            self.now = max(then, self.now)
            for backend, slot in self.engines.ended():
                if (backend, slot) in self._place:  # else its copy has ended in this moment, too, and was first
                    self._ended(backend, slot)
            while at < count and self.arrivals[at].time <= self.now:
                self._arrived(at)
                at += 1
            while self._timers and self._timers[0][0] <= self.now:
                self._timer(*heapq.heappop(self._timers)[2:])
            self._sleep()
            self._decide()
        self.out.total_joules = float(self.engines.total_joules.sum())
        return self.out

    def _arrived(self, task: int, rank: int = 0) -> None:
        one = self.arrivals[task]
        if self.setup.on_arrival is not None and rank == 0:
            self.setup.on_arrival(self.now, one)
        known = self.lengths.predict(one.agent)
        planned, most = (one.output, one.output) if self.setup.known_lengths else (known.planned, known.most)
        want = Want(
            one.agent, one.tenant, self.now, one.prompt, planned, max(most, planned), one.time + one.deadline,
            one.value, rank=max(rank, PRECISIONS.index(one.floor) if one.floor else 0),
            background=one.background, until=one.time + one.defer, prefix=self._prefix.get(one.prefix, NO_PREFIX),
            shared=one.shared, critical=one.critical,
        )  # fmt: skip
        row = self.tasks.add(want)
        if not self.tasks.may[row].any():
            why = "; ".join(f"{name}: {said}" for name, said in refusals(want, self.fleet, PRECISIONS).items())
            raise BackendError(
                f"no backend may serve the task of {one.agent!r} at {one.time:.3f} s: {why}",
                fix="add a backend that may to --nodes, or shorten the task",
            )
        self._task_of[row] = task
        self._waiting.append(row)
        self._count_waiting(row, 1)
        self.policy.arrive(row, self.tasks, self.fleet)
        if one.background:
            self._after(TICK, "tick", 0)

    def _decide(self) -> None:
        while self._waiting:
            decision = self.policy.next(self.now, self.tasks, np.array(self._waiting, dtype=np.int64), self.fleet)
            if decision is None:
                break
            self.out.decisions += 1
            self._waiting.remove(decision.row)
            self._count_waiting(decision.row, -1)
            if decision.backend is None:
                self._open -= 1
            else:
                self._start(decision.row, decision.backend)
                if decision.twin is not None:
                    self._start(decision.row, decision.twin)
        if self._waiting and not self._timers:
            self._after(TICK, "tick", 0)

    def _start(self, row: int, backend: int) -> None:
        fleet, tasks = self.fleet, self.tasks
        task = self._task_of[row]
        one = self.arrivals[task]
        cached = 0.0
        if (prefix := int(tasks.prefix[row])) != NO_PREFIX:
            held = fleet.cached.get(prefix)
            cached = 0.0 if held is None else min(held[backend], one.shared)
            self._keep(backend, prefix, one.shared)
        kv = float(tasks.most[row])
        output = tasks.output(row)
        delay = fleet.link[backend] + (fleet.wake[backend] if fleet.asleep[backend] else 0.0)
        fleet.set_asleep(backend, False)
        prompt = 0.0 if self.setup.fixed else one.prompt - cached
        slot = fleet.take(backend, output, kv, prompt, float(tasks.due[row]))
        self.engines.start(backend, row, delay, one.prompt - cached, one.output, slot)
        self._place[backend, slot] = (row, kv, self.now)
        if np.isnan(self.out.started[task]):
            self.out.started[task] = self.now
        self.out.served.append((self.now, int(tasks.tenant[row]), float(one.prompt)))
        if self.setup.faults:
            self._after(TICK, "tick", 0)

    def _ended(self, backend: int, slot: int) -> None:
        row, task = self._left(backend, slot, committed=True)
        for other, place in self._copies(row):  # the other domain's answer is of no use any more
            self._left(other, place, committed=False)
            self.policy.finish(row, other, self.now, self.tasks, 0.0)
        one = self.arrivals[task]
        self.lengths.observe(one.agent, one.output)
        self.policy.finish(row, backend, self.now, self.tasks, one.output)
        self.out.served.append((self.now, int(self.tasks.tenant[row]), 2.0 * one.output))
        if self.fleet.deep[backend]:
            self.out.deep_tokens[task] += one.prompt + one.output
        if not np.isnan(self.out.finished[task]):
            self.out.doubles += 1
            return
        del self._task_of[row]  # rows are not used again: a policy may score a task by its row
        if self._doubted(task, backend):
            self.out.escalated[task] = True
            finer = int(self.fleet.rank[backend]) + 1
            self._arrived(task, rank=finer)
            return
        self.out.finished[task], self.out.backend[task] = self.now, backend
        if self.setup.answers is not None:
            self.out.right[task] = self.setup.answers.right(task, self._quality(task, backend))
        self._open -= 1

    def _copies(self, row: int) -> list[tuple[int, int]]:
        """Where a task runs now: backend and slot of each of its copies."""
        if not self.tasks.critical[row]:
            return []
        return [place for place, (of, _, _) in self._place.items() if of == row]

    def _left(self, backend: int, slot: int, *, committed: bool) -> tuple[int, int]:
        """A task leaves its slot; its row and its number."""
        row, kv, since = self._place.pop((backend, slot))
        joules = self.engines.leave(backend, slot)
        self.fleet.leave(backend, slot, kv)
        task = self._task_of[row]
        self.out.joules[task] += joules
        if self.setup.grams_per_kwh is not None:
            self.out.grams[task] += joules / 3.6e6 * float(self.setup.grams_per_kwh(self.now)[backend])
        self.out.spans.append(Span(task, backend, slot, since, self.now, committed))
        self._idle_since[backend] = self.now
        return row, task

    def _doubted(self, task: int, backend: int) -> bool:
        answers = self.setup.answers
        if answers is None or not (self.fleet.rank > self.fleet.rank[backend]).any():
            return False
        return answers.confidence(task, self._quality(task, backend)) < self.setup.escalate_below

    def _quality(self, task: int, backend: int) -> float:
        return float(self.fleet.quality[self.fleet.agents.index(self.arrivals[task].agent), backend])

    def _keep(self, backend: int, prefix: int, tokens: float) -> None:
        """The least recently used prompt makes room for a new one."""
        recent = self._recent[backend]
        if prefix in recent:
            recent.remove(prefix)
        recent.append(prefix)
        self.fleet.remember(backend, prefix, tokens)
        if len(recent) > PREFIXES:
            self.fleet.remember(backend, recent.pop(0), 0.0)

    def _sleep(self) -> None:
        fleet = self.fleet
        for at, spec in enumerate(fleet.specs):
            if spec.wake and not fleet.asleep[at] and fleet.running[at] == 0:
                fleet.set_asleep(at, self.now - self._idle_since[at] >= spec.asleep_after)
        if self.setup.wake is not None and fleet.asleep.any() and self.setup.wake(self.now):
            for at in np.flatnonzero(fleet.asleep):
                fleet.set_asleep(int(at), False)
                self._idle_since[at] = self.now

    def _after(self, seconds: float, kind: str, what: int) -> None:
        if kind == "tick" and any(timer[2] == "tick" and timer[0] <= self.now + seconds for timer in self._timers):
            return
        heapq.heappush(self._timers, (self.now + seconds, len(self._timers), kind, what))

    def _timer(self, kind: str, what: int) -> None:
        if kind == "tick":
            self._watch()
            if self.engines.row.max(initial=-1) >= 0:
                self._after(TICK, "tick", 0)
            elif self._waiting:
                self._after(IDLE_TICK, "tick", 0)
        elif kind == "fault":
            self.engines.set_broken(self.setup.faults[what].backend, True)
            self._after(self.setup.faults[what].seconds, "mend", what)
            self._after(TICK, "tick", 0)
        elif kind == "mend":
            self._mend(self.setup.faults[what])

    def _mend(self, fault: Fault) -> None:
        backend = fault.backend
        if fault.kind == "kill" or not self.fleet.up[backend]:
            for _, slot in [place for place in self._place if place[0] == backend]:
                self._lost(backend, slot)
        self.engines.set_broken(backend, False)
        self.fleet.set_up(backend, True)

    def _watch(self) -> None:
        """Take out of service what has work and made no progress for so long; its tasks' leases end."""
        for backend in np.flatnonzero(self.engines.broken & self.fleet.up & (self.fleet.running > 0)):
            fault = next(one for one in reversed(self.setup.faults)
                         if one.backend == backend and one.time <= self.now)  # fmt: skip
            working_since = min(since for (at, _), (_, _, since) in self._place.items() if at == backend)
            unmoved = self.now - max(fault.time, working_since)
            if unmoved < NO_PROGRESS:
                continue
            self.fleet.set_up(int(backend), False)
            self.out.found.append(Found(fault, unmoved))
            for _, slot in [place for place in self._place if place[0] == backend]:
                self._lost(int(backend), slot)

    def _lost(self, backend: int, slot: int) -> None:
        """A task whose backend is gone waits again, unless it runs in another domain too."""
        row, task = self._left(backend, slot, committed=False)
        self.policy.finish(row, backend, self.now, self.tasks, 0.0)
        if np.isnan(self.out.finished[task]) and not self._copies(row):
            self._waiting.append(row)
            self._count_waiting(row, 1)
            self.policy.arrive(row, self.tasks, self.fleet)

    def _count_waiting(self, row: int, change: int) -> None:
        tenant = int(self.tasks.tenant[row])
        before = self._waiting_tenants.get(tenant, 0)
        self._waiting_tenants[tenant] = before + change
        if (before == 0) != (before + change == 0):
            self.out.waits.append((self.now, tenant, before + change > 0))


def simulate(
    arrivals: Sequence[Arrival],
    specs: Sequence[BackendSpec],
    policy: Callable[[Fleet], Policy],
    setup: Setup | None = None,
) -> TaskOutcomes:
    """What a policy would do with a trace on these backends. Errors: as `Simulation.run`."""
    return Simulation(arrivals, specs, policy, setup).run()
