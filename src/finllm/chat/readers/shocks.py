"""Answers about shocks, and what the tools compute anew: what if, what would flip it, a hedge, a reverse search.

None of them asks a model. What they compute gets rows of its own, each with how it was computed.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from finllm.chat.readers.result import MOST
from finllm.chat.table import Answer, Row, Teller
from finllm.errors import InputError
from finllm.review.result_sentences import changes
from finllm.review.whatif import Verdict
from finllm.tools.data.factors import MoveUnit, factor_table
from finllm.tools.evidence import Unit, money

_EXAMPLES: Mapping[str, str] = {"return": "-20 %", "bp": "+75 bp", "points": "+12 points"}
_WRITTEN: Mapping[str, str] = {"return": "%", "bp": "bp", "points": "points"}


def shocks(tell: Teller) -> Answer:
    asked = tell.slots.all("factor")
    found = [one for one in tell.table.report.shocks if not asked or one.factor in asked]
    for one in found:
        applied = f"refused: {one.refused}" if one.refused else "applied"
        if one.sigma:
            tell.say("one", move=one.move, sigma=one.sigma, origin=one.origin, applied=applied)
        else:
            tell.say("bare", move=one.move, origin=one.origin, applied=applied)
    for name in asked:
        if name not in {one.factor for one in found}:
            tell.say("none", name=name)
    if not tell.lines:
        tell.say("nothing")
    return tell.done()


def plausibility(tell: Teller) -> Answer:
    table, asked = tell.table, tell.slots.all("factor")
    for one in table.report.shocks:
        if one.sigma and (not asked or one.factor in asked):
            tell.say("one", sigma=one.sigma)
    for row in table.rows:
        if row.entity == "shocks" and row.what.startswith("shocks ") and row.unit == "probability":
            tell.say("judged", judged=row.what.removeprefix("shocks ").split(",")[0], chance=Row(row.id))
    for row in table.find(entity="shocks", what="past moves that went less far"):
        tell.say("nearer", nearer=Row(row.id))
    for line in table.report.notes:
        if line.startswith("Together the shocks"):
            tell.say("together", line=line)
    if not tell.lines:
        tell.say("none")
    return tell.done()


def what_if_shock(tell: Teller) -> Answer:
    factor, move = tell.slots.first("factor") or "", tell.slots.first("move") or ""
    known = factor_table().get(factor)
    unit = known.unit if known else "return"
    if not move:
        tell.say("lacks", factor=factor, example=_EXAMPLES[unit])
        return tell.done()
    asked = move if not move[-1].isdigit() else move + _WRITTEN[unit]
    again = _again(tell)
    if not tell.sure:
        tell.say("ask", factor=factor, asked=asked)
        return tell.done(asks=True, again=again)
    try:
        verdict, there, unit = tell.table.what_if.moved(factor, asked)
    except InputError as error:
        tell.say("bad", why=f"{error.message}; {error.fix}")
        return tell.done(again=again)
    row = tell.table.add(there, unit, factor, f"shock (asked for in the chat: {asked})", "given by the user")
    tell.say("now", factor=factor, asked=row, total=_total(tell, verdict, f"{factor} moved by {asked}"))
    return _verdict_told(tell, verdict, again, f'shock {factor} {asked} because "asked in the chat"')


def what_if_without(tell: Teller) -> Answer:
    source = tell.slots.first("source") or ""
    again = _again(tell)
    if not tell.sure:
        tell.say("ask", source=source)
        return tell.done(asks=True, again=again)
    try:
        what_if = tell.table.what_if
    except InputError as error:
        tell.say("bad", why=f"{error.message}; {error.fix}")
        return tell.done(again=again)
    verdict = what_if.read({}, without=source) if what_if.reading is not None else what_if.base
    tell.say("now", source=source, total=_total(tell, verdict, f"without {source}"))
    return _verdict_told(tell, verdict, again, f'source {source} off because "asked in the chat"')


def _verdict_told(tell: Teller, verdict: Verdict, again: str, verb: str) -> Answer:
    """What the verdict is beside the run's own, and how a session keeps it: by the line `verb`."""
    tell.say("was", base=tell.table.report.total)
    breaches = ", ".join(f"{subject} ({kind})" for kind, subject in sorted(verdict.breached)) or "none"
    tell.say("breach", breaches=breaches, ruled=verdict.compliance)
    tell.say("keep", command=f"echo {shlex.quote(verb)} | finllm session {tell.table.run.id} --script -")
    return tell.done(again=again)


def _total(tell: Teller, verdict: Verdict, how: str) -> Row:
    unit: Unit = money(tell.table.report.currency)
    return tell.table.add(float(verdict.total), unit, "book", f"P&L, {how}", "computed again by the tools",
                          tell.table.rows[tell.table.report.total.evidence].period)  # fmt: skip


def _again(tell: Teller) -> str:
    from finllm.chat.table import filled

    return filled("finllm chat --run {run} --ask {text} --yes", {"run": tell.table.run.id, "text": tell.text})


