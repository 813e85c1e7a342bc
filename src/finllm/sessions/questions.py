"""What is asked of the version in hand: no question makes a version, and what is answered is in the minutes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finllm.errors import InputError
from finllm.plain_text import clean
from finllm.sessions.answers import Answer, Figures, beside, by_part, money
from finllm.sessions.grammar import Line, help_lines, misused
from finllm.tools.evidence import show

if TYPE_CHECKING:
    from finllm.desk.request import RunRequest
    from finllm.graphs.report import Report
    from finllm.sessions.hedge import HedgeAnswer
    from finllm.sessions.inputs import Inputs
    from finllm.sessions.session import Session
    from finllm.sessions.tree import Version

Said = tuple[list[str], dict[str, Any] | None, str | None]
"""The lines of an answer, its data, and the command that repeats it."""
KEPT = frozenset(("compare", "drives", "flip", "hedge", "reverse", "save", "review", "minutes"))
"""Questions whose answers are in the minutes."""
MOST = 200
"""Lines of an answer that are kept."""


def answer(session: Session, line: Line, started: float) -> Answer:
    """Answer a question. Errors: InputError and those of the tools that are asked."""
    said, data, command = _QUESTIONS[line.verb.name](session, line)
    version = session.version
    report = session.report_of(version)
    if line.verb.name in KEPT and session.reading is None:
        _note(session, line, said)
    figures = Figures.of(report) if report else None
    return Answer(line.verb.name, line.typed, version.id, version.run, time.monotonic() - started, figures,
                  said=tuple(said), command=command, data=data)  # fmt: skip


def _note(session: Session, line: Line, said: list[str]) -> None:
    from finllm.memory.sessions import AskedRow
    from finllm.sessions.tree import moment

    session.note(AskedRow(who=session.who, at=moment(), line=line.typed, verb=line.verb.name,
                          version=session.version.number, said=tuple(said[:MOST])))  # fmt: skip


def _help(session: Session, line: Line) -> Said:
    del session
    return help_lines(line.text), None, None


def _show(session: Session, line: Line) -> Said:
    del line
    version, report = session.version, _report(session, session.version)
    base = session.base(version)
    lines = [f"{version.id}{_named(session, version)}: {clean(report.title)}, as of {report.as_of}, {report.over}",
             *beside(Figures.of(report), *base), *(clean(one) for one in report.first)]  # fmt: skip
    return lines, None, session.command()


def _versions(session: Session, line: Line) -> Said:
    del line
    tree = session.tree
    lines: list[str] = []
    data: list[dict[str, Any]] = []
    for one in tree.versions.values():
        report = session.report_of(one)
        told = money(report.total.value, report.currency) if report else "not finished"
        here = "*" if one.number == tree.current else " "
        parent = f" of v{one.parent}" if one.parent else ""
        lines.append(f"{here} {one.id}{_named(session, one)}{parent}  {told}  {clean(one.line)[:100]}")
        data.append({"version": one.id, "parent": f"v{one.parent}" if one.parent else None, "run": one.run,
                     "line": one.line, "who": one.who, "why": one.why, "name": tree.names.get(one.number),
                     "total": report.total.value if report else None})  # fmt: skip
    return lines, {"versions": data, "current": session.version.id}, None


def _name(session: Session, line: Line) -> Said:
    from finllm.memory.sessions import NamedRow
    from finllm.sessions.tree import moment

    if len(line.words) < 2:
        raise misused(line.verb)
    version = session.tree.find(line.words[0])
    text = clean(line.text.partition(" ")[2])[:80]
    session.note(NamedRow(who=session.who, at=moment(), line=line.typed, version=version.number, text=text))
    return [f"{version.id} is called {text!r}"], None, None


def _compare(session: Session, line: Line) -> Said:
    from finllm.review.diff import diff_runs, told_change

    if len(line.words) not in (1, 2):
        raise misused(line.verb)
    first = session.tree.find(line.words[0])
    second = session.tree.find(line.words[1]) if len(line.words) == 2 else session.version
    one, other = Figures.of(_report(session, first)), Figures.of(_report(session, second))
    diff = diff_runs(first.run, second.run, session.desk.ledger)
    lines = [f"{first.id} against {second.id}", *beside(other, one, first.id)]
    was: Mapping[str, float] = one.by_position if one.currency == other.currency else {}
    named = [name for name in (*other.by_position, *was) if round(other.by_position.get(name, 0) - was.get(name, 0), 2)]
    moved = {name: other.by_position.get(name, 0.0) for name in named}
    before = {name: was.get(name, 0.0) for name in moved} if was else None
    positions = by_part(moved, before, other.currency, first.id)
    lines += ["by position:", *(f"  {row}" for row in positions[:12])] if positions else []
    for title, changes in (("what was changed", diff.inputs), ("judgements that changed", diff.judgements)):
        shown = [clean(told_change(change))[:160] for change in changes]
        lines += [f"{title}:", *(f"  {row}" for row in shown[:20]),
                  *([f"  and {len(shown) - 20} more"] if len(shown) > 20 else [])] if shown else []  # fmt: skip
    return lines, diff.to_json(), f"finllm diff {first.run} {second.run}"


def _drives(session: Session, line: Line) -> Said:
    from finllm.review.result_sentences import Teller, dissented, drove

    del line
    hand = session.hand()
    teller = Teller(hand.state)
    lines = [*drove(teller, hand.what_if(), hand.run.request.scenario.title), *dissented(teller)]
    return [clean(one) for one in lines], None, f"finllm explain {session.version.run}"


def _flip(session: Session, line: Line) -> Said:
    from finllm.review.result_sentences import Teller, by_reading, by_shock

    del line
    hand = session.hand()
    teller, what_if = Teller(hand.state), hand.what_if()
    steps = by_shock(teller, what_if) or ["No change of one shock that was tried flips anything."]
    return [clean(one) for one in (*by_reading(teller, what_if), *steps)], None, f"finllm explain {session.version.run}"


def _hedge(session: Session, line: Line) -> Said:
    from finllm.sessions.hedge import HedgeQuestion, answer_hedge
    from finllm.sessions.inputs import FoundLimits

    request, report = session.version.request, _report(session, session.version)
    scenario = request.scenario
    words = [word for word in line.words if word not in ("limit", "loss", "book")]
    amount = words[-1] if words and words[-1][0].isdigit() else None
    named = tuple(words) if words and amount is None else ()
    what_if = session.hand().what_if()
    question = HedgeQuestion(plan=what_if.applied, horizon=report.horizon, propagate=scenario.propagate, limits=named,
                             loss=amount, stressed=what_if.stressed, age=scenario.age)  # fmt: skip
    found = answer_hedge(inputs_of(session, request), question, FoundLimits(request.limits, None, ()))
    return _hedge_lines(found), found.to_json(), _again(session, line)


def _hedge_lines(found: HedgeAnswer) -> list[str]:
    result, code = found.result, found.result.currency
    verdict = "these keep the limits" if result.reached else "what could be checked is kept" if result.open else \
        "no trades of the list keep the limits; these come nearest"  # fmt: skip
    lines = [f"{found.chosen}: {verdict}" if result.trades or not result.reached else "the limits are kept as it is"]
    lines += [f"  {one.kind} of {clean(one.subject)}: {one.before:,.0f} → {one.after:,.0f}, at most "
              f"{one.limit:,.0f} {code}" for one in result.targets]  # fmt: skip
    lines += [f"  {'buy' if one.lots > 0 else 'sell'} {abs(one.lots):,} of {one.id}: notional {one.notional:,.0f}, "
              f"round trip {one.cost:,.0f}, calm month {one.calm_month:,.0f} {code}"
              for one in result.trades]  # fmt: skip
    return [*lines, f"P&L {money(float(result.total_before), code)} → {money(float(result.total_after), code)}"]


def _reverse(session: Session, line: Line) -> Said:
    from finllm.sessions.inputs import FoundLimits
    from finllm.sessions.reverse import ReverseQuestion, answer_reverse

    if len(line.words) != 1:
        raise misused(line.verb)
    request = session.version.request
    question = ReverseQuestion(loss=line.words[0], horizon=request.scenario.horizon, seed=request.seed,
                               age=bool(request.scenario.age))  # fmt: skip
    found = answer_reverse(inputs_of(session, request), question, FoundLimits(request.limits, None, ()))
    lines: list[str] = []
    for at, one in enumerate(found.result.answers):
        moves = ", ".join(f"{move.factor} {show(move.move, move.unit)}" for move in one.moves if move.move)
        lines.append(f"{at + 1}: {moves}: P&L {money(-float(one.loss), request.currency)}")
        if at < len(found.stories):
            lines.append(f"   {clean(found.stories[at].text)}")
    lines.append('to go on from one, type its moves: shock FACTOR MOVE because "…"')
    return lines, found.to_json(), _again(session, line)


def _again(session: Session, line: Line) -> str:
    """The command that asks the same of the version in hand: with its book, trades and edits, which no other has."""
    return f"echo {shlex.quote(' '.join((line.verb.name, *line.words)))} | finllm session {session.id} --script -"


def _evidence(session: Session, line: Line) -> Said:
    from finllm.review.opened import Opener
    from finllm.review.opened_lines import opened_text

    report, id = _report(session, session.version), line.words[0]
    if id not in {row.id for row in report.evidence}:
        raise InputError(f"{session.version.id} has no row {id}", fix=f"its rows are E1 to E{len(report.evidence)}; "
                         "'show' and 'drives' name those that matter")  # fmt: skip
    run = session.desk.ledger.run(session.version.run)
    assert run is not None
    opened = Opener(run, session.desk.ledger, session.desk.settings).open(id)
    return opened_text(opened), {"opened": opened.model_dump(mode="json")}, f"finllm trace {run.id} --evidence {id}"


def _save(session: Session, line: Line) -> Said:
    from finllm.sessions.saving import EMPTY, approved_as, saved

    if not line.text:
        raise misused(line.verb)
    path = Path(line.text).expanduser()
    command = saved(session, path)
    review = approved_as(session)
    return [
        f"{session.version.id} is written to {str(path)!r}; {f'approved by {review}' if review else EMPTY}"
    ], {"file": str(path)}, command  # fmt: skip


def _review(session: Session, line: Line) -> Said:
    from finllm.sessions.saving import put

    if not line.text:
        raise misused(line.verb)
    row = put(session, line.text)
    needs = "one signature" if row.needs == 1 else f"{row.needs} signatures: {'; '.join(row.grave)}"
    return [f"put to review: {row.id}, {session.version.id}, report sha256 {row.report_sha256[:12]}; you cannot review "
            "it yourself", f"it needs {needs}"], row.model_dump(mode="json", exclude={"minutes"}), None  # fmt: skip


def _minutes(session: Session, line: Line) -> Said:
    from finllm.files import write_file
    from finllm.sessions.minutes import minutes
    from finllm.sessions.saving import check_place

    path = Path(line.text).expanduser()
    if path.suffix.lower() not in (".md", ".html"):
        raise InputError("minutes are Markdown or HTML", fix="name a file that ends with .md or .html")
    check_place(path)
    content = minutes(session, "html" if path.suffix.lower() == ".html" else "md")
    write_file(path, content.encode(), fix="choose another file, or free some space")
    return [f"the minutes of {session.id} are in {str(path)!r}"], {"file": str(path)}, None


_QUESTIONS: dict[str, Callable[[Session, Line], Said]] = {
    "help": _help, "show": _show, "versions": _versions, "name": _name, "compare": _compare, "drives": _drives,
    "flip": _flip, "hedge": _hedge, "reverse": _reverse, "evidence": _evidence, "save": _save, "review": _review,
    "minutes": _minutes,
}  # fmt: skip


def inputs_of(session: Session, request: RunRequest) -> Inputs:
    """The version's book, market and factors, for the questions of the tools. Its trades are done already."""
    from finllm.sessions.inputs import Inputs
    from finllm.tools.pnl.asked import scenario_factors

    engine = session.hand().engine
    market = engine.view.market
    factors = scenario_factors(request.scenario, market, request.portfolio)
    return Inputs(request.portfolio, market, factors, request.as_of, request.thresholds, request.future,
                  request.currency, engine)  # fmt: skip


def _report(session: Session, version: Version) -> Report:
    report = session.report_of(version)
    if report is None:
        raise InputError(f"{version.id} has no result yet", fix=f"'goto {version.id}' goes on with it")
    return report


def _named(session: Session, version: Version) -> str:
    name = session.tree.names.get(version.number)
    return f" ({clean(name)})" if name else ""
