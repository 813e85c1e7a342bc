"""SIGTERM and SIGHUP end a command as Ctrl-C does, each with its own exit code; what is on record can be gone on with.

Real processes on a tiny model: what it says means nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finllm.interrupts import STOPPING, undisturbed
from tests.conftest import LONGEST_RUN
from tests.graphs.test_kill_and_resume import CONTEXT, FINLLM, STORY, finish
from tests.models.tiny import write_tiny_model
from tests.warm import Warm

TERM, HUP, INT = signal.SIGTERM, signal.SIGHUP, signal.SIGINT


@dataclass(frozen=True)
class Stopped:
    """A command that was sent signals: its exit code, its one JSON object, and what it said that is no event."""

    code: int
    said: dict[str, Any]
    events: list[dict[str, Any]]
    talk: list[str]

    @property
    def fix(self) -> str:
        return self.said["error"]["fix"]


@dataclass(frozen=True)
class Home:
    """A home with the tiny model and a run that has ended."""

    folder: Path
    story: Path
    run_id: str

    def stop(self, signals: Sequence[int], when: str, *arguments: str, ignored: Sequence[int] = ()) -> Stopped:
        """Start a command, send it the signals once it tells of such an event or has such a file open; it ends."""

        def inherit() -> None:
            for number in STOPPING:
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

        own = {"FINLLM_HOME": str(self.folder), "FINLLM_THREADS": "1", "FINLLM_CONTEXT": str(CONTEXT),
               "PYTHONFAULTHANDLER": "1", "FINLLM_MODEL": str(self.folder / "tiny.gguf")}  # fmt: skip
        lines = list[str]()
        with subprocess.Popen([FINLLM, *arguments, "--json"], env={**os.environ, **own}, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              preexec_fn=inherit) as process:  # fmt: skip  # noqa: PLW1509
            assert process.stderr is not None
            if "." in when:
                while not has_open(process.pid, when):
                    assert process.poll() is None
            else:
                for line in process.stderr:
                    lines.append(line)
                    if f'"kind": "{when}"' in line:
                        break
            for number in signals:
                process.send_signal(number)
            try:
                out, err = process.communicate(timeout=LONGEST_RUN / 4)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # what hangs says where, and holds nothing that others wait for
                raise AssertionError(f"it hangs: {process.communicate(timeout=60)[1]}") from None
        lines += err.splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return Stopped(process.returncode, json.loads(out), events, [line for line in lines if line[:1] != "{"])

    def runs(self) -> dict[str, dict[str, Any]]:
        listed, _ = finish(self.folder, "runs", "list")
        return {row["id"]: row for row in listed["runs"]}


def has_open(pid: int, name: str) -> bool:
    with contextlib.suppress(OSError):  # a file that is closed while we look
        return any(os.readlink(link).endswith(name) for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


@pytest.fixture(scope="module")
def home(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = warm.home(tmp_path_factory.mktemp("interrupts"))
    (story := folder / "strait.yaml").write_text(STORY, encoding="utf-8")
    write_tiny_model(folder / "tiny.gguf", context=CONTEXT)
    report, _ = finish(folder, "run", str(story))
    return Home(folder, story, report["run_id"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ([TERM], 143),
        ([HUP, TERM, INT], 129),
        ([INT, INT, INT], 130),
    ],
    ids=lambda value: "+".join(signal.Signals(one).name for one in value) if isinstance(value, list) else str(value),
)
def test_a_stopped_run_says_how_to_go_on_and_is_held_by_nobody(home: Home, signals: list[int], code: int) -> None:
    stopped = home.stop(signals, "node_started", "run", str(home.story))
    assert (stopped.code, stopped.said["error"]["kind"], stopped.talk) == (code, "cancelled", [])
    (run_id,) = (event["run_id"] for event in stopped.events if event["kind"] == "run_started")
    assert stopped.fix == f"resume with: finllm resume {run_id}"
    row = home.runs()[run_id]
    assert (row["status"], row["holder"]) in [("stopped", None), ("interrupted", None)]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["resume", "batch", "explain", "refine", "replay", "eval", "calibrate"])
def test_every_long_command_stops_at_a_sigterm_and_at_a_second_one_while_it_closes(home: Home, command: str) -> None:
    arguments, when, fix = long_commands(home)[command]()
    stopped = home.stop([TERM, TERM], when, *arguments)
    assert (stopped.code, stopped.said["error"]["kind"], stopped.talk) == (143, "cancelled", [])
    assert fix in stopped.fix
    assert all(row["holder"] is None for row in home.runs().values())


Long = tuple[list[str], str, str]
"""A command, the event at which it is stopped, and what the error says to do."""


def long_commands(home: Home) -> dict[str, Callable[[], Long]]:
    def resume() -> Long:
        run_id = home.stop([TERM], "node_started", "run", str(home.story)).fix.split()[-1]
        return ["resume", run_id], "node_started", f"finllm resume {run_id}"

    def batch() -> Long:
        other = home.folder / "canal.yaml"
        other.write_text(STORY.replace("A strait", "A canal"), encoding="utf-8")
        return ["run", str(home.story), str(other)], "node_started", "run the same command again"

    return {
        "resume": resume,
        "batch": batch,
        "explain": lambda: (["explain", home.run_id], "progress", f"finllm explain {home.run_id}"),
        "refine": lambda: (["refine", home.run_id], "call_started", f"finllm refine {home.run_id}"),
        "replay": lambda: (["replay", home.run_id, "--regenerate"], "chroma.sqlite3", "run the command again"),
        "eval": lambda: (["eval"], "progress", "run the command again"),
        "calibrate": lambda: (["calibrate", "--force"], "progress", "run the command again"),
    }


@pytest.mark.slow
def test_what_was_started_to_outlive_its_terminal_ignores_sighup_and_still_hears_sigterm(home: Home) -> None:
    """As by `nohup`, or by a shell that puts it into the background."""
    stopped = home.stop([HUP, INT, TERM], "node_started", "run", str(home.story), ignored=[HUP, INT])
    assert (stopped.code, stopped.said["error"]["kind"], stopped.talk) == (143, "cancelled", [])


def test_an_interrupt_while_something_closes_is_put_off_until_it_has() -> None:
    closed = list[str]()

    def close() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            closed.append("whole")

    with pytest.raises(KeyboardInterrupt):
        close()
    assert closed == ["whole"]
