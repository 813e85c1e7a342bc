"""Faithfulness over the shipped scenarios: does removing cited evidence move a judgement more than removing other?

Each judgement that a run rests on is asked again without one line of its evidence. An explanation cites the lines that
moved it most; each is paired with the line nearest to it in length that is not cited, and both are removed on another
precision with the evidence reversed. The exact sign test of these pairs says whether the citations are faithful. The
same for what the agents cited themselves, as they were asked.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from benchmarks.page import write_section
from benchmarks.replay import SHIPPED, request_of
from finllm.desk.desk import Desk, adhoc_caller, open_desk
from finllm.events import EventBus
from finllm.graphs.flow import resume, run_stress_test
from finllm.graphs.state import AfterIntake
from finllm.review.faithfulness import Faithfulness, finding, of_citations, of_movers
from finllm.review.influence import Influence, cited_judgements
from finllm.review.reasking import Asking
from finllm.review.replay import replay
from finllm.review.sign_test import SignTest, sign_test
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.settings import load_settings

TITLE = "Faithfulness of explanations"
CALLS = 1000
"""More than any scenario asks."""


async def measured(desk: Desk, path: Path, seconds: float) -> list[Influence] | None:
    """The judgements of a scenario's run, asked again; None where time ran out before all was asked."""
    run_id = f"faithfulness-{path.stem}"
    row = desk.ledger.run(run_id)
    if row is None:
        if seconds <= 0:
            return None
        await run_stress_test(run_id, request_of(path, 0), desk)
    elif row.result is None:
        await resume(run_id, desk)
    state = AfterIntake.model_validate((await replay(run_id, desk)).state)
    caller = replace(adhoc_caller(desk, run_id), account=Account(Budget(seconds), time.monotonic))
    asking = Asking(caller, calls=CALLS)
    found = await asyncio.gather(*(asking.influence(one) for one in cited_judgements(state, desk.ledger)))
    for failure in asking.failures:
        print(f"{run_id}: {failure}", file=sys.stderr)
    return None if asking.left else list(found)


def once(found: Iterable[Influence]) -> list[Influence]:
    """Each question once: scenarios of one day share what their market says."""
    return list({one.judged.call.key: one for one in found}.values())


def table(title: str, rows: Sequence[tuple[str, Faithfulness]]) -> list[str]:
    lines = [f"**{title}**", "",
             "| | pairs | a chosen value changed, first only / second only | share and 95 % interval | "
             "probabilities moved, first more / second more | share and 95 % interval |",
             "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for name, tested in rows:
        top, odds = tested.top, tested.odds
        lines.append(f"| {name} | {top.pairs} | {top.more} / {top.less} | {told(top)} | {odds.more} / {odds.less} | "
                     f"{told(odds)} |")  # fmt: skip
    return [*lines, ""]


def told(test: SignTest) -> str:
    if test.share is None:
        return "not tested: every pair ties"
    return f"{test.share:.2f} [{test.low:.2f}, {test.high:.2f}]: {finding(test)}"


def by_agent(
    found: Sequence[Influence], which: Callable[[Sequence[Influence]], Faithfulness]
) -> list[tuple[str, Faithfulness]]:
    agents = sorted({one.judged.agent for one in found})
    return [("all", which(found)), *((a, which([one for one in found if one.judged.agent == a])) for a in agents)]


def by_scenario(found: Sequence[Sequence[Influence]]) -> SignTest:
    """One pair per scenario, its pairs' means: what it shows does not lean on pairs being independent."""
    pairs = [[pair for one in scenario for pair in one.mover_pairs()] for scenario in found]
    return sign_test((fmean(a.distance for a, _ in one), fmean(b.distance for _, b in one)) for one in pairs if one)


def page(found: Sequence[Sequence[Influence]], desk: Desk) -> str:
    """The section of the benchmarks' page."""
    every = once(one for scenario in found for one in scenario)
    alone = [moved for one in every for moved in one.alone.values()]
    noise = [one.noise for one in every if one.noise is not None]
    weights = ", ".join(f"{o.name} {o.precision} {o.weights_sha256[:12]}" for o in desk.broker.offers)
    calls = {use.key: use.entry.response["seconds"] for path in SHIPPED
             for use in desk.ledger.uses(f"faithfulness-{path.stem}", "call")}  # fmt: skip
    cost = sum(calls.values())
    return "\n".join([
        f"{len(found)} scenarios, {len(every)} different judgements, {len(alone)} removals of one line ({weights}). "
        f"A removal moved the probabilities by {fmean(m.distance for m in alone):.3f} (total variation, mean) and "
        f"changed a chosen value in {sum(bool(m.changed) for m in alone)} of {len(alone)}; asking the same again moved "
        f"them by {fmean(noise):.3f}. {len(calls)} calls, {cost:.0f} s of model time, with the runs; "
        f"{sum(one.unanswered for one in every)} questions had no answer in time, and their pairs are missing.",
        "",
        *table("What an explanation cites, as measured (first), against the line nearest in length that it does not "
               "(second), both removed where that was not measured: another precision, the evidence reversed",
               by_agent(every, of_movers)),
        f"By scenario, one pair each (means of the distances): {told(by_scenario(found))}.",
        "",
        *table("What the agents cite themselves (first) against the line nearest in length that they do not (second), "
               "removed as they were asked", by_agent(every, of_citations)),
        "Faithful means that the whole interval of the share (Clopper–Pearson) lies above one half; pairs that tie are "
        "left out of it. The intervals take pairs as independent; those of one judgement share its question.",
    ])  # fmt: skip


def main() -> int:
    """Measure what is not measured yet, and write the page once every scenario is. Exit code 1 until then."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--home", type=Path, default=Path("build/faithfulness"), help="ledger; going on costs nothing")
    parse.add_argument("--seconds", type=float, default=900.0, help="stop after so long, to be gone on with")
    options = parse.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    settings = load_settings().settings.model_copy(update={"home": options.home.absolute()})
    ends = time.monotonic() + options.seconds
    found: list[list[Influence]] = []
    with open_desk(settings, EventBus()) as desk:
        for path in SHIPPED:
            done = asyncio.run(measured(desk, path, ends - time.monotonic()))
            print(f"{path.stem}: {'all asked' if done else 'not finished'}", file=sys.stderr)
            if done is None:
                break
            found.append(done)
        body = page(found, desk) if found else "nothing was measured"
    print(body)
    if len(found) < len(SHIPPED):
        print(f"{len(found)} of {len(SHIPPED)} scenarios; run this again to go on", file=sys.stderr)
        return 1
    write_section(TITLE, "make bench-faithfulness", body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
