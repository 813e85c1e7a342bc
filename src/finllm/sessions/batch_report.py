# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyarrow comes without types.
"""What came of a batch: a row per run, written as JSON, CSV, Parquet and JUnit XML."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from finllm.files import write_file
from finllm.plain_text import clean, clean_lines
from finllm.sessions.failing import against_report

if TYPE_CHECKING:
    from finllm.errors import FinllmError
    from finllm.graphs.report import Figure, Report
    from finllm.review.heatmap import HeatCell
    from finllm.sessions.batch import Ended


@dataclass(frozen=True)
class BatchRow:
    """A run of a batch, on the portfolio named `book`. Money in `currency`, shares as decimals.

    `status`: finished, blocked or failed (no report).

    `total_share`: of `gross_value`, which is what the holdings count for, unsigned. `covered`, `stand_in`, `missing`:
    shares of the book, which `coverage` says in words; `complete`: 1 or 0; `unchecked`: limits that could not be
    checked. `failed_on`: what made it fail under --fail-on, by commas. Of a failed run only the first six, `seconds`,
    `book` and the three of the error are there. `seconds`: wall-clock in the process that ended it.
    """

    run_id: str
    scenario: str
    title: str
    as_of: str
    horizon: int
    status: str
    failed_on: str | None = None
    compliance: str | None = None
    verdict: str | None = None
    book_value: float | None = None
    gross_value: float | None = None
    total: float | None = None
    total_share: float | None = None
    interval_low: float | None = None
    interval_high: float | None = None
    var_975_1d: float | None = None
    covered: float | None = None
    stand_in: float | None = None
    missing: float | None = None
    complete: int | None = None
    coverage: str | None = None
    breaches: int | None = None
    breached: str | None = None
    unchecked: str | None = None
    abstained: int | None = None
    folder: str | None = None
    seconds: float = 0.0
    currency: str | None = None
    error_kind: str | None = None
    error_message: str | None = None
    error_fix: str | None = None
    book: str | None = None


@dataclass(frozen=True)
class BatchReport:
    """All rows, in the order in which the scenarios were given."""

    id: str
    rows: tuple[BatchRow, ...]

    @property
    def exit_code(self) -> int:
        """1 where a run has no report, else 3 where one fails under --fail-on, else 0."""
        if any(row.status == "failed" for row in self.rows):
            return 1
        return 3 if any(row.failed_on for row in self.rows) else 0

    def counts(self) -> dict[str, int]:
        found = Counter(row.status for row in self.rows)
        return {name: found[name] for name in ("finished", "blocked", "failed")}

    @property
    def headline(self) -> str:
        """What a reader must know first: how many of the results are not about the whole book, and the worst gap."""
        measured = [row for row in self.rows if row.covered is not None]
        short = [row for row in measured if not row.complete]
        if short:
            worst = min(short, key=lambda row: row.covered or 0.0)
            return f"{len(short)} of {len(self.rows)} results are incomplete; {worst.scenario}: {worst.coverage}"
        least = min(measured, key=lambda row: row.covered or 0.0, default=None)
        return f"in every result {least.coverage}" if least else "no result says how much of the book it is about"

    def to_json(self) -> dict[str, Any]:
        rows = [_json_row(row) for row in self.rows]
        return {"batch": self.id, "headline": self.headline, "counts": self.counts(), "runs": rows}


def row_of(ended: Ended, error: FinllmError | None, folder: Path, fail_on: Sequence[str]) -> BatchRow:
    """The row of a run that ended with a report, or with an error. `fail_on`: see `Against`."""
    member = ended.member
    request = member.request
    about = (member.run_id, member.name, request.scenario.title, request.as_of.isoformat(), request.scenario.horizon)
    seconds = round(ended.seconds, 2)
    if error is not None or ended.outcome is None or ended.outcome.report is None:
        said = error.to_json()["error"] if error is not None else {}
        return BatchRow(*about, "failed", seconds=seconds, error_kind=said.get("kind"),
                        error_message=said.get("message"), error_fix=said.get("fix"),
                        book=request.portfolio.name)  # fmt: skip
    report = ended.outcome.report
    low, high = report.interval or (None, None)
    return BatchRow(
        *about, report.status, failed_on=_failed_on(report, fail_on), compliance=report.compliance,
        verdict=report.verdict, book_value=report.book_value.value,
        gross_value=(report.gross_value or report.book_value).value, total=report.total.value,
        total_share=_value(report.total_share), interval_low=_value(low), interval_high=_value(high),
        var_975_1d=_value(report.var_975_1d), **_coverage(report), breaches=len(report.breaches),
        breached="; ".join(report.breaches) or None, unchecked="; ".join(report.unchecked) or None,
        abstained=sum(agent.status == "abstained" for agent in report.agents), folder=str(folder), seconds=seconds,
        currency=report.currency, book=request.portfolio.name,
    )  # fmt: skip


def _failed_on(report: Report, fail_on: Sequence[str]) -> str | None:
    return ",".join(against_report(report).failed_on(fail_on)) or None


def _coverage(report: Report) -> dict[str, Any]:
    if (one := report.coverage) is None:
        return {}
    return {"covered": one.covered, "stand_in": one.stand_in, "missing": one.missing, "complete": int(one.complete),
            "coverage": one.headline}  # fmt: skip


def _value(figure: Figure | None) -> float | None:
    return None if figure is None else figure.value


def write_summaries(
    report: BatchReport, junit: Path | None, summaries: Sequence[Path], heatmaps: Sequence[Path] = ()
) -> None:
    """Write the files that were asked for, each in place whole. Errors: FinllmError where one cannot be written."""
    fix = f"the runs are recorded: mend that, then 'finllm resume {report.id}' with the same options"
    for path, content in summary_files(report, junit, summaries, heatmaps).items():
        write_file(path, content, fix=fix)


def summary_files(
    report: BatchReport, junit: Path | None, summaries: Sequence[Path], heatmaps: Sequence[Path] = ()
) -> dict[Path, bytes]:
    """The files of a batch, the same bytes for the same report. Errors: FinllmError for a map that cannot be drawn."""
    found = {} if junit is None else {junit: junit_xml(report)}
    found |= {path: _SUMMARY[path.suffix.lower()](report) for path in summaries}
    return found | {path: heat_file(report, path.suffix.lower()) for path in heatmaps}


def heat_cells(report: BatchReport) -> tuple[HeatCell, ...]:
    """The runs as cells of a map, by scenario and book."""
    from finllm.review.heatmap import HeatCell

    return tuple(
        HeatCell(row.scenario.removesuffix(on(row.book)), row.book or "book", row.total_share, row.total,
                 row.currency or "USD", row.breaches or 0, row.complete == 0, row.run_id, row.error_message or "")
        for row in report.rows
    )  # fmt: skip


def on(book: str | None) -> str:
    """What stands behind the name of a scenario in a batch of several books."""
    return f" on {book}"


@cache
def heat_file(report: BatchReport, form: str) -> bytes:
    """The map as .html, .png or .parquet. Errors: FinllmError where a picture is all there is, and it is not drawn."""
    from finllm.errors import FinllmError
    from finllm.review.heatmap import heat_page, heat_picture
    from finllm.tools.export import Table, table_files

    cells = heat_cells(report)
    if form == ".parquet":
        rows = tuple(tuple(asdict(one).values()) for one in cells)
        names = ("scenario", "book", "share", "total", "currency", "breaches", "incomplete", "run", "why")
        return table_files([Table("heatmap", names, rows)], ("parquet",), "")["heatmap.parquet"]
    picture = heat_picture(cells)
    if form == ".png":
        if picture.why is not None:
            raise FinllmError(f"the map is not drawn: {picture.why}", fix="ask for --heatmap FILE.html or .parquet")
        return picture.png
    return heat_page(cells, picture, report.id, report.headline).encode()


def junit_xml(report: BatchReport) -> bytes:
    """JUnit XML: a test case per scenario; what --fail-on asks for is a failure, a run without a report an error."""
    failures = sum(bool(row.failed_on) for row in report.rows)
    errors = report.counts()["failed"]
    totals = {"tests": str(len(report.rows)), "failures": str(failures), "errors": str(errors), "skipped": "0",
              "time": f"{sum(row.seconds for row in report.rows):.2f}"}  # fmt: skip
    root = ElementTree.Element("testsuites", {"name": "finllm", **totals})
    suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(report.id), **totals})
    for row in report.rows:
        about = {"classname": "finllm.run", "name": _xml(row.scenario), "time": f"{row.seconds:.2f}"}
        case = ElementTree.SubElement(suite, "testcase", about)
        if row.error_kind is not None:
            said = {"type": row.error_kind, "message": _xml(row.error_message or "")}
            ElementTree.SubElement(case, "error", said).text = _xml(f"fix: {row.error_fix}")
        elif row.failed_on is not None:
            why = "; ".join(filter(None, [row.breached, row.unchecked, None if row.complete else row.coverage]))
            why = why or "compliance blocks the report"
            said = {"type": row.failed_on, "message": _xml(why)}
            ElementTree.SubElement(case, "failure", said).text = _xml(f"see {row.folder}/report.html")
        ElementTree.SubElement(case, "system-out").text = _xml(json.dumps(_json_row(row), ensure_ascii=False))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _xml(text: str) -> str:
    """Text that XML 1.0 may hold."""
    return _NOT_XML.sub("", clean_lines(text))


def _json_row(row: BatchRow) -> dict[str, Any]:
    """A row with its error as the one object that `--json` prints everywhere."""
    plain = {name: value for name, value in asdict(row).items() if not name.startswith("error_")}
    error = {"kind": row.error_kind, "message": row.error_message, "fix": row.error_fix}
    return {**plain, "error": error if row.error_kind is not None else None}


def _json(report: BatchReport) -> bytes:
    return (json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n").encode()


def _csv(report: BatchReport) -> bytes:
    from finllm.tools.export import Table, table_files

    rows = tuple((report.id, *(_flat(value) for value in asdict(row).values())) for row in report.rows)
    return table_files([Table("runs", ("batch", *_NAMES), rows)], ("csv",), "")["runs.csv"]


def _parquet(report: BatchReport) -> bytes:
    """The same columns with the same types every night, whatever is empty."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    of = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
    kinds = [(field.name, of[str(field.type).removesuffix(" | None")]) for field in fields(BatchRow)]
    schema = pa.schema([("batch", pa.string()), *kinds])
    found = pa.Table.from_pylist([{"batch": report.id, **asdict(row)} for row in report.rows], schema=schema)
    out = io.BytesIO()
    pq.write_table(found, out)
    return out.getvalue()


def _flat(value: Any) -> Any:
    return clean(value) if isinstance(value, str) else value


_NAMES = tuple(field.name for field in fields(BatchRow))
_SUMMARY = {".json": _json, ".csv": _csv, ".parquet": _parquet}
