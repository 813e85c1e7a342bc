"""Asking the backends that a task was placed on: within the account, the first answer committed, all of it charged."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

from finllm.errors import BackendError, BudgetExceeded
from finllm.events import CallFailed, CallStarted, EventBus
from finllm.scheduler.backends import Backend, BackendLost, Generation, Offer, Request, TokenLimitReached
from finllm.scheduler.health.services import Services
from finllm.scheduler.money.account import Account, Spent
from finllm.scheduler.money.budget import SAID, Dimension
from finllm.scheduler.money.costing import Costing
from finllm.scheduler.money.meter import Used
from finllm.scheduler.placement.policy import least_tokens
from finllm.scheduler.placement.task import Task, key_of, task_digest
from finllm.scheduler.record import CALL, CHARGE, Entry, Recorder
from finllm.scheduler.watch import Watch

T = TypeVar("T")
COPY = "its copy in another domain answered first"
"""Why a call is charged that gave no answer, since the same task ran elsewhere at once."""
RECKONED = "reckoned, for it told no count of its own"


class Unanswered(Exception):
    """None of the backends that were asked has answered: `by` their names, why."""

    def __init__(self, by: Mapping[str, BackendError]) -> None:
        super().__init__("; ".join(f"{name}: {error.message}" for name, error in by.items()))
        self.by = by


@dataclass(frozen=True)
class Committed:
    """An answer as the ledger keeps it, the offer of the backend that was first, and what its call cost."""

    entry: Entry
    offer: Offer
    prompt_tokens: int
    cost: Spent


async def first_of(copies: Mapping[str, Callable[[], Awaitable[T]]]) -> T:
    """What the first of the copies to succeed returns; the others are cancelled, and over when this returns.

    A copy without an answer ends no other. Errors: Unanswered, or BudgetExceeded, where none answers; any other error
    of a copy ends all.
    """
    if len(copies) == 1:
        ((name, ask),) = copies.items()
        try:
            return await ask()
        except BackendError as error:
            raise Unanswered({name: error}) from error
    running = {asyncio.ensure_future(ask()): name for name, ask in copies.items()}
    failed: dict[str, BackendError | BudgetExceeded] = {}
    try:
        waiting = set(running)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in (one for one in running if one in done):
                error = one.exception()
                if error is None:
                    return one.result()
                if not isinstance(error, BackendError | BudgetExceeded):
                    raise error
                failed[running[one]] = error
    finally:
        for one in running:
            one.cancel()
        for ended in await asyncio.gather(*running, return_exceptions=True):
            expected = (BackendError, BudgetExceeded, asyncio.CancelledError)
            if isinstance(ended, BaseException) and not isinstance(ended, expected):
                raise ended
    if stop := next((error for error in failed.values() if isinstance(error, BudgetExceeded)), None):
        raise stop
    raise Unanswered({name: error for name, error in failed.items() if isinstance(error, BackendError)})


@dataclass(frozen=True)
class Asking:
    """Asks backends on behalf of a broker, whose parts these are."""

    recorder: Recorder
    bus: EventBus
    services: Services
    costing: Costing
    call_timeout: float

    async def committed(
        self, key: str, content: Mapping[str, Any], task: Task, copies: Sequence[Backend], account: Account, run_id: str
    ) -> Committed:
        """Have these backends answer a task at once; the first answer that verifies takes the ledger's key.

        All of them hold the same weights, so that they answer to the same key. The others are cancelled, and charged
        for what they did. Errors: as `first_of`.
        """
        return await first_of({
            one.offer.name: partial(self._commit, key, content, task, one, account, run_id,
                                    [other.offer.name for other in copies if other is not one])
            for one in copies
        })  # fmt: skip

    async def _commit(
        self, key: str, content: Mapping[str, Any], task: Task, backend: Backend, account: Account, run_id: str,
        others: Sequence[str],
    ) -> Committed:  # fmt: skip
        """Ask a backend, and put its answer at the key by compare-and-swap: another's that is there stays.

        Errors: BackendLost where one of the `others` that run the same task was first.
        """
        offer = backend.offer
        generation, cost = await self._generate(key, task, backend, account, run_id)
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
        kept = self.recorder.lookup(key) if others else None
        if kept is None:
            entry = Entry(key, CALL, offer.name, asked, response)
            self.recorder.record(entry, run_id=run_id, node=task.node)
            kept = self.recorder.lookup(key) or entry
        if (kept.actor, kept.response) != (offer.name, response):
            outrun = kept.actor in others
            self._charge(key, task, offer, cost, COPY if outrun else "another process answered first", run_id)
            if outrun:
                raise BackendLost(COPY, fix="that answer stands")
        return Committed(kept, offer, generation.prompt_tokens, cost)

    def short_of(self, task: Task, offers: Sequence[Offer], account: Account) -> str:
        """What the account lacks for two copies of a critical task on any of these; empty where it holds them."""
        for offer in offers if task.critical else ():
            most = self._most(task, offer)
            if offer.tier == "deep":
                most["deep_tokens"] = most["tokens"]
            for name, amount in most.items():
                left = max(account.left(name), 0.0)
                if 2 * amount > left:
                    return (f"the budget does not hold two copies: they may take {2 * amount:.4g} {SAID[name]}, "
                            f"{left:.4g} are left")  # fmt: skip
        return ""

    async def _generate(
        self, key: str, task: Task, backend: Backend, account: Account, run_id: str
    ) -> tuple[Generation, Spent]:
        """Ask a backend within the account and the time that is left, and charge what it used, answered or not."""
        offer = backend.offer
        async with account.hold(offer.tier, self._most(task, offer)) as hold:
            account.check(not_done(task))
            self.bus.emit(CallStarted(key=key, agent=task.agent, backend=offer.name, run_id=run_id, node=task.node,
                                      provider=offer.kind))  # fmt: skip
            wait = min(self.call_timeout, task.deadline, account.seconds_left())
            watch = Watch(self.services, self.costing, task, offer, account, hold)
            priors = task.priors_of(offer.precision, offer.weights_sha256)
            request = Request(task.prompt, task.template, priors, task.seed, hold.tokens(offer.tier), rank=task.value,
                              background=task.background, within=wait, meter=watch.meter)  # fmt: skip
            started = time.monotonic()
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
                    raise account.tightest("tokens").exceeded("tokens", not_done(task)) from error
                raise
            except BackendError as error:
                self._charge_failed(key, task, offer, account, watch, error.message, run_id)
                account.check(not_done(task))
                raise
            except asyncio.CancelledError:
                if self.recorder.lookup(key) is None:
                    self._charge_failed(key, task, offer, account, watch, "its caller left", run_id)
                else:
                    self._charge_copy(key, task, offer, account, watch, run_id, time.monotonic() - started)
                raise
            except BaseException as error:
                self._charge_failed(key, task, offer, account, watch, str(error) or type(error).__name__, run_id)
                raise
            self._charge_failed(key, task, offer, account, watch, "a budget was spent", run_id)
            account.check(not_done(task))
            raise AssertionError("a call is only stopped where a budget is spent")

    def _most(self, task: Task, offer: Offer) -> dict[Dimension, float]:
        tokens = task.most_tokens()
        most = self.costing.most(offer, tokens)
        return {"tokens": tokens, "joules": most.of("joules"), "grams": most.of("grams"), "usd": most.of("usd")}

    def _charge_copy(
        self, key: str, task: Task, offer: Offer, account: Account, watch: Watch, run_id: str, seconds: float
    ) -> None:  # fmt: skip
        """Charge a call whose copy was first. Where it told nothing yet, its prompt and the time since are reckoned."""
        used, why = watch.meter.used, COPY
        if used.tokens == 0:
            used, why = Used(math.ceil(least_tokens(task)), seconds), f"{COPY}; {RECKONED}"
        cost = self.costing.so_far(offer, used, least_tokens(task))
        account.spend(cost)
        self._charge(key, task, offer, cost, why, run_id)

    def _charge_failed(
        self, key: str, task: Task, offer: Offer, account: Account, watch: Watch, why: str, run_id: str,
        tokens: int = 0,
    ) -> None:  # fmt: skip
        """Charge a call that gave no answer, and put that on record: a resumed run does not get it back."""
        used = replace(watch.meter.used, tokens=max(watch.meter.used.tokens, tokens))
        if used == Used():
            self.bus.emit(CallFailed(key=key, agent=task.agent, backend=offer.name, why=why, tokens=0))
            return
        cost = self.costing.so_far(offer, used, least_tokens(task))
        account.spend(cost)
        self._charge(key, task, offer, cost, why, run_id)

    def _charge(self, key: str, task: Task, offer: Offer, cost: Spent, why: str, run_id: str) -> None:
        about: dict[str, Any] = {"run": run_id, "node": task.node, "agent": task.agent, "tenant": task.tenant,
                                 "call": key, "task": task_digest(task), "offer": offer.identity()}  # fmt: skip
        number = 1
        while self.recorder.lookup(charge := key_of("charge", about | {"number": number})) is not None:
            number += 1
        request, response = about | {"number": number, "offer": asdict(offer)}, {"spent": asdict(cost), "why": why}
        entry = Entry(charge, CHARGE, offer.name, request, response)
        self.recorder.record(entry, run_id=run_id, node=task.node)
        self.bus.emit(CallFailed(key=key, agent=task.agent, backend=offer.name, why=why, tokens=cost.tokens))


def content_of(task: Task, offer: Offer) -> dict[str, Any]:
    """What a call's key is made of: the task's content, and the weights that answer it."""
    content = task.content() | {"priors": task.priors_of(offer.precision, offer.weights_sha256)}
    content.pop("priors_at", None)
    return {**content, "weights_sha256": offer.weights_sha256, "precision": offer.precision}


def not_done(task: Task) -> str:
    """What was not done, where a call gets no answer."""
    return f"the call of {task.agent!r} at {task.node!r}"
