"""Commands killed at any moment by SIGKILL, SIGTERM, SIGHUP or SIGINT: nothing lost, nothing twice, status right.

Each is a process of its own, on scripted models; `test_batch_killed.py` and `test_kill_and_resume.py` kill real ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from finllm.guardrails.audit.reading import open_reading
from finllm.scheduler.calibration.measured import read_calibrations
from finllm.settings import Settings
from tests.conftest import LONGEST_RUN
from tests.graphs.test_kill_and_resume import CONTEXT, STORY, judgements
from tests.models.tiny import write_tiny_model
from tests.soak import Soak
from tests.warm import Warm

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
COMMANDS = ("run", "batch", "explain", "calibrate")
RUNGS = ("Q4_0", "Q8_0", "F16")
AFTER = 1.05
"""A kill comes at any moment of the command's time, and of a twentieth of it after that."""
STATUS = {"finished", "stopped", "interrupted"}


@dataclass(frozen=True)
class Ended:
    """How a command ended, what it printed as JSON, and its events."""

    code: int
    said: Any
    events: list[dict[str, Any]]
    talk: list[str]
    seconds: float

    def asked(self) -> set[str]:
        return {event["key"] for event in self.events if event["kind"] == "call_started"}


class Forker:
    """The process that forks commands."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder
        assert self._hear() == {"ready": True}

    def __call__(self, home: Path, *arguments: str, number: int = 0, after: float = LONGEST_RUN) -> Ended:
        """Run a command, and send it the signal after so many seconds if it has not ended."""
        out, err = self._folder / "out", self._folder / "err"
        env = {"FINLLM_HOME": str(home), "FINLLM_MODEL": str(home / "tiny.gguf"), "FINLLM_CONTEXT": str(CONTEXT)}
        asked = {"argv": [*arguments, "--json"], "env": env, "out": str(out), "err": str(err)}
        assert self._process.stdin is not None
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        pid, begun = self._hear()["pid"], time.monotonic()
        code = self._wait(pid, number, after)
        said, lines = out.read_text("utf-8"), err.read_text("utf-8").splitlines()
        events = [json.loads(line) for line in lines if line[:1] == "{" and line.endswith("}")]
        with contextlib.suppress(ValueError):
            said = json.loads(said)
        return Ended(code, said, events, [line for line in lines if line[:1] != "{"], time.monotonic() - begun)

    def _wait(self, pid: int, number: int, after: float) -> int:
        """The exit code; `pidfd` is ready once the process has ended."""
        import select

        watched = select.poll()
        watched.register(descriptor := os.pidfd_open(pid), select.POLLIN)
        try:
            if not watched.poll(after * 1000):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number or signal.SIGABRT)
                if not watched.poll(LONGEST_RUN * 250):
                    signal.pidfd_send_signal(descriptor, signal.SIGABRT)
                    raise AssertionError("it hangs")
        finally:
            os.close(descriptor)
        return self._hear()["code"]

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def forking(folder: Path) -> Iterator[Forker]:
    """A process that forks commands, for as long as it is wanted; what they print is in `folder`."""
    env = {**os.environ, "FINLLM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-m", "tests.cli.forking"], env=env, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:  # fmt: skip
        yield Forker(process, folder)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    with forking(tmp_path_factory.mktemp("forked")) as forker:
        yield forker


@dataclass(frozen=True)
class Case:
    """A command, the home that it starts from, and how it ends if nobody kills it."""

    command: tuple[str, ...]
    home: Path
    ended: Ended
    keys: frozenset[str] = field(repr=False)


Cases = dict[str, Case]


@pytest.fixture(scope="module")
def cases(warm: Warm, forked: Forker, tmp_path_factory: pytest.TempPathFactory) -> Cases:
    base = tmp_path_factory.mktemp("cases")
    fresh = warm.home(base / "fresh")
    write_tiny_model(fresh / "tiny.gguf", context=CONTEXT)
    stories = [base / f"{name}.yaml" for name in ("strait", "canal", "channel")]
    for path in stories:
        path.write_text(STORY.replace("strait", path.stem), encoding="utf-8")
    ready = copied(fresh, base / "ready")
    report = forked(ready, "run", str(stories[0]))
    assert report.code == 0, report.talk
    every, rungs = [str(path) for path in stories], [word for rung in RUNGS for word in ("--rung", rung)]
    commands = {
        "run": (fresh, ("run", every[0])), "batch": (fresh, ("run", *every, "--jobs", "3")),
        "explain": (ready, ("explain", report.said["run_id"])), "calibrate": (fresh, ("calibrate", *rungs)),
    }  # fmt: skip
    found: Cases = {}
    for name, (home, command) in commands.items():
        ended = forked(whole := copied(home, base / name), *command)
        assert ended.code == 0, ended.talk
        found[name] = Case(command, home, ended, frozenset(recorded(whole)))
    return found


def copied(home: Path, folder: Path) -> Path:
    return Path(shutil.copytree(home, folder, symlinks=True))


def recorded(home: Path) -> Counter[str]:
    """How often each answer on record was given by a model."""
    if not (home / "ledger.sqlite").exists():
        return Counter()
    with open_reading(Settings(home=home)) as ledger:
        uses = [use for run in ledger.runs() for use in ledger.uses(run.id, "call")]
    return Counter(use.key for use in uses if not use.reused)


def killed(case: Case, forked: Forker, home: Path, number: int, after: float) -> bool:
    """Kill the command, look at what is left, and let the same command end. Whether it had not ended before."""
    ended = forked(home, *case.command, number=number, after=after)
    assert ended.code in (0, -number, 128 + number), (ended.code, ended.talk)
    if ended.code == 128 + number:
        assert ended.said["error"]["kind"] == "cancelled"
    before, left = recorded(home), forked(home, "runs", "list").said["runs"]
    for row in left:
        assert row["status"] in STATUS, row
        assert row["holder"] is None
    if ended.code == 0:
        assert {row["status"] for row in left} <= {"finished"}
    taken = {one.precision for one in read_calibrations(home / "engine-calibration.json")}
    after_all = ended if ended.code == 0 else forked(home, *again(case, ended, left))
    assert after_all.code == 0, (after_all.said, after_all.talk)
    assert ended is after_all or not after_all.asked() & set(before), "asked again"
    kept = [] if ended is after_all else after_all.said.get("calibrations", ())
    assert not [row for row in kept if row["fresh"] and row["precision"] in taken]
    assert set(recorded(home)) == case.keys
    assert max(recorded(home).values(), default=1) == 1
    rows = forked(home, "runs", "list").said["runs"]
    assert len(rows) == len(case_runs(case))
    assert all((row["status"], row["holder"]) == ("finished", None) for row in rows)
    assert {row["id"] for row in left} <= {row["id"] for row in rows}
    assert_same(case, after_all.said, home)
    if (home / "audit").exists():
        verified = forked(home, "audit", "verify")
        assert verified.code in (0, 4), verified.said
    return ended.code != 0


def again(case: Case, ended: Ended, left: list[dict[str, Any]]) -> tuple[str, ...]:
    """What goes on with it: a batch or a run on record is resumed, anything else is asked for once more."""
    batches = [event["batch_id"] for event in ended.events if event["kind"] == "batch_started"]
    if batches and left:
        return ("resume", batches[0])
    alone = case.command[0] == "run" and len(case_runs(case)) == 1
    return ("resume", left[0]["id"]) if alone and left else case.command


def case_runs(case: Case) -> list[str]:
    """The runs that the command leaves on record."""
    said = case.ended.said
    if "calibrations" in said:
        return []
    return [row["run_id"] for row in said["runs"]] if "runs" in said else [said["run_id"]]


def assert_same(case: Case, said: dict[str, Any], home: Path) -> None:
    """What came of it is what comes of it unkilled, and is in its files."""
    whole = case.ended.said
    if "calibrations" in whole:
        kept = [one.model_dump(mode="json") for one in read_calibrations(home / "engine-calibration.json")]
        assert sorted(row["precision"] for row in kept) == sorted(RUNGS)
        assert [row["quality"] for row in said["calibrations"]] == [row["quality"] for row in whole["calibrations"]]
    elif "chapters" in whole:
        assert said["complete"]
        assert (said["removals"], said["pairs"]) == (whole["removals"], whole["pairs"])
    elif "runs" in whole:
        assert [row["total"] for row in said["runs"]] == [row["total"] for row in whole["runs"]]
        for row in said["runs"]:
            assert json.loads((Path(row["folder"]) / "report.json").read_text("utf-8"))["run_id"] == row["run_id"]
    else:
        assert judgements(said) == judgements(whole)
        assert (home / "runs" / said["run_id"] / "report.json").exists()


def play(seed: int, cases: Cases, forked: Forker, folder: Path) -> bool:
    """Round `seed`: its command, its signal, and its moment."""
    name, number = COMMANDS[seed % 4], SIGNALS[seed // 4 % 4]
    case = cases[name]
    after = AFTER * case.ended.seconds * random.Random(f"kill {seed}").random()
    home = copied(case.home, folder / f"home-{seed}")
    try:
        return killed(case, forked, home, number, after)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 5, 10, 15], ids=["run KILL", "batch TERM", "explain HUP", "calibrate INT"])
def test_a_command_killed_anywhere_goes_on_to_what_it_would_have_come_to(
    cases: Cases, forked: Forker, tmp_path: Path, seed: int
) -> None:
    play(seed, cases, forked, tmp_path)


@pytest.mark.soak
def test_200_kills_lose_nothing_and_do_nothing_twice(soak: Soak, cases: Cases, forked: Forker, tmp_path: Path) -> None:
    for seed in soak.rounds(200):
        soak.figure(kills=1, under_way=play(seed, cases, forked, tmp_path))
