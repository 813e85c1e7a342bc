"""The only way to a model: places a task, answers it from the ledger or a backend, and records before it returns."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakValueDictionary

import anyio

from finllm.errors import BackendError, BudgetExceeded
from finllm.events import CallFinished, CallStarted, EventBus, Placed
from finllm.scheduler.backends import Backend, Generation, Offer, Request, TokenLimitReached
from finllm.scheduler.filling import Choices
from finllm.scheduler.policy import Placement, least_tokens, place
from finllm.scheduler.record import Entry, Recorder
from finllm.scheduler.task import Account, Task, key_of


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

    Callers differ in their account; the ledger, the backends and the locks on keys in flight are shared.
    """

    def __init__(self, backends: Sequence[Backend], recorder: Recorder, bus: EventBus, *, call_timeout: float) -> None:
        self._backends = {backend.offer.name: backend for backend in backends}
        self._recorder = recorder
        self._bus = bus
        self._call_timeout = call_timeout
        self._in_flight: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def backends(self) -> tuple[Backend, ...]:
        return tuple(self._backends.values())

    @property
    def offers(self) -> tuple[Offer, ...]:
        return tuple(backend.offer for backend in self._backends.values())

    async def run(self, task: Task, account: Account, *, run_id: str) -> Answer:
        """Answer a task.

        A recorded answer is given as it was. Otherwise the chosen backend is asked, and, if it fails, the next one
        that meets the floor. Errors: BudgetExceeded when the run's budget is spent, BackendError when no backend may
        or can answer, RecordError when the answer cannot be written down. That nobody answered is on record too.
        """
        try:
            return await self._answered(task, account, run_id)
        except BackendError as error:
            about = {"run": run_id, "node": task.node, "task": task_digest(task)}
            said = {"message": error.message, "fix": error.fix}
            entry = Entry(key_of("failure", about | said), "failure", "broker", about, said)
            self._recorder.record(entry, run_id=run_id, node=task.node)
            raise

    async def _answered(self, task: Task, account: Account, run_id: str) -> Answer:
        failed = self._failed_before(task, run_id)
        while True:
            placement = self._placement(task, account, run_id, failed)
            if placement.chosen is None:
                raise _unplaced(task, account, placement)
            backend = self._backends[placement.chosen]
            try:
                return await self._call(task, backend, account, run_id)
            except BackendError as error:
                failed[placement.chosen] = error.message

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
            "offers": [asdict(offer) for offer in self.offers],
        }
        return key_of("placement", question)

    def _placement(self, task: Task, account: Account, run_id: str, failed: Mapping[str, str]) -> Placement:
        """The recorded placement of this task in this run, or a new one, recorded."""
        key = self._placement_key(task, run_id, failed)
        entry = self._recorder.lookup(key)
        if entry is not None:
            self._recorder.used(key, run_id=run_id, node=task.node)
            return Placement(**entry.response)
        placement = place(task, self.offers, account, failed)
        if placement.chosen is None:
            return placement
        request: dict[str, Any] = {
            "agent": task.agent,
            "floor": task.floor,
            "deadline": task.deadline,
            "value": task.value,
            "tenant": task.tenant,
            "failed": dict(failed),
            "spent": asdict(account.spent()),
        }
        entry = self._kept(Entry(key, "placement", "broker", request, asdict(placement)), task, run_id)
        placement = Placement(**entry.response)
        self._bus.emit(
            Placed(agent=task.agent, node=task.node, chosen=entry.response["chosen"], refused=dict(placement.refused))
        )
        return placement

    async def _call(self, task: Task, backend: Backend, account: Account, run_id: str) -> Answer:
        offer = backend.offer
        content = _content(task, offer)
        key = key_of("call", content)
        async with self._in_flight.setdefault(key, asyncio.Lock()):
            entry = self._recorder.lookup(key)
            reused = entry is not None
            seconds, tokens = 0.0, 0
            if entry is not None:
                self._recorder.used(key, run_id=run_id, node=task.node)
            else:
                generation = await self._generate(key, task, backend, account)
                seconds, tokens = generation.seconds, generation.tokens
                response = {
                    "text": generation.text,
                    "choices": generation.choices,
                    "prompt_tokens": generation.prompt_tokens,
                    "output_tokens": generation.output_tokens,
                    "seconds": generation.seconds,
                    "cached_tokens": generation.cached_tokens,
                    "side_by_side": generation.side_by_side,
                }
                asked = {**content, "agent": task.agent, "prompt_version": task.prompt_version, "offer": asdict(offer)}
                entry = self._kept(Entry(key, "call", offer.name, asked, response), task, run_id)
            self._bus.emit(
                CallFinished(
                    key=key, agent=task.agent, backend=offer.name, reused=reused, seconds=seconds, tokens=tokens
                )
            )
            return Answer(key, entry.response["text"], entry.response["choices"], offer, reused=reused)

    def _kept(self, entry: Entry, task: Task, run_id: str) -> Entry:
        """Record an entry; what the recorder kept at its key, which is another process's where that was first."""
        self._recorder.record(entry, run_id=run_id, node=task.node)
        return self._recorder.lookup(entry.key) or entry

    async def _generate(self, key: str, task: Task, backend: Backend, account: Account) -> Generation:
        """Ask a backend within the account and the time that is left, and charge what it used."""
        tier, name = backend.offer.tier, backend.offer.name
        async with account.hold(tier, task.most_tokens()) as limit:
            account.check(_not_done(task))
            self._bus.emit(CallStarted(key=key, agent=task.agent, backend=name))
            last = limit == account.tokens_left("edge") < float("inf")
            wait = min(self._call_timeout, task.deadline, account.seconds_left())
            request = Request(task.prompt, task.template, task.priors, task.seed, limit, rank=task.value,
                              background=task.background, within=wait)  # fmt: skip
            try:
                with anyio.fail_after(wait):
                    generation = await backend.generate(request)
            except TokenLimitReached as error:
                account.spend(tier, error.tokens)
                if last:
                    raise account.exceeded("tokens", _not_done(task)) from error
                raise
            except TimeoutError:
                account.check(_not_done(task))
                fix = "raise FINLLM_CALL_TIMEOUT or check the backend with 'finllm doctor'"
                raise BackendError(f"{name!r} gave no answer within {wait:.0f} s", fix=fix) from None
            account.spend(tier, generation.tokens)
            return generation


def task_digest(task: Task) -> str:
    """Hex sha256 of everything that may change a task's answer, but for the weights."""
    return key_of("task", task.content())


def _content(task: Task, offer: Offer) -> dict[str, Any]:
    """What a call's key is made of: the task's content, and the weights that answer it."""
    return {**task.content(), "weights_sha256": offer.weights_sha256, "precision": offer.precision}


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