def flip(tell: Teller) -> Answer:
    try:
        what_if = tell.table.what_if
    except InputError as error:
        tell.say("bad", why=f"{error.message}; {error.fix}")
        return tell.done()
    for step in what_if.smallest_steps()[:MOST]:
        size = tell.table.add(step.sigmas, "sigma", step.factor, "smallest change of the move that flips the verdict",
                              "tried in steps, all else unchanged")  # fmt: skip
        total = _total(tell, step.verdict, f"{step.factor} moved further")
        tell.say("step", factor=step.factor, size=size, total=total, changes=changes(what_if.base, step.verdict))
    turned = [one for one in what_if.otherwise() if what_if.base.flips(one.verdict)]
    for one in sorted(turned, key=lambda one: -(one.probability or 0.0))[:MOST]:
        total = _total(tell, one.verdict, f"{one.factor} read {one.would_be}")
        tell.say("read", factor=one.factor, would=one.would_be, was=one.was, total=total,
                 changes=changes(what_if.base, one.verdict))  # fmt: skip
    if not tell.lines:
        tell.say("none")
    return tell.done()


def hedge(tell: Teller) -> Answer:
    from finllm.sessions.hedge import HedgeQuestion, answer_hedge
    from finllm.sessions.inputs import FoundLimits

    report, request = tell.table.report, tell.table.request
    given = [f"{one.factor}={_written(one.move.value, one.move.unit)}" for one in report.shocks if not one.refused
             and one.origin != "completed"]  # fmt: skip
    if not given:
        tell.say("none")
        return tell.done(shocks="")
    asked = [one for factor in tell.slots.all("factor") if (one := _half(tell, factor))]
    question = HedgeQuestion(shocks=given, horizon=request.scenario.horizon, propagate=request.scenario.propagate,
                             loss=tell.slots.first("loss"), factors=asked)  # fmt: skip
    again = _hedge_command(given, request.as_of.isoformat(), request.scenario.horizon, question)
    try:
        answer = answer_hedge(tell.table.inputs, question, FoundLimits(request.limits, None, ()))
    except InputError as error:
        tell.say("bad", why=f"{error.message}; {error.fix}")
        return tell.done(again=again)
    result, unit = answer.result, money(report.currency)
    formula = "hedge of the run's shocks: the cheapest whole lots, the book revalued in full"
    period = tell.table.rows[report.total.evidence].period
    verdict = "kept" if result.reached else "not kept in full; these trades come nearest"
    tell.say("kept", chosen=answer.chosen, verdict=verdict)
    for one in result.trades:
        gain = tell.table.add(float(one.gain), unit, one.id, "gain in the scenario", formula, period)
        cost = tell.table.add(float(one.cost), unit, one.id, "market value of a round trip's cost", formula, period)
        lots = tell.table.add(float(abs(one.lots)), "count", one.id, "lots", formula, period)
        tell.say("trade", side="Buy" if one.lots > 0 else "Sell", lots=lots, gain=gain, cost=cost)
    after, before = (tell.table.add(float(value), unit, "book", f"P&L {how} the trades", formula, period)
                     for value, how in ((result.total_after, "with"), (result.total_before, "without")))  # fmt: skip
    tell.say("after", after=after, before=before)
    return tell.done(again=again)


def _half(tell: Teller, factor: str) -> str | None:
    part = tell.table.report.by_factor.get(factor)
    return f"{factor}={-part.value / 2:.0f}" if part is not None and part.value < 0 else None


def _hedge_command(given: Sequence[str], as_of: str, horizon: int, question: object) -> str:
    from finllm.sessions.hedge import HedgeQuestion

    assert isinstance(question, HedgeQuestion)
    loss = f" --loss {question.loss}" if question.loss else ""
    shocks = "".join(f" --shock {one}" for one in given)
    factors = "".join(f" --factor {one}" for one in question.factors)
    return f"finllm hedge --as-of {as_of} --horizon {horizon}{shocks}{loss}{factors}"


def _written(value: float, unit: Unit | MoveUnit) -> str:
    """A move as `--shock` takes it, to the last digit."""
    return f"{value * 100:+.10g}%" if unit == "return" else f"{value:+.10g}{_WRITTEN[unit]}"


def reverse(tell: Teller) -> Answer:
    from finllm.sessions.reverse import ReverseQuestion, answer_reverse

    report, request = tell.table.report, tell.table.request
    share = next((move.lstrip("+-") for move in tell.slots.all("move") if move.endswith("%")), None)
    loss = tell.slots.first("loss") or share
    if loss is None:
        tell.say("lacks", example="10 %")
        return tell.done(loss="10%")
    again = f"finllm reverse --loss {loss} --as-of {report.as_of} --horizon {request.scenario.horizon}"
    try:
        found = answer_reverse(
            tell.table.inputs, ReverseQuestion(loss, horizon=request.scenario.horizon, answers=2)
        ).result
    except InputError as error:
        tell.say("bad", why=f"{error.message}; {error.fix}")
        return tell.done(again=again)
    unit, formula = money(report.currency), "reverse stress test: the nearest shocks, revalued in full"
    period = tell.table.rows[report.total.evidence].period
    target = tell.table.add(float(found.target), unit, "book", "limit: the loss that is sought", "as asked for", period)
    tell.say("head", target=target)
    for one in found.answers:
        lost = tell.table.add(float(one.loss), unit, "book", "limit: a loss that was found", formula, period)
        distance = tell.table.add(one.distance, "sigma", "book", "distance of the shocks from no move", formula, period)
        tell.say("one", lost=lost, distance=distance)
        for move in one.moves:
            row = tell.table.add(move.move, move.unit, move.factor, f"shock that loses {one.loss:.0f}", formula, period)
            tell.say("move", factor=move.factor, move=row)
    return tell.done(again=again)


READERS = {"shocks": shocks, "plausibility": plausibility, "what_if_shock": what_if_shock,
           "what_if_without": what_if_without, "flip": flip, "hedge": hedge, "reverse": reverse}  # fmt: skip
