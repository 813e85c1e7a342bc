"""The only way to a model: places a task, answers it from the ledger or a backend, and records before it returns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import anyio

from finllm.errors import BackendError, BudgetExceeded
from finllm.events import CallFinished, CallStarted, EventBus, Placed
from finllm.scheduler.backends import Backend, Offer, Request, TokenLimitReached
from finllm.scheduler.policy import Placement, place
from finllm.scheduler.record import Entry, Recorder
from finllm.scheduler.task import Account, Task, key_of
from finllm.scheduler.template import Choices


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
        self._in_flight: dict[str, asyncio.Lock] = {}

    @property
    def offers(self) -> tuple[Offer, ...]:
        return tuple(backend.offer for backend in self._backends.values())

    async def run(self, task: Task, account: Account, *, run_id: str) -> Answer:
        """Answer a task.

        A recorded answer is given as it was. Otherwise the chosen backend is asked, and, if it fails, the next one
        that meets the floor. Errors: BudgetExceeded when the run's budget is spent, BackendError when no backend may
        or can answer, RecordError when the answer cannot be written down.
        """
        failed: dict[str, str] = {}
        while True:
            placement = self._placement(task, account, run_id, failed)
            if placement.chosen is None:
                raise _unplaced(task, account, placement)
            backend = self._backends[placement.chosen]
            try:
                return await self._call(task, backend, account, run_id)
            except BackendError as error:
                failed[placement.chosen] = error.message

    def _placement(self, task: Task, account: Account, run_id: str, failed: dict[str, str]) -> Placement:
        """The recorded placement of this task in this run, or a new one, recorded."""
        question = {
            "run": run_id,
            "node": task.node,
            "floor": task.floor,
            "task": task.content(),
            "failed": failed,
            "offers": [asdict(offer) for offer in self.offers],
        }
        key = key_of("placement", question)
        entry = self._recorder.lookup(key)
        if entry is not None:
            self._recorder.used(key, run_id=run_id, node=task.node)
            return Placement(**entry.response)
        placement = place(task, self.offers, account, failed)
        if placement.chosen is not None:
            request: dict[str, Any] = {
                "agent": task.agent,
                "floor": task.floor,
                "deadline": task.deadline,
                "value": task.value,
                "tenant": task.tenant,
                "failed": failed,
                "spent": asdict(account.spent()),
            }
            entry = Entry(key, "placement", "broker", request, asdict(placement))
            self._recorder.record(entry, run_id=run_id, node=task.node)
            self._bus.emit(
                Placed(agent=task.agent, node=task.node, chosen=placement.chosen, refused=dict(placement.refused))
            )
        return placement

    async def _call(self, task: Task, backend: Backend, account: Account, run_id: str) -> Answer:
        offer = backend.offer
        content = {**task.content(), "weights_sha256": offer.weights_sha256, "precision": offer.precision}
        key = key_of("call", content)
        async with self._in_flight.setdefault(key, asyncio.Lock()):
            entry = self._recorder.lookup(key)
            if entry is not None:
                self._recorder.used(key, run_id=run_id, node=task.node)
                self._bus.emit(
                    CallFinished(key=key, agent=task.agent, backend=offer.name, reused=True, seconds=0.0, tokens=0)
                )
                return Answer(key, entry.response["text"], entry.response["choices"], offer, reused=True)
            account.check(f"the call of {task.agent!r} at {task.node!r}")
            self._bus.emit(CallStarted(key=key, agent=task.agent, backend=offer.name))
            request = Request(task.prompt, task.template, task.priors, task.seed, account.tokens_left(offer.tier))
            wait = min(self._call_timeout, task.deadline, account.seconds_left())
            try:
                with anyio.fail_after(wait):
                    generation = await backend.generate(request)
            except TokenLimitReached as error:
                account.spend(offer.tier, error.tokens)
                if account.tokens_left("edge") <= request.token_limit - error.tokens:
                    raise account.exceeded("tokens", f"the call of {task.agent!r} at {task.node!r}") from error
                raise
            except TimeoutError:
                account.check(f"the call of {task.agent!r} at {task.node!r}")
                fix = "raise FINLLM_CALL_TIMEOUT or check the backend with 'finllm doctor'"
                raise BackendError(f"{offer.name!r} gave no answer within {wait:.0f} s", fix=fix) from None
            finally:
                request.stop.set()
            account.spend(offer.tier, generation.tokens)
            response = {
                "text": generation.text,
                "choices": generation.choices,
                "prompt_tokens": generation.prompt_tokens,
                "output_tokens": generation.output_tokens,
                "seconds": generation.seconds,
            }
            asked = {**content, "agent": task.agent, "prompt_version": task.prompt_version, "offer": asdict(offer)}
            self._recorder.record(Entry(key, "call", offer.name, asked, response), run_id=run_id, node=task.node)
            self._bus.emit(
                CallFinished(
                    key=key,
                    agent=task.agent,
                    backend=offer.name,
                    reused=False,
                    seconds=generation.seconds,
                    tokens=generation.tokens,
                )
            )
            return Answer(key, generation.text, generation.choices, offer, reused=False)


def _unplaced(task: Task, account: Account, placement: Placement) -> BackendError | BudgetExceeded:
    not_done = f"the call of {task.agent!r} at {task.node!r}"
    if account.tokens_left("edge") <= 0 or account.seconds_left() <= 0:
        return account.exceeded("tokens" if account.tokens_left("edge") <= 0 else "seconds", not_done)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(placement.refused.items()))
    return BackendError(
        f"no backend may serve {not_done}: {reasons or 'there is none'}",
        fix="add a backend that meets the floor, or a larger --budget",
    )
