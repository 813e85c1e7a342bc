"""A batch of three on the real model, killed with SIGKILL in the middle: the same command finishes what is left."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from finllm.guardrails.audit.reading import open_reading
from finllm.settings import Settings
from tests.conftest import LONGEST_RUN
from tests.graphs.test_kill_and_resume import STORY, finish, start
from tests.soak import Soak
from tests.warm import Warm

pytestmark = pytest.mark.slow
CALLS = 14
"""Answers after which it is killed: some runs are then half done."""


def stories(folder: Path) -> list[str]:
    """Three different stories on one horizon."""
    folder.mkdir()
    found = []
    for name, strait in (("one", "A strait"), ("two", "A canal"), ("three", "A channel")):
        path = folder / f"{name}.yaml"
        path.write_text(STORY.replace("A strait", strait).replace("the strait", strait.lower()), encoding="utf-8")
        found.append(str(path))
    return found


@dataclass(frozen=True)
class Ended:
    """A command that was ended: the events seen until then, its exit code, and what it printed."""

    events: list[dict[str, Any]]
    code: int
    out: str


def end_after(home: Path, calls: int, how: int, *arguments: str) -> Ended:
    """Run until so many calls were answered, and send it a signal."""
    events: list[dict[str, Any]] = []
    with start(home, *arguments) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("{"):
                events.append(json.loads(line))
            if sum(event["kind"] == "call_finished" for event in events) >= calls:
                process.send_signal(how)
                break
        out, _ = process.communicate(timeout=LONGEST_RUN)
    return Ended(events, process.returncode, out)


def test_a_killed_batch_is_finished_by_the_same_command_and_no_recorded_call_is_repeated(
    warm: Warm, tmp_path: Path
) -> None:
    assert_finished(warm, tmp_path, CALLS)


@pytest.mark.soak
def test_a_batch_killed_after_any_answer_is_finished_by_the_same_command(
    soak: Soak, warm: Warm, tmp_path: Path
) -> None:
    for seed in soak.rounds(25):
        (folder := tmp_path / str(seed)).mkdir()
        assert_finished(warm, folder, 1 + seed)


def assert_finished(warm: Warm, folder: Path, calls: int) -> None:
    """Kill a batch of three after so many answers, interrupt it, and let it end: nothing on record is asked again."""
    home, command = warm.home(folder / "home"), ["run", *stories(folder / "stories"), "--jobs", "3"]
    killed = end_after(home, calls, signal.SIGKILL, *command)
    assert killed.code == -signal.SIGKILL
    (batch,) = [event for event in killed.events if event["kind"] == "batch_started"]
    with open_reading(Settings(home=home)) as ledger:
        recorded = {use.key for run_id in batch["runs"] for use in ledger.uses(run_id, "call")}
        half_done = {run_id: ledger.run(run_id) for run_id in batch["runs"]}
    assert len(recorded) >= calls // 2
    assert any(row is not None and row.result is None for row in half_done.values())

    interrupted = end_after(home, 3, signal.SIGINT, *command)
    assert interrupted.code == 130
    assert f"finllm resume {batch['batch_id']}" in json.loads(interrupted.out)["error"]["fix"]

    junit = folder / "junit.xml"
    summary, after = finish(home, *command, "--junit", str(junit))
    assert summary["batch"] == batch["batch_id"]
    assert {row["run_id"] for row in summary["runs"]} == set(batch["runs"])
    assert summary["counts"]["failed"] == 0
    asked_again = {event["key"] for event in [*interrupted.events, *after] if event["kind"] == "call_started"}
    assert not asked_again & recorded
    for row in summary["runs"]:
        assert json.loads((Path(row["folder"]) / "report.json").read_text("utf-8"))["run_id"] == row["run_id"]
    assert len(list(ElementTree.parse(junit).iter("testcase"))) == 3
