"""The only way to a model: places a task, answers it from the ledger or a backend, and records before it returns."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from finllm.errors import BackendError, BudgetExceeded
from finllm.events import CallFinished, EventBus, Placed
from finllm.scheduler.asking import Asking, Unanswered, content_of, not_done
from finllm.scheduler.backends import Backend, BackendLost, Offer
from finllm.scheduler.decoding.filling import Choices
from finllm.scheduler.executors import Joining
from finllm.scheduler.health.services import CircuitOpen, Services
from finllm.scheduler.money.account import NOTHING, Account
from finllm.scheduler.money.costing import Costing
from finllm.scheduler.placement.dispatch import Dispatch, FleetGrew, Seat, spec_of
from finllm.scheduler.placement.policy import Placement, forbidden, least_tokens
from finllm.scheduler.placement.task import Task, asked_digest, key_of, task_digest
from finllm.scheduler.record import FAILURE, PLACEMENT, Entry, Recorder

LOST_MOST = 4
"""Times that a task is tried on backends that die under it, before it is given up."""
AFTER_LOSS = 0.1
"""s that a task leaves to others for each time that its backend died under it, once that takes calls again: in all less
than a circuit is open at least."""


@dataclass(frozen=True)
class Answer:
    """A recorded answer. `key` is its ledger key; `reused` says that no model was asked."""

    key: str
    text: str
    choices: Choices
    offer: Offer
    reused: bool


class Broker:
    """Assigns tasks to backends within a run's account.

    Callers differ in their account; the ledger, the backends and the locks on keys in flight are shared. `costing`
    says what calls cost; `services` keeps the backends' leases and circuits; `dispatch` has the queue and the policy;
    `joining` knows of backends that come while calls are under way.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        recorder: Recorder,
        bus: EventBus,
        *,
        call_timeout: float,
        costing: Costing | None = None,
        services: Services | None = None,
        dispatch: Dispatch | None = None,
        joining: Joining | None = None,
    ) -> None:
        self._backends = {backend.offer.name: backend for backend in backends}
        self.costing = costing or Costing()
        self.services = services or Services(backends)
        self.dispatch = dispatch or Dispatch([spec_of(backend.offer) for backend in backends], self.services.shut)
        self._joining = joining
        self._came: list[Offer] = []
        self.dispatch.look_out = self._take_in
        self._recorder = recorder
        self._bus = bus
        self._call_timeout = call_timeout
        self._asking = Asking(recorder, bus, self.services, self.costing, call_timeout)
        self._in_flight: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._begun: WeakKeyDictionary[Account, Counter[tuple[str, str]]] = WeakKeyDictionary()

    @property
    def backends(self) -> tuple[Backend, ...]:
        return tuple(self._backends.values())

    @property
    def offers(self) -> tuple[Offer, ...]:
        return tuple(backend.offer for backend in self._backends.values())

    async def run(self, task: Task, account: Account, *, run_id: str) -> Answer:
        """Answer a task.

        A recorded answer is given as it was. Otherwise the chosen backend is asked, and, if it fails, the next one
        that meets the floor; one that died under the call is asked again once it runs. Errors: BudgetExceeded when the
        run's budget is spent, BackendError when no backend may or can answer, RecordError when the answer cannot be
        written down. That nobody answered is on record too, and so is what calls without an answer cost.
        """
        about = self._begin(task, account, run_id)
        account = account if task.budget is None else account.within(task.budget)
        try:
            return await self.answered(task, account, about)
        except (BackendError, BudgetExceeded) as error:
            said = {"message": error.message, "fix": error.fix}
            if isinstance(error, BudgetExceeded):
                said["short"] = error.short
            entry = Entry(key_of("failure", about | said), FAILURE, "broker", about, said)
            self._recorder.record(entry, run_id=run_id, node=task.node)
            raise

    def _take_in(self) -> None:
        """Backends that came since the last look take calls from now on; one whose name is taken is left out."""
        joining = self._joining
        if joining is None:
            return
        for backend in joining.joined():
            if backend.offer.name not in self._backends:
                self.services.add(backend)
                self.dispatch.add(joining.spec(backend))
                self._backends[backend.offer.name] = backend
                self._came.append(backend.offer)

    def _begin(self, task: Task, account: Account, run_id: str) -> dict[str, Any]:
        """Which of a run's tasks this is: `number` tells the same question, asked again at its node, apart."""
        digest = task_digest(task)
        begun = self._begun.setdefault(account, Counter())
        begun[task.node, digest] += 1
        return {"run": run_id, "node": task.node, "task": digest, "number": begun[task.node, digest]}

    async def answered(self, task: Task, account: Account, about: Mapping[str, Any]) -> Answer:
        """Answer a task that `run` has numbered: `about` says which of its run's tasks it is.

        A broker of another kind, such as a replay's, answers otherwise here; `run` puts on record what this raises.
        """
        run_id = about["run"]
        failed = self._failed_before(task, run_id)
        lost: dict[str, str] = {}
        ends, losses = time.monotonic() + min(self._call_timeout, task.deadline), 0
        while True:
            self._take_in()
            within = min(ends - time.monotonic(), account.seconds_left())
            placement, seat = await self._placement(task, account, run_id, failed | lost, within)
            if placement.chosen is None:
                able = [name for name in self._able(task, account, failed) if self.services.recovers(name)]
                if not able or losses > LOST_MOST or time.monotonic() >= ends:
                    raise _unplaced(task, account, placement)
                await self._opened(able, losses, min(ends - time.monotonic(), account.seconds_left()))
                lost.clear()
                continue
            output: int | None = None
            try:
                answer, output = await self._call(task, placement, seat, account, run_id)
                return answer
            except Unanswered as none:
                for name, error in none.by.items():
                    (lost if isinstance(error, BackendLost) else failed)[name] = error.message
                    losses += isinstance(error, BackendLost) and not isinstance(error, CircuitOpen)
            finally:
                if seat is not None:
                    self.dispatch.leave(seat, output)

    def _able(self, task: Task, account: Account, failed: Mapping[str, str]) -> list[str]:
        """The backends that could serve a task if none were lost or shut."""
        barred = forbidden(task, self.offers, account, failed)
        return [name for name in self._backends if name not in barred]

    async def _opened(self, names: Sequence[str], losses: int, seconds: float) -> None:
        """Wait until one of these takes calls; a task that lost more lets those that lost less try it first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self.services.opened(names)
                await asyncio.sleep(losses * AFTER_LOSS)

    def _failed_before(self, task: Task, run_id: str) -> dict[str, str]:
        """Backends that failed before another one's recorded answer to this task in this run: not to be asked again."""
        failed: dict[str, str] = {}
        while (entry := self._recorder.lookup(self._placement_key(task, run_id, failed))) is not None:
            chosen = entry.response["chosen"]
            if self._recorder.lookup(key_of("call", content_of(task, self._backends[chosen].offer))) is not None:
                return failed
            failed[chosen] = "it failed before in this run"
        return {}

    def _placement_key(self, task: Task, run_id: str, failed: Mapping[str, str]) -> str:
        return self._placed_among(self.offers, task, run_id, failed)

    def _placed_among(self, offers: Sequence[Offer], task: Task, run_id: str, failed: Mapping[str, str]) -> str:
        """The key of a task's placement among these backends."""
        question = {
            "run": run_id,
            "node": task.node,
            "floor": task.floor,
            "task": task.content(),
            "failed": sorted(failed),
            "offers": [offer.identity() for offer in offers],
            **({"exactly": task.exactly} if task.exactly else {}),
        }
        return key_of("placement", question)

    async def _placement(
        self, task: Task, account: Account, run_id: str, failed: Mapping[str, str], within: float
    ) -> tuple[Placement, Seat | None]:
        """The recorded placement of this task in this run, or a new one, recorded; and the seat that it has now.

        A placement whose answer is recorded, too, needs no seat. Errors: BackendError where none comes free in time.
        """
        key = self._placement_key(task, run_id, failed)
        entry = self._recorder.lookup(key)
        if entry is not None:
            self._recorder.used(key, run_id=run_id, node=task.node)
            chosen = entry.response["chosen"]
            answered = self._recorder.lookup(key_of("call", content_of(task, self._backends[chosen].offer))) is not None
            if answered or chosen in self.services.shut():  # a shut one is asked, says so, and another is placed
                return Placement(**entry.response), None
            chosen_before = (chosen, entry.response.get("twin"))
            others = {name: "another was chosen before" for name in self._backends if name not in chosen_before}
            return Placement(**entry.response), await self._seat(task, account, lambda: others, within)

        barred: dict[str, str] = {}

        def barred_now() -> dict[str, str]:
            barred.clear()
            barred.update(forbidden(task, self.offers, account, {**self.services.shut(), **failed}))
            return barred

        seat = await self._seat(task, account, barred_now, within)
        if seat is None:
            return Placement(None, barred_now()), None
        twin = seat.twin and seat.twin.backend
        passed_over = {name: why for name, why in seat.passed_over.items() if name != twin}
        placement = Placement(seat.backend, {**passed_over, **barred}, twin=twin, alone=seat.alone or None,
                              predicted={"seconds": seat.seconds, "joules": seat.joules})  # fmt: skip
        try:
            return self._recorded(key, placement, task, account, run_id, failed), seat
        except BaseException:
            self.dispatch.leave(seat, None)
            raise

    async def _seat(
        self, task: Task, account: Account, barred: Callable[[], Mapping[str, str]], within: float
    ) -> Seat | None:
        try:
            async with asyncio.timeout(None if within == float("inf") else max(within, 0.0)):
                while True:
                    with contextlib.suppress(FleetGrew):
                        found = barred()
                        able = [offer for offer in self.offers if offer.name not in found]
                        short = self._asking.short_of(task, able, account)
                        return await self.dispatch.seat(task, account, found, short)
        except TimeoutError:
            account.check(not_done(task))
            raise BackendError(f"no backend came free for {not_done(task)} within {within:.0f} s",
                               fix="raise FINLLM_CALL_TIMEOUT, or run fewer --jobs") from None  # fmt: skip

    def _recorded(
        self, key: str, placement: Placement, task: Task, account: Account, run_id: str, failed: Mapping[str, str]
    ) -> Placement:
        """The placement as it is on record from now on, which is another process's where that was first."""
        request: dict[str, Any] = {
            "agent": task.agent,
            "task": task_digest(task),
            "asked": asked_digest(task.content()),
            "floor": task.floor,
            "deadline": task.deadline,
            "value": task.value,
            "why": task.why,
            "tenant": task.tenant,
            "failed": dict(failed),
            "spent": asdict(account.spent()),
            **({"came": [asdict(offer) for offer in self._came]} if self._came else {}),
        }
        entry = self._kept(Entry(key, PLACEMENT, "broker", request, asdict(placement)), task, run_id)
        kept = Placement(**entry.response)
        self._bus.emit(
            Placed(
                agent=task.agent,
                node=task.node,
                chosen=entry.response["chosen"],
                refused=dict(kept.refused),
                twin=kept.twin,
                alone=kept.alone,
            )
        )
        return kept

    async def _call(
        self, task: Task, placement: Placement, seat: Seat | None, account: Account, run_id: str
    ) -> tuple[Answer, int | None]:
        """The answer, and how many tokens of output it took; None where the ledger had it. Errors: Unanswered."""
        backend = self._backends[placement.chosen or ""]
        content = content_of(task, backend.offer)
        key = key_of("call", content)
        async with self._in_flight.setdefault(key, asyncio.Lock()):
            entry = self._recorder.lookup(key)
            if entry is not None:
                self._recorder.used(key, run_id=run_id, node=task.node)
                there = entry.actor if entry.actor == placement.twin else ""
                offer, cost, prompt_tokens, reused = self._backends.get(there, backend).offer, NOTHING, 0, True
            else:
                asked = [backend]
                if seat is not None and seat.twin is not None and seat.twin.backend == placement.twin:
                    asked.append(self._backends[seat.twin.backend])
                done = await self._asking.committed(key, content, task, asked, account, run_id)
                entry, offer, cost, prompt_tokens, reused = done.entry, done.offer, done.cost, done.prompt_tokens, False
            self._bus.emit(CallFinished(
                key=key, agent=task.agent, backend=offer.name, reused=reused, seconds=cost.seconds, tokens=cost.tokens,
                prompt_tokens=prompt_tokens, joules=cost.of("joules"), grams=cost.of("grams"), usd=cost.of("usd"),
                energy=None if cost.joules is None else cost.joules.provenance,
            ))  # fmt: skip
            answer = Answer(key, entry.response["text"], entry.response["choices"], offer, reused=reused)
            return answer, None if reused else int(entry.response["output_tokens"])

    def _kept(self, entry: Entry, task: Task, run_id: str) -> Entry:
        """Record an entry; what the recorder kept at its key, which is another process's where that was first."""
        self._recorder.record(entry, run_id=run_id, node=task.node)
        return self._recorder.lookup(entry.key) or entry


def _unplaced(task: Task, account: Account, placement: Placement) -> BackendError | BudgetExceeded:
    """Stop where the whole run's budget does not reach; degrade where it is only this task that finds no backend."""
    if account.seconds_left() <= 0:
        return account.exceeded("seconds", not_done(task))
    if (need := least_tokens(task) + task.ahead) > account.tokens_left("edge"):
        return account.exceeded("tokens", not_done(task), need)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(placement.refused.items()))
    return BackendError(
        f"no backend may serve {not_done(task)}: {reasons or 'there is none'}",
        fix="add a backend that meets the floor, or a larger --budget",
    )
