"""Tasks that wait for a backend, and the policy that lets them start: one queue for all runs of a process."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from finllm.scheduler.backends import Offer
from finllm.scheduler.decoding.template import Choose, Write
from finllm.scheduler.money.account import Account
from finllm.scheduler.placement.fleet import BackendSpec, Fleet, Floats, Profile
from finllm.scheduler.placement.placing import Costs, costs, energy
from finllm.scheduler.placement.policies.weighted import Terms, Weighted
from finllm.scheduler.placement.policy import CHARS_PER_TOKEN, least_tokens
from finllm.scheduler.placement.predict import Length, Lengths
from finllm.scheduler.placement.prices import BUDGETED, BudgetUse, Coordinator, Prices
from finllm.scheduler.placement.task import PRECISIONS, Task
from finllm.scheduler.placement.waiting import Tasks, Want

UNKNOWN = ""
"""The agent that a task of an agent without measured quality counts as."""
LOOK = 0.25
"""s between two looks at tasks that nothing else wakes."""
PERIOD = 600.0
"""s over which a budget without seconds is meant to last."""
DEFAULT = Profile(350.0, {1: 60.0, 8: 200.0}, 0.025, {1: 0.15, 8: 0.045}, "table")
"""Speed and energy of a backend that was never calibrated: about those of the default model on two cores."""


LIVE = Prices(deep=1e-2)
"""A deep token is dear enough that how busy the edge is does not change who answers: the same run says the same twice.
The deep tier serves what asks for it, and what the edge would answer too late."""


PATIENT = Terms(spare=1.0)
"""Live, nothing is refused, so that what will be late is not kept waiting for an idle backend either."""


def spec_of(
    offer: Offer, profile: Profile | None = None, quality: Mapping[str, float] | None = None
) -> BackendSpec:  # fmt: skip
    """A live backend as placing sees it. Local ones share this machine's processors; a server is a node of its own."""
    local = offer.where == "local"
    dearest = 0.0 if offer.tariff is None else (offer.tariff.per_million_output or 0.0) / 1e6
    return BackendSpec(
        offer.name, offer.tier, offer.precision, profile or DEFAULT, offer.slots,
        kv_tokens=offer.context * max(offer.slots // 4, 2), context=offer.context,
        node="local" if local else offer.name, family=offer.weights_sha256[:12], link=offer.link or 0.0,
        usd_per_token=dearest, quality=quality or {}, shared=local, power=offer.power, network=offer.network,
    )  # fmt: skip


class FleetGrew(Exception):
    """A backend came while a task waited: it is to be asked for again, with what forbids each backend now."""


@dataclass(frozen=True)
class Seat:
    """The right to run a task on a backend now. `passed_over`: for each other that could have had it, why not.

    `seconds` until the answer and `joules`, as predicted. `twin`: a critical task's seat in another domain, too; where
    it has none, `alone` says why.
    """

    backend: str
    row: int
    slot: int
    started: float
    seconds: float
    joules: float
    passed_over: Mapping[str, str]
    twin: Seat | None = None
    alone: str = ""


@dataclass
class Dispatch:
    """Lets tasks start, one event loop at a time. `shut` names the backends that take nothing now, with why.

    `clock` gives monotonic s; `intensity` the grid's g CO₂e per kWh by backend, (B,), at a time.
    """

    specs: Sequence[BackendSpec]
    shut: Callable[[], Mapping[str, str]] = dict
    clock: Callable[[], float] = time.monotonic
    prices: Prices = LIVE
    intensity: Callable[[float], Floats] | None = None
    look_out: Callable[[], None] = lambda: None
    """Called before each decision: whoever knows of backends that came hands them to `add`."""

    def __post_init__(self) -> None:
        agents = sorted({agent for spec in self.specs for agent in spec.quality})
        self.fleet = Fleet(self.specs, [*agents, UNKNOWN])
        self.tasks = Tasks(self.fleet)
        self.policy = Weighted(self.fleet, self.prices, PATIENT, intensity=self.intensity)
        self.lengths = Lengths()
        self.coordinator = Coordinator(self.prices)
        self._waiting: dict[int, asyncio.Future[Seat | None]] = {}
        self._seated: dict[tuple[int, str], Seat] = {}
        self._prefixes: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def seat(self, task: Task, account: Account, forbidden: Mapping[str, str], short: str = "") -> Seat | None:
        """Wait until the policy lets a task start; None where every backend is `forbidden` to it, or shuts meanwhile.

        The caller bounds the wait, and gives the seat back with `leave`. `short`: why the budget does not hold two
        copies of a critical task. Errors: FleetGrew.
        """
        row = self.tasks.add(self._want(task, critical=task.critical and not short))
        for name in forbidden:
            self.tasks.bar(row, self.fleet.index[name])
        if not self.tasks.may[row].any():
            self.tasks.release(row)
            return None
        self._move_prices(account)
        turn: asyncio.Future[Seat | None] = asyncio.get_running_loop().create_future()
        self._waiting[row] = turn
        self.policy.arrive(row, self.tasks, self.fleet)
        self._decide()
        try:
            seat = await turn
            return seat if seat is None or not (task.critical and short) else replace(seat, alone=self._told(short))
        except asyncio.CancelledError:
            if self._waiting.get(row) is turn:
                self._give_up(row)
            elif not turn.cancelled() and turn.exception() is None and (seat := turn.result()) is not None:
                self.leave(seat, None)
            raise

    def add(self, spec: BackendSpec) -> None:
        """Take in a backend that came while tasks wait and run; those that wait are told by `FleetGrew`."""
        self.specs = (*self.specs, spec)
        self.fleet = self.fleet.grown(spec)
        self.tasks.grow(self.fleet)
        self.policy.grow(self.fleet)
        for row, turn in list(self._waiting.items()):
            self._give_up(row)
            if not turn.done():
                turn.set_exception(FleetGrew())

    def leave(self, seat: Seat, output: int | None) -> None:
        """Give a seat back, and its twin's. `output`: tokens that the answer had; None where no backend answered."""
        row = seat.row
        if output:
            self.lengths.observe(self.fleet.agents[int(self.tasks.agent[row])], output)
        for one in (seat, seat.twin):
            if one is not None:
                self.policy.finish(row, self.fleet.index[one.backend], self.clock(), self.tasks, output or 0)
                output = None
        self._unseat(seat)
        self._decide()

    def _unseat(self, seat: Seat) -> None:
        for one in (seat, seat.twin):
            if one is not None:
                self._seated.pop((one.row, one.backend))
                self.fleet.leave(self.fleet.index[one.backend], one.slot, float(self.tasks.most[one.row]))
        self.tasks.release(seat.row)

    def _told(self, short: str) -> str:
        """Why a task has one copy, where anybody could have asked for two."""
        return short if self.fleet.tells_domains else ""

    def _give_up(self, row: int) -> None:
        self.policy.gone(row, self.tasks, np.fromiter(self._waiting, dtype=np.int64))
        del self._waiting[row]
        self.tasks.release(row)

    def waiting(self) -> int:
        """Tasks that wait."""
        return len(self._waiting)

    def _decide(self) -> None:
        self.look_out()
        now = self.clock()
        self._take_stock(now)
        for row in [row for row in self._waiting if not (self.tasks.may[row] & self.fleet.up).any()]:
            turn = self._waiting[row]
            self._give_up(row)
            if not turn.done():
                turn.set_result(None)
        while self._waiting:
            rows = np.fromiter(self._waiting, dtype=np.int64)
            decision = self.policy.next(now, self.tasks, rows, self.fleet)
            if decision is None or decision.backend is None:
                break
            turn = self._waiting.pop(decision.row)
            seat = self._seat(decision.row, decision.backend, now)
            if decision.twin is not None:
                seat = replace(seat, twin=self._seat(decision.row, decision.twin, now))
            seat = replace(seat, alone=decision.why)
            if turn.done():  # its caller was cancelled in this turn of the loop, and has no seat to give back
                self._unseat(seat)
            else:
                turn.set_result(seat)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(LOOK, self._decide)

    def _seat(self, row: int, backend: int, now: float) -> Seat:
        standing = self.policy.standing
        found = costs(np.array([row]), self.tasks, standing, self.policy.prices, now, standing.wait(now))
        joules, _ = energy(row, backend, self.tasks, standing)
        passed_over = self._reasons(row, backend, found)
        seconds = float(found.seconds[0, backend])
        prompt, most = self.tasks.prompt(row), float(self.tasks.most[row])
        slot = self.fleet.take(backend, self.tasks.output(row), most, prompt, float(self.tasks.due[row]))
        prefix = int(self.tasks.prefix[row])
        self.fleet.remember(backend, prefix, float(self.tasks.shared[row]))
        seat = Seat(self.specs[backend].name, row, slot, now, seconds, joules, passed_over)
        self._seated[row, seat.backend] = seat
        return seat

    def _reasons(self, row: int, chosen: int, found: Costs) -> dict[str, str]:
        """Why each other backend that may serve the task was not chosen."""
        total, seconds = found.total[0], found.seconds[0]
        name = self.specs[chosen].name
        reasons: dict[str, str] = {}
        for at, spec in enumerate(self.specs):
            if at == chosen or not self.tasks.may[row, at]:
                continue
            if not self.fleet.up[at]:
                reasons[spec.name] = "it takes no call now"
            elif not math.isfinite(total[at]):
                reasons[spec.name] = "no room beside what it is doing"
            else:
                finer = " finer than needed," if spec.precision != self.specs[chosen].precision else ""
                reasons[spec.name] = (
                    f"dearer:{finer} {seconds[at]:.1f} s at a cost of {total[at]:.3g}; {name} takes "
                    f"{seconds[chosen]:.1f} s at {total[chosen]:.3g}"
                )
        return reasons

    def _take_stock(self, now: float) -> None:
        """What the running tasks have left, by how long they have run; and which backends are shut."""
        shut = self.shut()
        for at, spec in enumerate(self.specs):
            if self.fleet.up[at] == (spec.name in shut):
                self.fleet.set_up(at, spec.name not in shut)
        if not self._seated:
            return
        self.fleet.pending[:] = 0.0
        for (row, _), seat in self._seated.items():
            at = self.fleet.index[seat.backend]
            done = min((now - seat.started) / max(seat.seconds, 1e-6), 1.0)
            self.fleet.left[at, seat.slot] = max(self.tasks.output(row) * (1 - done), 1.0)
            self.fleet.pending[at] += self.tasks.prompt(row) * max(1 - 2 * done, 0.0)
        self.fleet.touched = None

    def _want(self, task: Task, *, critical: bool) -> Want:
        now = self.clock()
        agent = task.agent if task.agent in self.fleet.agents else UNKNOWN
        known = self.lengths.predict(agent, _by_template(task))
        shared = len(task.prompt.system) / CHARS_PER_TOKEN
        prefix = self._prefixes.setdefault(task.prompt.system, len(self._prefixes))
        return Want(
            agent, task.tenant, now, least_tokens(task), known.planned, known.most, now + task.deadline,
            max(task.value, 1e-6), rank=PRECISIONS.index(task.floor), background=task.background,
            prefix=prefix, shared=shared, critical=critical,
        )  # fmt: skip

    def _move_prices(self, account: Account) -> None:
        """One step of the coordinator on the budget of the run that asks."""
        spent, budget = account.spent(), account.budget
        uses = {
            name: BudgetUse(used, limit, spent.seconds, budget.seconds or PERIOD)
            for name, used in (("deep_tokens", float(spent.deep_tokens)), ("joules", spent.of("joules")),
                               ("grams", spent.of("grams")), ("usd", spent.of("usd")))
            if name in BUDGETED and (limit := getattr(budget, name)) is not None and limit > 0
        }  # fmt: skip
        self.policy.prices = self.coordinator.step(self.clock(), uses)


def _by_template(task: Task) -> Length:
    """What a template may put out: a token a choice, and half of its prose."""
    choices = sum(isinstance(step, Choose) for step in task.template)
    prose = sum(step.tokens for step in task.template if isinstance(step, Write))
    return Length(choices + prose / 2, choices + prose + 1.0)
