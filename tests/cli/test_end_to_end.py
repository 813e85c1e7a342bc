"""The installed command on the real model, in child processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LONGEST_RUN

pytestmark = pytest.mark.slow


class Installed:
    """The command with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("FINLLM_")}
        self._environ |= {"FINLLM_HOME": str(home), "FINLLM_THREADS": "1"}

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "finllm.cli.main", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=LONGEST_RUN,
                              check=False, env=self._environ)  # fmt: skip


@pytest.fixture(scope="module")
def finllm(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def done(finllm: Installed) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One real run, shared by the tests of this file."""
    out = finllm.home / "out"
    child = finllm("run", "hormuz-blockade", "--out", out, "--json")
    assert child.returncode == 0, child.stdout + child.stderr
    return child, out


def test_run_prints_one_object_and_nothing_but_events_beside_it(done: Any) -> None:
    child, out = done
    report = json.loads(child.stdout)
    assert report == json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert {row["factor"] for row in report["shocks"] if row["origin"] == "user"} == {"OIL_WTI"}
    kinds = [json.loads(line)["kind"] for line in child.stderr.splitlines()]
    assert kinds.count("run_started") == 1
    assert {"node_started", "node_finished", "placed", "call_started", "call_finished", "run_finished"} <= set(kinds)


def test_every_figure_of_the_report_has_its_evidence_row(done: Any) -> None:
    report = json.loads(done[0].stdout)
    rows = {row["id"]: row["value"] for row in report["evidence"]}
    figures = [report["total"], report["total_share"], report["book_value"], *report["by_position"].values(),
               *report["by_factor"].values(), *(row["move"] for row in report["shocks"])]  # fmt: skip
    assert [figure["value"] for figure in figures] == [rows[figure["evidence"]] for figure in figures]


def test_the_run_is_listed_traced_and_given_again(finllm: Installed, done: Any) -> None:
    report = json.loads(done[0].stdout)
    run_id = report["run_id"]
    listed = json.loads(finllm("runs", "list", "--json").stdout)["runs"]
    assert [(row["id"], row["title"], row["status"]) for row in listed] == [(run_id, report["title"], report["status"])]

    story = finllm("trace", run_id).stdout
    assert re.findall(r"^  (E\d+) ", story, re.MULTILINE) == [row["id"] for row in report["evidence"]]
    rows = json.loads(finllm("trace", run_id, "--json").stdout)["rows"]
    assert rows == [json.loads(line) for line in (done[1] / "trace.jsonl").read_text("utf-8").splitlines()]

    again = finllm("resume", run_id, "--json")
    assert json.loads(again.stdout) == report
    assert "call_started" not in again.stderr


def test_the_run_is_replayed_with_the_adapter_s_calibration_from_its_record(finllm: Installed, done: Any) -> None:
    report = json.loads(done[0].stdout)
    replayed = finllm("replay", report["run_id"], "--json")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    found = json.loads(replayed.stdout)
    assert (found["at"], found["matches_record"]) == ("report", True)
    assert found["state"]["report"]["run_id"] == report["run_id"]


def test_read_judges_every_factor(finllm: Installed, done: Any) -> None:
    del done
    said = finllm("read", "Mines close the Strait of Hormuz to tankers for a month", "--json")
    reading = json.loads(said.stdout)
    assert reading["status"] == "judged"
    assert len(reading["factors"]) == 7
    assert all(call["direction"] in ("up", "down", "none") for call in reading["factors"].values())
    assert 0 < reading["event"]["probability"] <= 1
    assert len(reading["calls"]) >= 1
