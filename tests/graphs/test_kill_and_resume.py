"""A run killed with SIGKILL at any node is resumed to the same judgements, and no recorded call is repeated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finllm.graphs.flow import NODES
from finllm.memory.ledger import Ledger

FINLLM = str(Path(sys.executable).with_name("finllm"))
SCENARIO = "hormuz-blockade"
LONGEST = 240


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([FINLLM, *arguments, "--json"], env={**os.environ, "FINLLM_HOME": str(home)},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def finish(home: Path, *arguments: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The report on stdout and the events on stderr of a command that must succeed."""
    with start(home, *arguments) as process:
        out, err = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, err[-2000:]
    return json.loads(out), [json.loads(line) for line in err.splitlines() if line.startswith("{")]


def kill_at(home: Path, node: str) -> tuple[str, list[dict[str, Any]]] | None:
    """Run until `node` starts and kill it there; the run's id and the events seen. None if the run never got there."""
    events: list[dict[str, Any]] = []
    with start(home, "run", SCENARIO) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if not line.startswith("{"):
                continue
            events.append(json.loads(line))
            if events[-1] == {"kind": "node_started", "node": node}:
                process.send_signal(signal.SIGKILL)
                break
        process.stderr.read()
    run_id = next(event["run_id"] for event in events if event["kind"] == "run_started")
    return (run_id, events) if process.returncode == -signal.SIGKILL else None


def judgements(report: dict[str, Any]) -> Any:
    return {key: report[key] for key in ("event", "event_probability", "factors", "agents", "total", "shocks", "verdict",
                                         "dissent", "findings")}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    report, _events = finish(tmp_path_factory.mktemp("whole"), "run", SCENARIO)
    return report


@pytest.mark.slow
@pytest.mark.parametrize("node", [name for name in NODES if name != "human"])
def test_a_run_killed_at_a_node_resumes_to_the_same_judgements(
    node: str, whole: dict[str, Any], tmp_path: Path
) -> None:
    killed = kill_at(tmp_path, node)
    if killed is None:
        pytest.skip(f"this run does not pass through {node!r}")
    run_id, before = killed
    ledger = Ledger(tmp_path / "ledger.sqlite")
    recorded = {use.key for use in ledger.uses(run_id, "call")}
    ledger.close()
    report, after = finish(tmp_path, "resume", run_id)
    assert judgements(report) == judgements(whole)
    asked_again = {event["key"] for event in after if event["kind"] == "call_started"}
    assert not asked_again & recorded
    done_before = {e["node"] for e in before if e["kind"] == "node_finished"} - {
        "validator",
        "market_signal",
        "narrative",
    }
    started_after = {e["node"] for e in after if e["kind"] == "node_started"}
    assert not done_before & started_after, "a finished node ran again"
