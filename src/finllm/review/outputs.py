"""A run's files: report.html, report.md and report.json, the charts, the trace, and the explanation if there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from finllm.files import write_files
from finllm.plain_text import clean_lines, json_text

if TYPE_CHECKING:
    from finllm.graphs.report import Report
    from finllm.memory.ledger import Ledger
    from finllm.review.drawing import Picture
    from finllm.review.drawn import DrawnBefore
    from finllm.review.explanation import Explanation


def write_outputs(
    folder: Path,
    report: Report,
    ledger: Ledger,
    trace: Iterable[Mapping[str, Any]],
    explanation: Explanation | None = None,
    drawn: DrawnBefore | None = None,
) -> str | None:
    """Write a run's files: trace, Markdown, HTML with its charts as PNG, and, last, report.json.

    Their digests are on record before they are written, so that a file which was changed since can be told.

    With an explanation its chapters are in the Markdown and the HTML, and all of it in explanation.json. Where
    report.json is, all are. Charts that are in `drawn` are not drawn again. Comes back with which charts were not drawn
    and why. Errors: as `write_files`.
    """
    from finllm.review.drawing import undrawn

    made = run_files(report, trace, explanation, drawn)
    record_files(ledger, report.run_id, folder, made.contents)
    fix = f"the run is recorded: free some space or choose another folder: 'finllm resume {report.run_id} --out DIR'"
    write_files(folder, made.contents, fix=fix)
    return undrawn(made.charts)


EVENT_FIELDS = ("event", "region", "stance", "severity", "horizon")
"""The order in which a page tells how the event was read."""


@dataclass(frozen=True)
class RunFiles:
    """A run's files by name, report.json the last, and its charts."""

    contents: dict[str, bytes]
    charts: tuple[Picture, ...]


def run_files(
    report: Report, trace: Iterable[Mapping[str, Any]], explanation: Explanation | None = None,
    drawn: DrawnBefore | None = None,
) -> RunFiles:  # fmt: skip
    """The files of a run, made from its report and trace alone: the same again from the record, byte for byte."""
    from finllm.graphs.report import to_markdown
    from finllm.review.drawing import draw
    from finllm.review.explanation import markdown_of
    from finllm.review.html import charted, page_files, report_html, run_charts

    report = in_order(report)
    if drawn is None:
        charts = draw(run_charts(report))
    else:
        *figures, points, level, currency = charted(report)
        shown = [*figures, [asdict(one) for one in points], level, currency]
        charts = drawn.pictures(shown, lambda: run_charts(report))
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
    return RunFiles(contents, charts)


def in_order(report: Report) -> Report:
    """The report with what it has by name in one stated order: the record keeps names in the order of the alphabet, and
    files made from it have to be those made as the run ended. Fields of the event, then factors, then the alphabet."""
    from finllm.graphs.report import Report
    from finllm.tools.data.factors import FACTOR_IDS

    first = {name: at for at, name in enumerate((*EVENT_FIELDS, *FACTOR_IDS))}

    def ordered(value: Any) -> Any:
        if isinstance(value, Mapping):
            named = cast("Mapping[str, Any]", value)
            names = sorted(named, key=lambda name: (first.get(name, len(first)), name))
            return {name: ordered(named[name]) for name in names}
        return [ordered(one) for one in cast("list[Any]", value)] if isinstance(value, list) else value

    return Report.model_validate(ordered(report.model_dump(mode="json")))


def record_files(ledger: Ledger, owner: str, folder: Path, contents: Mapping[str, bytes]) -> None:
    """Put on record that a run, or a batch, is about to write these files there: each one's sha256."""
    from finllm.guardrails.audit.records import FILES
    from finllm.scheduler.placement.task import key_of
    from finllm.scheduler.record import Entry

    about = {"run": owner, "folder": str(folder.resolve())}
    digests = {"files": {name: sha256(content).hexdigest() for name, content in contents.items()}}
    entry = Entry(key_of(FILES, about | digests), FILES, "finllm", about, digests)
    ledger.record(entry, run_id=owner, node="report")
