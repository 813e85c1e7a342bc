"""A run's files: report.html, report.md and report.json, the charts, the trace, and the explanation if there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finllm.files import write_files
from finllm.plain_text import clean_lines, json_text

if TYPE_CHECKING:
    from finllm.graphs.report import Report
    from finllm.memory.ledger import Ledger
    from finllm.review.explanation import Explanation


def write_outputs(
    folder: Path,
    report: Report,
    ledger: Ledger,
    trace: Iterable[Mapping[str, Any]],
    explanation: Explanation | None = None,
) -> str | None:
    """Write a run's files: trace, Markdown, HTML with its charts as PNG, and, last, report.json.

    Their digests are on record before they are written, so that a file which was changed since can be told.

    With an explanation its chapters are in the Markdown and the HTML, and all of it in explanation.json. Where
    report.json is, all are. Comes back with which charts were not drawn and why. Errors: as `write_files`.
    """
    from finllm.graphs.report import to_markdown
    from finllm.guardrails.audit.records import FILES
    from finllm.review.drawing import draw, undrawn
    from finllm.review.explanation import markdown_of
    from finllm.review.html import page_files, report_html, run_charts
    from finllm.scheduler.placement.task import key_of
    from finllm.scheduler.record import Entry

    charts = draw(run_charts(report))
    added: list[str] = []
    extra: dict[str, bytes] = {}
    if explanation is not None:
        added = [f"\n# Why\n\n{markdown_of(explanation)}"]
        extra = {"explanation.json": (json_text(explanation.model_dump(mode="json"), indent=2) + "\n").encode()}
    contents = {
        **extra,
        "trace.jsonl": "".join(json_text(row) + "\n" for row in trace).encode(),
        "report.md": clean_lines(to_markdown(report) + "".join(added)).encode(),
        **page_files(report_html(report, charts, explanation), charts),
        "report.json": (json_text(report.model_dump(mode="json"), indent=2) + "\n").encode(),
    }
    about = {"run": report.run_id, "folder": str(folder.resolve())}
    digests = {"files": {name: sha256(content).hexdigest() for name, content in contents.items()}}
    entry = Entry(key_of(FILES, about | digests), FILES, "finllm", about, digests)
    ledger.record(entry, run_id=report.run_id, node="report")
    fix = f"the run is recorded: free some space or choose another folder: 'finllm resume {report.run_id} --out DIR'"
    write_files(folder, contents, fix=fix)
    return undrawn(charts)
