"""The trace of a run, from the record alone: JSON lines for machines, a story for people."""

from __future__ import annotations

import datetime as dt
from typing import Any

from finllm.errors import InputError
from finllm.graphs.report import Report, where
from finllm.graphs.request import RunRequest
from finllm.memory.ledger import Ledger, RunRow, Use
from finllm.tools.evidence import show


def trace_rows(run_id: str, ledger: Ledger) -> list[dict[str, Any]]:
    """The run's trace in order: its inputs, each placement, call and human answer, its evidence, and how it ended.

    Errors: InputError for an unknown run.
    """
    run = _run(run_id, ledger)
    request = RunRequest.model_validate(run.request)
    rows: list[dict[str, Any]] = [
        {"kind": "run", "run_id": run.id, "created": _utc(run.created_ns), "request": run.request}
    ]
    for use in ledger.uses(run_id):
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


def trace_story(run_id: str, ledger: Ledger) -> str:
    """The run as a story: the verdict first, then who was asked what and answered how, then every evidence row."""
    run = _run(run_id, ledger)
    request = RunRequest.model_validate(run.request)
    lines = [
        f"Run {run.id} — {request.scenario.title}",
        f"Asked {_utc(run.created_ns)}, as of {request.as_of}; it is {run.status}.",
        "",
    ]
    report = Report.model_validate(run.result) if run.result is not None else None
    if report is not None:
        lines += [*report.summary, f"Text and measurements: {report.verdict}. Compliance: {report.compliance}.", ""]
    lines += ["What was asked, in order"]
    for use in ledger.uses(run_id):
        lines += _told(use)
    if report is not None:
        lines += ["", "Who dissented"]
        lines += [f"  {d.who} on {d.about}: {d.said}, instead of {d.instead_of}" for d in report.dissent] or [
            "  nobody"
        ]
        lines += ["", "What was blocked", *([f"  {line}" for line in report.blocked] or ["  nothing"])]
        lines += ["", "P&L"]
        lines += [f"  {name}: {figure} [{figure.evidence}]" for name, figure in report.by_factor.items()]
        lines += [f"  total: {report.total} [{report.total.evidence}]", "", "Evidence"]
        lines += [
            f"  {e.id}: {show(e.value, e.unit)} — {e.what}, {e.entity}, {e.period}; from {where(e)}"
            for e in report.evidence
        ]
    return "\n".join(lines) + "\n"


def _told(use: Use) -> list[str]:
    entry = use.entry
    if entry.kind == "placement":
        refused = "; ".join(f"{name} refused: {why}" for name, why in sorted(entry.response["refused"].items()))
        return [
            f"  {use.node}: {entry.request['agent']} placed on {entry.response['chosen']}"
            + (f" ({refused})" if refused else "")
        ]
    if entry.kind == "human":
        return [f"  {use.node}: a person answered {entry.response['answer']!r}"]
    again = ", from the ledger" if use.reused else f", {entry.response['seconds']:.2f} s"
    purpose = "prior of" if entry.request["priors"] is None else "judgement of"
    return [
        f"  {use.node}: {purpose} {entry.request['agent']} by {entry.actor} (prompt "
        f"{entry.request['prompt_version']}, key {use.key[:12]}{again})",
        f"    {entry.response['text']}",
    ]


def _run(run_id: str, ledger: Ledger) -> RunRow:
    run = ledger.run(run_id)
    if run is None:
        raise InputError(f"no run {run_id!r}", fix="run 'finllm runs list' for those on record")
    return run


def _utc(nanoseconds: int) -> str:
    return dt.datetime.fromtimestamp(nanoseconds / 1e9, dt.UTC).isoformat(timespec="seconds")
