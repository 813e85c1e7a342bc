"""Files that commands leave: each put in place whole, or none of them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finllm.cli.display.terminal import clean_lines
from finllm.errors import FinllmError

if TYPE_CHECKING:
    from finllm.graphs.report import Report
    from finllm.review.explanation import Explanation


def write_outputs(
    folder: Path, report: Report, trace: Iterable[Mapping[str, Any]], explanation: Explanation | None = None
) -> None:
    """Write a run's files: trace, Markdown, HTML with its charts as PNG, and, last, report.json.

    With an explanation its chapters are in the Markdown and the HTML, and all of it in explanation.json. Where
    report.json is, all are. Errors: as `write_files`.
    """
    from finllm.graphs.report import to_markdown
    from finllm.review.explanation import markdown_of
    from finllm.review.html import page_files, report_html, run_charts

    charts = run_charts(report)
    added: list[str] = []
    extra: dict[str, bytes] = {}
    if explanation is not None:
        added = [f"\n# Why\n\n{markdown_of(explanation)}"]
        extra = {"explanation.json": (_dump(explanation.model_dump(mode="json"), indent=2) + "\n").encode()}
    contents = {
        **extra,
        "trace.jsonl": "".join(_dump(row) + "\n" for row in trace).encode(),
        "report.md": clean_lines(to_markdown(report) + "".join(added)).encode(),
        **page_files(report_html(report, charts, explanation), charts),
        "report.json": (_dump(report.model_dump(mode="json"), indent=2) + "\n").encode(),
    }
    fix = f"the run is recorded: free some space or choose another folder: 'finllm resume {report.run_id} --out DIR'"
    write_files(folder, contents, fix=fix)


def write_files(
    folder: Path, contents: Mapping[str, bytes], *, fix: str = "free some space or choose another folder with --out"
) -> None:
    """Put the files into the folder in their order, each in place whole; files of an earlier run stay whole.

    Errors: FinllmError with `fix` where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))  # inside, so that a replace is a rename
        try:
            for name, content in contents.items():
                for base in (partial, folder):
                    (base / name).parent.mkdir(exist_ok=True)
                _write_through(partial / name, content)
            for name in contents:
                os.replace(partial / name, folder / name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise FinllmError(f"cannot write the report into {str(folder)!r}: {error}", fix=fix) from error


def write_file(path: Path, content: bytes, *, fix: str) -> None:
    """Put one file in place whole. Errors: FinllmError with `fix` where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        partial = Path(name)
        try:
            _write_through(partial, content)
            partial.chmod(0o644)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise FinllmError(f"cannot write {str(path)!r}: {error}", fix=fix) from error


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _dump(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
