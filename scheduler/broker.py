"""The only way to a model: places a task, answers it from the ledger or a backend, and records before it returns."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from finllm.errors import BackendError, BudgetExceeded
from finllm.events import CallFailed, CallFinished, CallStarted, EventBus, Placed
from finllm.scheduler.backends import Backend, BackendLost, Generation, Offer, Request, TokenLimitReached
from finllm.scheduler.decoding.filling import Choices
from finllm.scheduler.executors import Joining
from finllm.scheduler.health.services import CircuitOpen, Services
from finllm.scheduler.money.account import NOTHING, Account, Spent
from finllm.scheduler.money.budget import Dimension
from finllm.scheduler.money.costing import Costing
from finllm.scheduler.money.meter import Used
from finllm.scheduler.placement.dispatch import Dispatch, FleetGrew, Seat, spec_of
from finllm.scheduler.placement.policy import Placement, forbidden, least_tokens
from finllm.scheduler.placement.task import Task, asked_digest, key_of, task_digest
from finllm.scheduler.record import CALL, CHARGE, FAILURE, PLACEMENT, Entry, Recorder
from finllm.scheduler.watch import Watch

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
        self.dispatch.look_out = self._take_in
        self._recorder = recorder
        self._bus = bus
        self._call_timeout = call_timeout
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
        except BackendError as error:
            said = {"message": error.message, "fix": error.fix}
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
                answer, output = await self._call(task, self._backends[placement.chosen], account, run_id)
                return answer
            except BackendLost as error:
                lost[placement.chosen] = error.message
                losses += not isinstance(error, CircuitOpen)
            except BackendError as error:
                failed[placement.chosen] = error.message
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
            if self._recorder.lookup(key_of("call", _content(task, self._backends[chosen].offer))) is not None:
                return failed
            failed[chosen] = "it failed before in this run"
        return {}

    def _placement_key(self, task: Task, run_id: str, failed: Mapping[str, str]) -> str:
        question = {
            "run": run_id,
            "node": task.node,
            "floor": task.floor,
            "task": task.content(),
            "failed": sorted(failed),
            "offers": [offer.identity() for offer in self.offers],
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
            answered = self._recorder.lookup(key_of("call", _content(task, self._backends[chosen].offer))) is not None
            if answered or chosen in self.services.shut():  # a shut one is asked, says so, and another is placed
                return Placement(**entry.response), None
            others = {name: "another was chosen before" for name in self._backends if name != chosen}
            return Placement(**entry.response), await self._seat(task, account, lambda: others, within)

        barred: dict[str, str] = {}

        def barred_now() -> dict[str, str]:
            barred.clear()
            barred.update(forbidden(task, self.offers, account, {**self.services.shut(), **failed}))
            return barred

        seat = await self._seat(task, account, barred_now, within)
        if seat is None:
            return Placement(None, barred_now()), None
        placement = Placement(seat.backend, {**seat.passed_over, **barred},
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
                        return await self.dispatch.seat(task, account, barred())
        except TimeoutError:
            account.check(_not_done(task))
            raise BackendError(f"no backend came free for {_not_done(task)} within {within:.0f} s",
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
        }
        entry = self._kept(Entry(key, PLACEMENT, "broker", request, asdict(placement)), task, run_id)
        kept = Placement(**entry.response)
        self._bus.emit(
            Placed(agent=task.agent, node=task.node, chosen=entry.response["chosen"], refused=dict(kept.refused))
        )
        return kept

    async def _call(self, task: Task, backend: Backend, account: Account, run_id: str) -> tuple[Answer, int | None]:
        """The answer, and how many tokens of output it took; None where the ledger had it."""
        offer = backend.offer
        content = _content(task, offer)
        key = key_of("call", content)
        async with self._in_flight.setdefault(key, asyncio.Lock()):
            entry = self._recorder.lookup(key)
            reused = entry is not None
            cost, prompt_tokens = NOTHING, 0
            if entry is not None:
                self._recorder.used(key, run_id=run_id, node=task.node)
            else:
                generation, cost = await self._generate(key, task, backend, account, run_id)
                prompt_tokens = generation.prompt_tokens
                response = {
                    "text": generation.text,
                    "choices": generation.choices,
                    "prompt_tokens": generation.prompt_tokens,
                    "output_tokens": generation.output_tokens,
                    "seconds": generation.seconds,
                    "cached_tokens": generation.cached_tokens,
                    "side_by_side": generation.side_by_side,
                    "spent": asdict(cost),
                    **({"votes": generation.votes} if generation.votes else {}),
                }
                asked = {**content, "agent": task.agent, "prompt_version": task.prompt_version, "offer": asdict(offer),
                         "tenant": task.tenant}  # fmt: skip
                entry = self._kept(Entry(key, CALL, offer.name, asked, response), task, run_id)
                if entry.response != response:
                    self._charge(key, task, offer, cost, "another process answered first", run_id)
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

    async def _generate(
        self, key: str, task: Task, backend: Backend, account: Account, run_id: str
    ) -> tuple[Generation, Spent]:
        """Ask a backend within the account and the time that is left, and charge what it used, answered or not."""
        offer = backend.offer
        async with account.hold(offer.tier, self._most(task, offer)) as hold:
            account.check(_not_done(task))
            self._bus.emit(CallStarted(key=key, agent=task.agent, backend=offer.name, run_id=run_id, node=task.node,
                                      provider=offer.kind))  # fmt: skip
            wait = min(self._call_timeout, task.deadline, account.seconds_left())
            watch = Watch(self.services, self.costing, task, offer, account, hold)
            priors = task.priors_of(offer.precision, offer.weights_sha256)
            request = Request(task.prompt, task.template, priors, task.seed, hold.tokens(offer.tier), rank=task.value,
                              background=task.background, within=wait, meter=watch.meter)  # fmt: skip
            last = hold.tokens(offer.tier) == account.tokens_left("edge") < float("inf")
            try:
                with watch.scope:
                    generation = await self.services.generate(offer.name, request, f"{run_id}/{task.node}")
                    cost = self.costing.of(offer, generation)
                    account.spend(cost)
                    return generation, cost
            except TokenLimitReached as error:
                self._charge_failed(key, task, offer, account, watch, error.message, run_id, error.tokens)
                if last:
                    raise account.tightest("tokens").exceeded("tokens", _not_done(task)) from error
                raise
            except BackendError as error:
                self._charge_failed(key, task, offer, account, watch, error.message, run_id)
                account.check(_not_done(task))
                raise
            except BaseException as error:
                left = isinstance(error, asyncio.CancelledError)  # whose message is anyio's own object
                why = "its caller left" if left else str(error) or type(error).__name__
                self._charge_failed(key, task, offer, account, watch, why, run_id)
                raise
            self._charge_failed(key, task, offer, account, watch, "a budget was spent", run_id)
            account.check(_not_done(task))
            raise AssertionError("a call is only stopped where a budget is spent")

    def _most(self, task: Task, offer: Offer) -> dict[Dimension, float]:
        tokens = task.most_tokens()
        most = self.costing.most(offer, tokens)
        return {"tokens": tokens, "joules": most.of("joules"), "grams": most.of("grams"), "usd": most.of("usd")}

    def _charge_failed(
        self, key: str, task: Task, offer: Offer, account: Account, watch: Watch, why: str, run_id: str,
        tokens: int = 0,
    ) -> None:  # fmt: skip
        """Charge a call that gave no answer, and put that on record: a resumed run does not get it back."""
        used = replace(watch.meter.used, tokens=max(watch.meter.used.tokens, tokens))
        if used == Used():
            self._bus.emit(CallFailed(key=key, agent=task.agent, backend=offer.name, why=why, tokens=0))
            return
        cost = self.costing.so_far(offer, used, least_tokens(task))
        account.spend(cost)
        self._charge(key, task, offer, cost, why, run_id)

    def _charge(self, key: str, task: Task, offer: Offer, cost: Spent, why: str, run_id: str) -> None:
        about: dict[str, Any] = {"run": run_id, "node": task.node, "agent": task.agent, "tenant": task.tenant,
                                 "call": key, "task": task_digest(task), "offer": offer.identity()}  # fmt: skip
        number = 1
        while self._recorder.lookup(charge := key_of("charge", about | {"number": number})) is not None:
            number += 1
        request, response = about | {"number": number, "offer": asdict(offer)}, {"spent": asdict(cost), "why": why}
        entry = Entry(charge, CHARGE, offer.name, request, response)
        self._recorder.record(entry, run_id=run_id, node=task.node)
        self._bus.emit(CallFailed(key=key, agent=task.agent, backend=offer.name, why=why, tokens=cost.tokens))


def _content(task: Task, offer: Offer) -> dict[str, Any]:
    """What a call's key is made of: the task's content, and the weights that answer it."""
    content = task.content() | {"priors": task.priors_of(offer.precision, offer.weights_sha256)}
    content.pop("priors_at", None)
    return {**content, "weights_sha256": offer.weights_sha256, "precision": offer.precision}


def _not_done(task: Task) -> str:
    return f"the call of {task.agent!r} at {task.node!r}"


def _unplaced(task: Task, account: Account, placement: Placement) -> BackendError | BudgetExceeded:
    """Stop where the whole run's budget does not reach; degrade where it is only this task that finds no backend."""
    if account.seconds_left() <= 0:
        return account.exceeded("seconds", _not_done(task))
    if least_tokens(task) > account.tokens_left("edge"):
        return account.exceeded("tokens", _not_done(task))
    reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(placement.refused.items()))
    return BackendError(
        f"no backend may serve {_not_done(task)}: {reasons or 'there is none'}",
        fix="add a backend that meets the floor, or a larger --budget",
    )
