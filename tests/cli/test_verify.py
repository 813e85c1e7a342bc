"""`finllm verify`: a report file is told to be as its run wrote it, changed in named numbers, or on no record."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest

from finllm.graphs.report import Report
from finllm.guardrails.audit import open_recorder
from finllm.memory.ledger import Ledger
from finllm.review.differing import changes
from finllm.review.outputs import write_outputs
from finllm.review.trace import trace_rows
from finllm.settings import Settings
from tests.cli.acted import Flow
from tests.cli.conftest import Cli
from tests.desks import request_for


@pytest.fixture
def out(report: Report, home: Path, tmp_path: Path) -> Path:
    """The files of a run whose report was made by hand, on record in the home; what it has by name is in no order."""
    names = {"stance": "hawkish", "event": "blockade", "severity": "high"}
    report = report.model_copy(update={"event": names, "event_probability": dict.fromkeys(names, 0.5),
                                       "by_position": dict(reversed(report.by_position.items()))})  # fmt: skip
    with contextlib.closing(open_recorder(Settings(home=home))) as ledger:
        assert isinstance(ledger, Ledger)
        ledger.start_run(report.run_id, request_for("hormuz-blockade").model_dump(mode="json"))
        ledger.end_run(report.run_id, "finished", report.model_dump(mode="json"))
        write_outputs(tmp_path / "out", report, ledger, trace_rows(report.run_id, ledger))
    return tmp_path / "out"


def test_files_as_their_run_wrote_them_are_intact_wherever_they_are(cli: Cli, out: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "Q3 to the board.html"
    shutil.copy(out / "report.html", elsewhere)
    shown = cli("verify", out, elsewhere, "--json")
    assert shown.code == 0
    assert shown.json["status"] == "intact"
    assert {one["status"] for one in shown.json["files"]} == {"intact"}
    assert len(shown.json["files"]) == 8
    assert shown.json["files"][-1]["seems"] == "report.html"


@pytest.mark.parametrize("name", ["report.json", "report.html", "report.md", "trace.jsonl"])
def test_a_changed_number_is_named_with_what_the_record_has(name: str, cli: Cli, out: Path, tmp_path: Path) -> None:
    copy = tmp_path / f"mine.{name.partition('.')[2]}"
    text = (out / name).read_text("utf-8")
    old, new = ("-78000.0", "-8000.0") if name.endswith(("json", "jsonl")) else ("78,000", "8,000")
    assert old in text
    copy.write_text(text.replace(old, new, 1), "utf-8")
    shown = cli("verify", copy, "--json")
    (one,) = shown.json["files"]
    assert (shown.code, one["status"], one["seems"]) == (1, "changed", name)
    (change,) = one["differing"]
    assert new.lstrip("-") in change["says"]
    assert old.lstrip("-") in change["record"]
    assert "CHANGED" in cli("verify", copy).out
    assert one["notes"] == []  # what the record gives is, byte for byte, what the run wrote


def test_a_picture_and_a_file_changed_in_place_are_changed(cli: Cli, out: Path) -> None:
    (out / "waterfall.png").write_bytes(b"\x89PNG another picture")
    (out / "report.json").write_bytes(b"{}")
    shown = cli("verify", out, "--json")
    found = {Path(one["file"]).name: one["status"] for one in shown.json["files"]}
    assert shown.code == 1
    assert {name for name, status in found.items() if status == "changed"} == {"waterfall.png", "report.json"}


def test_a_file_of_no_run_is_unknown_and_says_so(cli: Cli, out: Path, tmp_path: Path) -> None:
    stray = tmp_path / "stray.html"
    stray.write_text("<!doctype html><p>the book gains 5,000 USD", "utf-8")
    shown = cli("verify", out / "report.json", stray, "--json")
    assert [one["status"] for one in shown.json["files"]] == ["intact", "unknown"]
    assert (shown.code, shown.json["status"]) == (4, "unknown")
    assert cli("verify", stray).code == 4


def test_the_summary_of_a_batch_is_on_record_too(acted: Flow, cli: Cli, tmp_path: Path) -> None:
    night, junit = tmp_path / "night.csv", tmp_path / "junit.xml"
    assert cli("run", "hormuz-blockade", "ceasefire", "--summary", night, "--junit", junit, "--quiet").code == 0
    assert cli("verify", night, junit).code == 0
    night.write_text(night.read_text("utf-8").replace("78000.0", "8000.0"), "utf-8")
    shown = cli("verify", night, "--json")
    assert (shown.code, shown.json["files"][0]["seems"]) == (1, "night.csv")


def test_a_chart_and_a_map_of_a_batch_are_known_under_another_name(
    acted: Flow, cli: Cli, out: Path, tmp_path: Path
) -> None:
    heat, copies = tmp_path / "heat.html", tmp_path / "copies"
    copies.mkdir()
    shown = cli("run", "hormuz-blockade", "ceasefire", "--heatmap", heat, "--heatmap", tmp_path / "heat.png", "--quiet")
    assert shown.code == 0
    for name, copy in (("heat.html", "for the board.html"), ("heat.png", "picture 1.png")):
        shutil.copy(tmp_path / name, copies / copy)
    shutil.copy(out / "waterfall.png", copies / "picture 2.png")
    found = cli("verify", copies, "--json").json["files"]
    assert {(Path(one["file"]).name, one["status"], one["seems"]) for one in found} == {
        ("for the board.html", "intact", "heat.html"), ("picture 1.png", "intact", "heat.png"),
        ("picture 2.png", "intact", "waterfall.png"),
    }  # fmt: skip
    board = copies / "for the board.html"
    board.write_text(board.read_text("utf-8").replace("Scenario by book", "Scenarios by book"), "utf-8")
    (one,) = cli("verify", board, "--json").json["files"]
    assert (one["status"], one["seems"]) == ("changed", "heat.html")


def test_a_damaged_log_proves_no_file(cli: Cli, out: Path, home: Path) -> None:
    segment = next(path for path in sorted((home / "audit" / "segments").rglob("*")) if path.is_file())
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    shown = cli("verify", out / "report.json", "--json")
    assert (shown.code, shown.json["status"], shown.json["files"]) == (1, "damaged", [])


def test_what_cannot_be_read_is_bad_input(cli: Cli, out: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert cli("verify", tmp_path / "nowhere.html").code == 2
    assert cli("verify", tmp_path / "empty").code == 2


def test_only_what_differs_is_named() -> None:
    mine = {"total": {"value": 1.0}, "by": [{"id": "E7", "value": 3}, {"id": "E8", "value": 5}]}
    theirs = json.loads(json.dumps(mine))
    theirs["by"][1]["value"], theirs["note"] = 6, "new"
    found = changes("report.json", json.dumps(mine).encode(), json.dumps(theirs).encode())
    assert [(one.where, one.says, one.record) for one in found] == [
        ("by[1] (E8).value", "5", "6"), ("note", None, '"new"')]  # fmt: skip
    page = b"<title>1</title><table><td>AAPL</td><td>-378,248</td></table>"
    (only,) = changes("report.html", page.replace(b"-378,248", b"-78,248"), page)
    assert (only.where, only.says, only.record) == ("after 'AAPL'", "-78,248", "-378,248")
