"""Asks judgements again without a line of their evidence: in the background, through the broker, on record.

Every call stands under node `explain` of the run that is explained, and nothing that is on record is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from finllm.agents.agent import Caller
from finllm.agents.priors import priors_by
from finllm.agents.removal import matched
from finllm.errors import BackendError, BudgetExceeded
from finllm.review.influence import NODE, Cited, Influence, Moved, choices_moved, distance, resting_on
from finllm.scheduler.broker import Answer
from finllm.scheduler.decoding.filling import Choices
from finllm.scheduler.decoding.template import Template
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.placement.task import PRECISIONS, Prompt, Task

AT_ONCE = 16
"""Calls under way together; a call's time runs from when it is handed over."""


def questions(judged: Sequence[Cited]) -> int:
    """How many questions these judgements are asked at most."""
    return sum(1 + len(one.ids) + 2 + 2 * max(1, len(one.chosen)) for one in judged)


class Asking:
    """Asks judgements again, within `calls` to models and the budget of the caller's account.

    What is on record is answered from it, whatever the bound. `answers` counts the answers, `left` the questions that
    the bound left out. `tell` hears of each that is settled.
    """

    def __init__(self, caller: Caller, *, calls: int, tell: Callable[[], None] = lambda: None) -> None:
        self._caller = replace(caller, node=NODE)
        self._nothing = Account(Budget(tokens=0), time.monotonic)
        self._room = asyncio.Semaphore(AT_ONCE)
        found = {offer.precision for offer in caller.broker.offers}
        self._precisions = sorted(found, key=PRECISIONS.index, reverse=True)
        self._calls = calls
        self._tell = tell
        self._asked = self.answers = self.left = 0
        self.failures: set[str] = set()

    async def influence(self, judged: Cited) -> Influence:
        """Everything that is asked about one judgement. What gets no answer is counted, and changes nothing else."""
        found = Influence(judged)
        await self._alone(found)
        await self._again(found)
        return found

    async def _alone(self, found: Influence) -> None:
        judged, template = found.judged, found.judged.template
        asked = judged.call
        how = (asked.priors, asked.precision, asked.weights_sha256)
        paired = [label for pair in judged.pairs for label in pair]
        order = list(dict.fromkeys([*paired, *judged.ids]))
        base, *removed = await asyncio.gather(
            self._ask(judged, template, judged.lines.prompt, *how),
            *(self._ask(judged, template, judged.lines.without(label), *how) for label in order),
        )
        found.unanswered += [base, *removed].count(None)
        if base is None:
            return
        found.base = base
        found.noise = distance(judged.plain, judged.call.choices, base)
        found.alone = _all_moved(judged.plain, base, order, removed)

    async def _again(self, found: Influence) -> None:
        judged = found.judged
        if not judged.ids.keys() <= found.alone.keys():
            return
        found.measured = resting_on(found)
        found.movers = matched(judged.lines, found.measured)
        if not found.movers:
            return
        found.again_on = self._other(judged.call.precision)
        labels = [label for pair in found.movers for label in pair]
        lines, plain = judged.lines.reversed(), judged.plain
        priors = await self._priors(judged, found.again_on)
        if priors is None:
            found.unanswered += 2 + len(labels)
            return
        base, *removed = await asyncio.gather(
            self._ask(judged, plain, lines.prompt, priors, found.again_on),
            *(self._ask(judged, plain, lines.without(label), priors, found.again_on) for label in labels),
        )
        found.unanswered += [base, *removed].count(None)
        if base is not None:
            found.again = _all_moved(plain, base, labels, removed)

    async def _priors(self, judged: Cited, precision: str) -> Choices | None:
        """The priors of the plain fields, with the evidence reversed: the card's, else this precision's own."""
        priors = judged.call.priors or {}
        known = priors_by(self._caller.card_of(precision), judged.agent, judged.call.prompt_version)
        if not judged.open:
            return {**priors, **known}
        own = await self._ask(judged, judged.open, judged.neutral_lines.reversed().prompt, None, precision)
        return None if own is None else {**priors, **own, **known}

    def _other(self, precision: str) -> str:
        """The finest other precision than this one, where there is another."""
        return next((one for one in self._precisions if one != precision), precision)

    async def _ask(
        self,
        judged: Cited,
        template: Template,
        prompt: Prompt,
        priors: Choices | None,
        precision: str,
        weights: str | None = None,
    ) -> Choices | None:
        """A judgement's probabilities at this prompt, from the ledger or a model of this precision; None: no answer.

        `weights`: no other ones may answer.
        """
        asked, caller = judged.call, self._caller
        task = Task(
            agent=judged.agent, node=NODE, prompt=prompt, prompt_version=asked.prompt_version, template=template,
            floor=precision, exactly=precision, deadline=caller.timeout, seed=asked.seed, value=0.0, priors=priors,
            tenant=caller.tenant, background=True,
        )  # fmt: skip
        async with self._room:
            answer = await self._answer(task)
        self._tell()
        if answer is not None and (
            answer.offer.precision != precision or weights not in (None, answer.offer.weights_sha256)
        ):
            self.failures.add(f"other weights answered than those of {precision} that were asked for")
            return None
        self.answers += answer is not None
        return None if answer is None else answer.choices

    async def _answer(self, task: Task) -> Answer | None:
        with contextlib.suppress(BudgetExceeded):  # which says that it is not on record
            return await self._run(task, self._nothing)
        if self._asked >= self._calls:
            self.left += 1
            return None
        self._asked += 1
        try:
            return await self._run(task, self._caller.account)
        except BudgetExceeded:
            self.left += 1
        return None

    async def _run(self, task: Task, account: Account) -> Answer | None:
        try:
            return await self._caller.broker.run(task, account, run_id=self._caller.run_id)
        except BackendError as error:
            self.failures.add(error.message)
            return None


def _all_moved(
    template: Template, base: Choices, labels: Sequence[str], removed: Sequence[Choices | None]
) -> dict[str, Moved]:
    return {
        label: choices_moved(template, base, choices)
        for label, choices in zip(labels, removed, strict=True)
        if choices is not None
    }
