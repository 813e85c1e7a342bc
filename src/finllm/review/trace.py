"""The trace of a run, from the record alone: JSON lines for machines; a story as text, Markdown or HTML for people."""

from __future__ import annotations

import datetime as dt
from typing import Any

from finllm.desk.request import RunRequest
from finllm.errors import InputError
from finllm.graphs.report import Report
from finllm.guardrails.audit.records import FILES
from finllm.memory.reading import LedgerReader, RunRow
from finllm.memory.versions import newest_version
from finllm.review.explanation import explanation_on_record
from finllm.review.story import Story, as_html, as_markdown, as_text, shown
from finllm.review.trace_tables import tables_of


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
    explained = explanation_on_record(run_id, ledger)
    report = Report.model_validate(run.result) if run.result is not None else None
    version, holder = newest_version(run_id, ledger)
    newer = f" Version {version} of it is {holder}." if version > 1 else ""
    return Story(
        run_id=run.id,
        title=request.scenario.title,
        asked=f"Asked {_utc(run.created_ns)}, as of {request.as_of}; it is {run.status}.{newer}",
        verdict=_verdict(run, report),
        chapters=(*(one for one in tables_of(run, ledger) if one.name != "evidence"),
                  *(explained.chapters if explained else ())),
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


def _run(run_id: str, ledger: LedgerReader) -> RunRow:
    run = ledger.run(run_id)
    if run is None:
        raise InputError(f"no run {run_id!r}", fix="run 'finllm runs list' for those on record")
    return run


def _utc(nanoseconds: int) -> str:
    return dt.datetime.fromtimestamp(nanoseconds / 1e9, dt.UTC).isoformat(timespec="seconds")
