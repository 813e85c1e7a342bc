"""A run's files: report.json, report.md and trace.jsonl, each put in place whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finllm.cli.terminal import clean_lines
from finllm.errors import FinllmError

if TYPE_CHECKING:
    from finllm.graphs.report import Report


def write_outputs(folder: Path, report: Report, trace: Iterable[Mapping[str, Any]]) -> None:
    """Write the three files; report.json comes last, so that where it is, all are.

    Errors: FinllmError where the folder cannot be written; files of an earlier run stay whole.
    """
    from finllm.graphs.report import to_markdown

    contents = {
        "trace.jsonl": "".join(_dump(row) + "\n" for row in trace),
        "report.md": clean_lines(to_markdown(report)),
        "report.json": _dump(report.model_dump(mode="json"), indent=2) + "\n",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))  # inside, so that a replace is a rename
        try:
            for name, text in contents.items():
                _write_through(partial / name, text)
            for name in contents:
                os.replace(partial / name, folder / name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise FinllmError(
            f"cannot write the report into {str(folder)!r}: {error}; the run itself is recorded",
            fix=f"free some space or choose another folder: 'finllm resume {report.run_id} --out DIR'",
        ) from error


def _write_through(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _dump(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
