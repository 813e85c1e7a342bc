"""Explains a finished run: rebuilds its state from the record and asks again without single lines of evidence.

The run's result is not touched: the calls are in the background, under a node of their own, on a budget of their own.
"""

from __future__ import annotations

import asyncio
import time

from finllm.desk.desk import Desk, RunContext
from finllm.desk.request import RunRequest
from finllm.errors import InputError
from finllm.events import Progress
from finllm.graphs.state import Finished
from finllm.review.explanation import (
    Bound,
    Explanation,
    all_on_record,
    pairs_of,
    removals_of,
    tested,
)
from finllm.review.influence import NODE, Influence, cited_judgements
from finllm.review.reasking import Asking, questions
from finllm.review.removal_sentences import MEASURED, asked, by_evidence, cited, faithful
from finllm.review.replay import replay
from finllm.review.result_sentences import Teller, by_reading, by_shock, dissented, drove
from finllm.review.story import Chapter
from finllm.review.whatif import WhatIf
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget


async def explain(run_id: str, desk: Desk, bound: Bound | None = None) -> Explanation:
    """Explain a run that ended, and put the explanation on record. What is on record already is not asked again.

    What a bound left out, or nobody answered, is missing and said to be. Errors: InputError for an unknown run or one
    without a report; ReplayRefused where what it stood on is not what it was; RecordError.
    """
    bound = bound or Bound()
    row = desk.ledger.run(run_id)
    if row is None:
        raise InputError(f"no run {run_id!r}", fix="'finllm runs list' shows those on record")
    if row.result is None:
        raise InputError(f"run {run_id!r} is {row.status}: it has no result to explain", fix=f"finllm resume {run_id}")
    account = Account(Budget(seconds=bound.seconds), time.monotonic, above=desk.tenant)
    rebuilt = await replay(run_id, desk)
    state, request = Finished.model_validate(rebuilt.state), RunRequest.model_validate(row.request)
    run = RunContext(desk, run_id, request, rebuilt.market, account)
    asking, found = await _ask(run, state, bound)
    explanation = await asyncio.to_thread(_told, run, state, asking, found, bound)
    desk.ledger.record(explanation.entry(), run_id=run_id, node=NODE)
    return explanation


async def _ask(run: RunContext, state: Finished, bound: Bound) -> tuple[Asking, list[Influence]]:
    judged = cited_judgements(state, run.desk.ledger)
    total, settled = questions(judged), 0

    def tell() -> None:
        nonlocal settled
        settled += 1
        run.desk.bus.emit(Progress(what="asking what the result rests on", done=min(settled, total), total=total))

    asking = Asking(run.caller(NODE), calls=bound.calls, tell=tell)
    return asking, list(await asyncio.gather(*(asking.influence(one) for one in judged)))


def _told(run: RunContext, state: Finished, asking: Asking, found: list[Influence], bound: Bound) -> Explanation:
    title = run.request.scenario.title
    what_if, teller, pairs = WhatIf(state, run), Teller(state), pairs_of(found)
    tests = {"measured citations": tested(pairs, "mover"), "the agents' own citations": tested(pairs, "cited")}
    before = all_on_record(run.desk.ledger, {one.weights for one in pairs}, but=run.run_id)
    if before:
        every = [*before, *pairs]
        tests["measured citations of all runs"] = tested(every, "mover")
        tests["the agents' own citations of all runs"] = tested(every, "cited")
    chapters = (
        Chapter("What drove the result", tuple(drove(teller, what_if, title))),
        Chapter("What would flip it: a factor read otherwise", tuple(by_reading(teller, what_if))),
        Chapter("What would flip it: the smallest change of one shock", tuple(by_shock(teller, what_if)),
                "no change of one shock that was tried"),
        Chapter("What would change without a line of evidence", tuple(by_evidence(teller, found, what_if)),
                "no chosen value"),
        Chapter("What each judgement rests on, as measured", tuple(cited(teller, found)), "no judgement cites"),
        Chapter("Who dissented from the result", tuple(dissented(teller)), "nobody"),
        Chapter("Whether the citations are faithful", (MEASURED, *faithful(teller, tests))),
        Chapter("What was asked for this explanation", tuple(asked(teller, asking, found, bound))),
    )  # fmt: skip
    return Explanation(
        run_id=run.run_id, title=title, complete=not any(one.unanswered for one in found),
        calls=asking.answers, bound=bound, chapters=chapters, removals=removals_of(found), pairs=pairs,
        tested=tests, evidence=teller.added,
    )  # fmt: skip
