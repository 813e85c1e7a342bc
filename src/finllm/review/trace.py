"""The trace of a run, from the record alone: JSON lines for machines; a story as text, Markdown or HTML for people."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import JsonValue

from finllm.agents.narrative import NARRATIVE
from finllm.desk.request import RunRequest
from finllm.desk.spending import spent_of
from finllm.errors import InputError
from finllm.graphs.report import Figure, Report, of_its_value, where
from finllm.guardrails.audit.records import FILES
from finllm.memory.entries import Charge, Failure, PersonsAnswer, RecordedCall, RecordedPlacement
from finllm.memory.reading import LedgerReader, RunRow, Use
from finllm.memory.versions import newest_version
from finllm.review.explanation import explanation_on_record
from finllm.review.influence import NODE
from finllm.review.odds import begun_with, calibrated
from finllm.review.story import Chapter, Story, as_html, as_markdown, as_text, shown
from finllm.scheduler.decoding.filling import Choices


def trace_rows(run_id: str, ledger: LedgerReader) -> list[dict[str, Any]]:
    """The run's trace in order: its inputs, each placement, call and human answer, its evidence, and how it ended.

    Errors: InputError for an unknown run.
    """
    run = _run(run_id, ledger)
    request = RunRequest.model_validate(run.request)
    rows: list[dict[str, Any]] = [
        {"kind": "run", "run_id": run.id, "created": _utc(run.created_ns), "request": run.request}
    ]
    for use in ledger.uses(run_id):
        if use.entry.kind == FILES:  # trace.jsonl is one of them, and cannot hold its own digest
            continue
        rows.append(
            {
                "kind": use.entry.kind,
                "node": use.node,
                "key": use.key,
                "reused": use.reused,
                "actor": use.entry.actor,
                "request": use.entry.request,
                "response": use.entry.response,
            }
        )
    if run.result is not None:
        report = Report.model_validate(run.result)
        rows += [{"kind": "evidence", **row.model_dump(mode="json")} for row in report.evidence]
        rows.append({"kind": "report", **report.model_dump(mode="json", exclude={"evidence"})})
    rows.append({"kind": "end", "status": run.status, "title": request.scenario.title})
    return rows


def story_of(run_id: str, ledger: LedgerReader) -> Story:
    """The story of a run on record. Errors: InputError for an unknown run."""
    run = _run(run_id, ledger)
    request = RunRequest.model_validate(run.request)
    uses = [use for use in ledger.uses(run_id) if use.node != NODE]
    explained = explanation_on_record(run_id, ledger)
    report = Report.model_validate(run.result) if run.result is not None else None
    version, holder = newest_version(run_id, ledger)
    newer = f" Version {version} of it is {holder}." if version > 1 else ""
    return Story(
        run_id=run.id,
        title=request.scenario.title,
        asked=f"Asked {_utc(run.created_ns)}, as of {request.as_of}; it is {run.status}.{newer}",
        verdict=_verdict(run, report),
        chapters=(
            Chapter("What is claimed, and on which evidence", tuple(_claims(report)) if report else ()),
            Chapter("How each agent judged", tuple(_judgements(uses, report)), "no model was asked"),
            Chapter("Who dissented", tuple(d.words for d in (report.dissent if report else ())), "nobody"),
            Chapter("What was blocked, and why", tuple(_blocked(report)) if report else ()),
            Chapter("Where each call was placed, what was refused, and what it cost", tuple(_placements(uses))),
            *(explained.chapters if explained else ()),
        ),
        evidence=shown((*(report.evidence if report else ()), *(explained.evidence if explained else ()))),
        report=report,
    )  # fmt: skip


def trace_story(run_id: str, ledger: LedgerReader) -> str:
    """The story as plain text."""
    return as_text(story_of(run_id, ledger))


def trace_markdown(run_id: str, ledger: LedgerReader) -> str:
    """The story as Markdown; what sources wrote can open no link, image, table cell or tag of its own."""
    return as_markdown(story_of(run_id, ledger))


def trace_html(run_id: str, ledger: LedgerReader) -> str:
    """The story as one self-contained page: no script, nothing fetched, all text escaped."""
    return as_html(story_of(run_id, ledger))


def _verdict(run: RunRow, report: Report | None) -> tuple[str, ...]:
    if report is None:
        return (f"There is no verdict: the run is {run.status}.",)
    ruled = f"Compliance: {report.ruled}. Text and measurements: {report.verdict}."
    found = [f"Rule {one.rule}, {one.verdict}: {one.what}." for one in report.findings
             if one.verdict in ("flag", "block")]  # fmt: skip
    return (ruled, *report.summary, *found)


def _claims(report: Report) -> Iterator[str]:
    """Each claim of the report with the rows it stands on, and where those come from."""
    rows = {row.id: row for row in report.evidence}

    def on(figure: Figure) -> str:
        return (
            f"{figure} [{figure.evidence}], from {where(rows[figure.evidence])}"
            if figure.evidence in rows
            else str(figure)
        )

    yield f"the book moves by {on(report.total)}"
    if report.total_share:
        yield f"{of_its_value(report.gross_value)}, that is {on(report.total_share)}"
    if report.interval and report.interval_level:
        yield f"at {report.interval_level} [{report.interval_level.evidence}], no worse than {on(report.interval[0])}"
        yield f"and no better than {on(report.interval[1])}"
    if report.var_975_1d:
        yield f"before the event, the {report.var_name} was {on(report.var_975_1d)}"
    for line in report.channels or ():
        yield (f"channel {line.channel}, {line.state}: open {on(line.probability)}; it moves {line.moving}; read from "
               f"{line.read_from}")  # fmt: skip
    for check in report.factors:
        if check.support != "silent":
            yield (f"{check.factor} is read {check.read}: {check.support} (the sources' words say {check.words}, "
                   f"precedents {check.precedents})")  # fmt: skip
    if report.against is not None:
        yield from (f"text against the market: {line}" for line in (*report.against.lines, *report.against.untestable))
        yield from (f"{row.factor} since the close before {row.day}: {on(row.move)}, {on(row.surprise)}; {row.verdict}"
                    for row in report.against.tested if row.move and row.surprise)  # fmt: skip
    for row in report.shocks:
        applied = f"refused: {row.refused}" if row.refused else "applied"
        size = f", {row.sigma} [{row.sigma.evidence}]" if row.sigma else ""
        yield f"shock on {row.factor}: {on(row.move)}{size}; {row.origin}, over {row.window}; {applied}"
    for name, figure in sorted(report.by_factor.items(), key=lambda item: item[1].value):
        yield f"through {name}: {on(figure)}"
    if report.analogue:
        past = f"closest past event: {report.analogue.named}"
        yield past + (f"; the book would move by {on(report.analogue.total)}" if report.analogue.total else
                      f"; not replayed: {report.analogue.why_no_total}")  # fmt: skip
    yield from (f"limit breached: {line}" for line in report.breaches)
    yield from (f"limit {line}" for line in report.unchecked)


def _judgements(uses: Sequence[Use], report: Report | None) -> Iterator[str]:
    """Each judgement with the probability of every field's value and of the next likely one, calibrated as in the
    report; then what votes came to, and who abstained."""
    begun = begun_with(uses)
    for use in uses:
        if use.entry.kind == "human":
            yield f"{use.node}: a person answered {PersonsAnswer.of(use.entry).answer!r}"
        if use.entry.kind != "call" or not (call := RecordedCall.of(use.entry)).judges:
            continue
        yield (f"{use.node}: {call.agent} by {use.entry.actor} (prompt {call.prompt_version}, key {use.key[:12]})"
               + _counted(call)
               + (", answered from the ledger" if use.reused else ""))  # fmt: skip
        yield from (f"  {line}" for line in _fields(call, calibrated(call, begun)))
    yield from _voted(report)
    for agent in report.agents if report else ():
        yield from (f"{agent.agent}, {one.words}" for one in agent.escalations)
        if agent.status == "abstained":
            yield f"{agent.agent} abstained: {agent.reason}"


def _counted(call: RecordedCall) -> str:
    """That probabilities are shares of sampled answers, where the backend gave no log-probabilities."""
    return f", probabilities are shares of {call.votes} sampled answers" if call.votes else ""


def _voted(report: Report | None) -> Iterator[str]:
    """What stands where answers were put to the vote: the means of the calls above, which is what the report says."""
    if report is None:
        return
    voted = {one.agent for one in report.agents if any(why.votes for why in one.escalations)}
    yield from (f"{row.agent}, the mean of its votes: {row.said}" for row in report.judged if row.agent in voted)
    yield from (f"{row.agent}, with the channels that the event opens: {row.said}" for row in report.judged
                if row.agent == NARRATIVE.role and report.channels is not None)  # fmt: skip


def _fields(call: RecordedCall, choices: Choices) -> Iterator[str]:
    chosen: JsonValue = json.loads(call.text)
    for field, odds in choices.items():
        value = chosen
        for name in field.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        said = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
        ranked = sorted(odds.items(), key=lambda item: -item[1])
        others = [f"{name} {p:.0%}" for name, p in ranked if name != said][:1]
        yield f"{field}: {said} {max(odds.values(), default=1.0):.0%}" + (f" (next: {others[0]})" if others else "")


def _blocked(report: Report) -> Iterator[str]:
    yield from report.blocked
    yield from (
        f"shock or claim flagged by rule {one.rule}: {one.what}" for one in report.findings if one.verdict == "flag"
    )
    yield from report.exclusions


def _placements(uses: Sequence[Use]) -> Iterator[str]:
    """Each placement with what was refused, and what the call behind it cost."""
    placed: dict[str, str] = {}  # nodes that run side by side take turns in the record
    for use in uses:
        entry, waiting = use.entry, placed.get(use.node, use.node)
        if entry.kind == "placement":
            where_to = RecordedPlacement.of(entry)
            refused = where_to.refused_words
            chosen = f"{use.node}: {where_to.agent} placed on {where_to.chosen}"
            why = f", {where_to.why}" if where_to.why else ""
            placed[use.node] = chosen + why + (f" ({refused})" if refused else "")
        elif entry.kind == "call":
            call = RecordedCall.of(entry)
            tokens = f"{call.prompt_tokens} tokens in, {call.output_tokens} out"
            cost = (
                f"nothing, from the ledger ({tokens} when it was asked)"
                if use.reused
                else f"{call.seconds:.2f} s, {tokens}" + _beside(use)
            )
            yield f"{waiting}: {'its judgement' if call.judges else 'its prior'} cost {cost}"
        elif entry.kind == "charge":
            yield f"{waiting}: no answer ({Charge.of(entry).why}), which cost {spent_of(use).words}"
        elif entry.kind == "failure":
            yield f"{waiting}: nobody answered: {Failure.of(entry).message}"


def _beside(use: Use) -> str:
    """Joules, grams and dollars of a call with where they come from, where they are on record."""
    spent = spent_of(use)
    known = ((spent.joules, "J"), (spent.grams, "gCO₂e"), (spent.usd, "USD"))
    return "".join(f", {one.value:.3g} {unit} ({one.provenance})" for one, unit in known if one is not None)


def _run(run_id: str, ledger: LedgerReader) -> RunRow:
    run = ledger.run(run_id)
    if run is None:
        raise InputError(f"no run {run_id!r}", fix="run 'finllm runs list' for those on record")
    return run


def _utc(nanoseconds: int) -> str:
    return dt.datetime.fromtimestamp(nanoseconds / 1e9, dt.UTC).isoformat(timespec="seconds")
