"""A run's files are put in place whole, or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finllm.errors import FinllmError
from finllm.graphs.report import Report
from finllm.memory.ledger import Ledger
from finllm.review.outputs import write_outputs

FILES = ["fan.png", "positions.png", "report.html", "report.json", "report.md", "trace.jsonl", "waterfall.png"]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with contextlib.closing(Ledger(tmp_path / "ledger.sqlite")) as made:
        yield made


def test_writes_report_markdown_and_trace(report: Report, ledger: Ledger, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    write_outputs(out, report, ledger, [{"kind": "run"}, {"kind": "end", "title": "σ\n"}])
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert Report.model_validate_json((out / "report.json").read_text(encoding="utf-8")) == report
    assert [json.loads(line)["kind"] for line in (out / "trace.jsonl").read_text("utf-8").splitlines()] == [
        "run",
        "end",
    ]
    assert "\x1b" not in (out / "report.md").read_text(encoding="utf-8")


def test_what_hides_or_steers_is_escaped_in_the_files_that_machines_read(
    report: Report, ledger: Ledger, tmp_path: Path
) -> None:
    hides = "a\u202eb\u2066c\x1b[2Jd\x7f\u200be\u2028f\U000e0041g σ"
    write_outputs(tmp_path, report.model_copy(update={"title": hides}), ledger, [{"kind": "run", "title": hides}])
    for name, key in (("report.json", "title"), ("trace.jsonl", "title")):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert not {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp")} - {"\n"}
        assert json.loads(text)[key] == hides


def test_a_failed_write_leaves_the_earlier_files_whole(
    report: Report, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_outputs(out, report, ledger, [{"kind": "first"}])
    before = {name: (out / name).read_bytes() for name in FILES}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FinllmError, match="No space left") as caught:
        write_outputs(out, report.model_copy(update={"title": "other"}), ledger, [{"kind": "second"}])
    assert f"finllm resume {report.run_id} --out" in caught.value.fix
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
