"""A run's files are put in place whole, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from finllm.errors import FinllmError
from finllm.graphs.report import Report
from finllm.review.outputs import write_outputs

FILES = ["fan.png", "positions.png", "report.html", "report.json", "report.md", "trace.jsonl", "waterfall.png"]


def test_writes_report_markdown_and_trace(report: Report, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    write_outputs(out, report, [{"kind": "run"}, {"kind": "end", "title": "σ\n"}])
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert Report.model_validate_json((out / "report.json").read_text(encoding="utf-8")) == report
    assert [json.loads(line)["kind"] for line in (out / "trace.jsonl").read_text("utf-8").splitlines()] == [
        "run",
        "end",
    ]
    assert "\x1b" not in (out / "report.md").read_text(encoding="utf-8")


def test_a_failed_write_leaves_the_earlier_files_whole(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_outputs(tmp_path, report, [{"kind": "first"}])
    before = {name: (tmp_path / name).read_bytes() for name in FILES}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FinllmError, match="No space left") as caught:
        write_outputs(tmp_path, report.model_copy(update={"title": "other"}), [{"kind": "second"}])
    assert f"finllm resume {report.run_id} --out" in caught.value.fix
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
