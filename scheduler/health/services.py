"""The backends at work: who holds which slot, whose circuit is open; calls end when their engine dies."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from finllm.errors import BackendError
from finllm.scheduler.backends import (
    Backend,
    BackendLost,
    Generation,
    MayBeAway,
    Request,
    Steady,
    TokenLimitReached,
)
from finllm.scheduler.backends.offer import SLOTS
from finllm.scheduler.backends.pulse import Pulse, Standstill
from finllm.scheduler.health.breaker import Breaker, BreakerState, Patience
from finllm.scheduler.health.leases import SlotLease, SlotLeases
from finllm.scheduler.money.meter import Meter

LOOK = 0.25
"""Seconds between two looks at whether a backend gets on."""


class CircuitOpen(BackendLost):
    """The backend takes no call now; it was not asked."""


@dataclass(frozen=True)
class ServiceState:
    """A backend at a moment. `batch`: requests that its last step served; `opened`: how often its circuit did."""

    name: str
    running: int
    waiting: int
    slots: int
    batch: int
    breaker: BreakerState
    opened: int
    why: str
    answered: int
    failed: int
    tokens: int


@dataclass
class _Service:
    backend: Backend
    breaker: Breaker
    slots: int
    pulse: Pulse
    leaves: MayBeAway | None
    waiting: list[tuple[tuple[bool, float, int], asyncio.Future[None]]] = field(
        default_factory=list[tuple[tuple[bool, float, int], asyncio.Future[None]]]
    )
    running: int = 0
    proven: bool = False
    steps: int = 0
    batch: int = 0
    answered: int = 0
    failed: int = 0
    tokens: int = 0


class Services:
    """Hands calls to backends, each under a lease that its backend's progress renews. One event loop at a time.

    `slots`: calls side by side, by backend. `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        backends: Iterable[Backend],
        *,
        slots: Mapping[str, int] | None = None,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._patience = patience or Patience()
        self._arrivals = itertools.count()
        self._services: dict[str, _Service] = {}
        life = max(self._patience.first, self._patience.stall)
        self._leases = SlotLeases({}, life=life)
        for backend in backends:
            self.add(backend, (slots or {}).get(backend.offer.name, SLOTS))

    def add(self, backend: Backend, slots: int = SLOTS) -> None:
        """Take in a backend that came while others work. Errors: ValueError for a name that is taken."""
        name = backend.offer.name
        if name in self._services:
            raise ValueError(f"there is a backend {name!r} already")
        pulse = Pulse(self._look(name), self._limit(name), every=LOOK, clock=self._clock)
        self._services[name] = _Service(
            backend, Breaker(self._patience), slots, pulse, backend if isinstance(backend, MayBeAway) else None
        )
        self._leases.add(name, slots)

    def shut(self) -> dict[str, str]:
        """The backends that take no call now, with why."""
        now = self._clock()
        found: dict[str, str] = {}
        for name, one in self._services.items():
            if one.leaves is not None and (why := one.leaves.away):
                found[name] = why
            elif not one.breaker.admits(now):
                found[name] = f"its circuit is {one.breaker.state(now)}: {one.breaker.why}"
        return found

    def recovers(self, name: str) -> bool:
        """Whether a backend that is shut is worth waiting for: its engine is started anew, or a call tries it now."""
        leaves = self._services[name].leaves
        if leaves is not None and leaves.away:
            return leaves.returns
        breaker = self._services[name].breaker
        return breaker.recovers or breaker.state(self._clock()) == "half-open"

    async def opened(self, names: Sequence[str]) -> None:
        """Wait until one of these may be tried again, or none of them is worth waiting for."""
        while all(name in self.shut() for name in names) and any(map(self.recovers, names)):
            waits = [self._services[name].breaker.wait(self._clock()) for name in names]
            await asyncio.sleep(max(min(waits), LOOK / 5))

    def state(self) -> tuple[ServiceState, ...]:
        """Every backend as it stands. From any thread."""
        now = self._clock()
        return tuple(
            ServiceState(
                name, one.running, len(one.waiting), one.slots, one.batch,
                one.breaker.peek(now), one.breaker.opened, one.breaker.why, one.answered, one.failed, one.tokens,
            )
            for name, one in self._services.items()
        )  # fmt: skip

    async def generate(self, name: str, request: Request, holder: str) -> Generation:
        """Hand a call to a backend once it has a slot free; the highest rank first, background work last.

        `request.meter` keeps the lease. Errors: BackendLost where the circuit is open, the engine dies or stands still;
        BackendError beyond `request.within` s, and whatever the backend raises.
        """
        service = self._services[name]
        meter = request.meter or Meter()
        try:
            async with asyncio.timeout(None if request.within == float("inf") else request.within):
                lease = await self._slot(service, name, request, holder)
                service.running += 1
                try:
                    return await self._call(service, name, request)
                finally:
                    service.running -= 1
                    self._give_back(service, lease)
        except TimeoutError:
            why = f"{name!r} gave no answer within {request.within:.0f} s"
            if meter.used.tokens == 0:
                service.breaker.fail(self._clock(), why)
            service.failed += 1
            fix = "raise FINLLM_CALL_TIMEOUT or check the backend with 'finllm doctor'"
            raise BackendError(why, fix=fix) from None

    def progress(self, name: str, tokens: int = 0) -> None:
        """Say that a backend got on, by so many tokens: its circuit and the leases of all its calls live on."""
        service, now = self._services[name], self._clock()
        service.steps += 1
        service.tokens += tokens
        service.proven = True
        service.pulse.beat()
        for lease in self._leases.held(now, name):
            self._leases.renew(lease, now)

    async def _slot(self, service: _Service, name: str, request: Request, holder: str) -> SlotLease:
        while (lease := self._granted(service, name, holder)) is None:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(service.waiting, ((request.background, -request.rank, next(self._arrivals)), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._next(service)  # the turn that came goes on to another
                raise
            finally:
                service.waiting[:] = [one for one in service.waiting if one[1] is not turn]
                heapq.heapify(service.waiting)
        return lease

    def _granted(self, service: _Service, name: str, holder: str) -> SlotLease | None:
        return self._leases.grant(name, holder, self._clock())

    def _give_back(self, service: _Service, lease: SlotLease) -> None:
        self._leases.release(lease)
        self._next(service)

    @staticmethod
    def _next(service: _Service) -> None:
        while service.waiting:
            _, turn = heapq.heappop(service.waiting)
            if not turn.done():
                turn.set_result(None)
                return

    async def _call(self, service: _Service, name: str, request: Request) -> Generation:
        breaker = service.breaker
        if name in self.shut():
            raise CircuitOpen(f"{name!r} takes no call: {self.shut().get(name, 'its circuit is open')}",
                              fix="ask again in a moment; see 'finllm nodes'")  # fmt: skip
        breaker.begin(self._clock())
        work = service.backend.generate(request)
        try:
            done = await (service.pulse.guard(work) if isinstance(service.backend, Steady) else work)
        except Standstill as stop:
            raise self._stalled(service, name, stop) from stop
        except BackendLost as error:
            service.proven = False
            service.failed += 1
            breaker.fail(self._clock(), error.message, lost=True)
            raise
        except TokenLimitReached:
            breaker.leave(self._clock())
            raise
        except BackendError as error:
            service.failed += 1
            breaker.fail(self._clock(), error.message)
            raise
        except BaseException:
            breaker.leave(self._clock())
            raise
        breaker.succeed(self._clock())
        service.answered += 1
        service.batch = done.side_by_side
        service.proven = True
        return done

    def _stalled(self, service: _Service, name: str, stop: Standstill) -> BackendLost:
        why = f"{name!r} made no token for {stop.seconds:.1f} s with calls under way"
        service.failed += 1
        service.proven = False
        if service.breaker.state(self._clock()) != "open":  # the first of its calls to hear of it ends the engine
            service.breaker.stall(self._clock(), why)
            if isinstance(service.backend, Steady):
                service.backend.restart(why)
        return BackendLost(why, fix="ask again: its engine is started anew; see 'finllm doctor'")

    def _look(self, name: str) -> Callable[[], Awaitable[Hashable]]:
        async def look() -> Hashable:
            return self._services[name].steps

        return look

    def _limit(self, name: str) -> Callable[[], float]:
        def limit() -> float:
            return self._patience.stall if self._services[name].proven else self._patience.first

        return limit
