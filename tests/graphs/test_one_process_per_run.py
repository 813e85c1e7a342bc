"""Two processes at one run: one drives it, the other is told who does; who died or stood still is taken over from."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from finllm.desk.desk import Desk
from finllm.desk.request import RunRequest
from finllm.errors import BudgetExceeded
from finllm.events import EventBus
from finllm.graphs.flow import run_stress_test
from finllm.guardrails.audit import LogReader, verify_log
from finllm.memory.reading import LedgerReader
from finllm.review.replay import replay
from finllm.scheduler.placement.task import canonical
from finllm.settings import Settings
from finllm.tools.data.scenario import BudgetEntry
from tests.conftest import LONGEST_WAIT
from tests.desks import request_for
from tests.graphs.racer import ENOUGH, scripted
from tests.soak import Soak

ROOT = Path(__file__).parents[2]
EARLY = dt.date(1991, 6, 28)
"""A day with little history before it, so that its forecasts are calibrated at once."""
LITTLE = BudgetEntry(seconds=None, tokens=100, deep_tokens=None)
"""Less than the reading of any story costs, also where all that other runs were answered is on record."""
RACES = 3
SOAK = 50
LONG, SHORT = 30.0, 1.0
"""Leases, s."""


class Racer:
    """A `racer` process: what it says comes line by line, each waited for no longer than a test may take."""

    def __init__(self, home: Path, lease: float) -> None:
        command = [sys.executable, "-m", "tests.graphs.racer", str(home), str(lease)]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._said: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)

    def hear(self) -> dict[str, Any]:
        return json.loads(self._said.get(timeout=2 * LONGEST_WAIT))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(line)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(LONGEST_WAIT)
        self._reader.join(LONGEST_WAIT)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def racers(home: Settings) -> Iterator[Callable[..., list[Racer]]]:
    """Start two processes on the home, both with their desks open."""
    with contextlib.ExitStack() as closing:

        def start(lease: float = LONG) -> list[Racer]:
            started = [Racer(home.home, lease) for _ in range(2)]
            for racer in started:
                closing.callback(racer.end)
            assert [racer.hear() for racer in started] == [{"ready": True}] * 2
            return started

        yield start


@pytest.fixture
def desk(home: Settings) -> Iterator[Desk]:
    made = scripted(home, EventBus())
    yield made
    made.ledger.close()


def asked(run_id: str, budget: BudgetEntry) -> RunRequest:
    """A request of its own: what other runs were answered answers none of it."""
    story = f"Mines close a strait to tankers, it says in the story of {run_id}."
    return request_for("hormuz-blockade", narrative=story, sources=(), as_of=EARLY, budget=budget, shocks=())


def stopped(desk: Desk, run_id: str) -> None:
    """Run until a small budget stops it between its intake and its report, for somebody to go on with."""
    with pytest.raises(BudgetExceeded):
        asyncio.run(run_stress_test(run_id, asked(run_id, LITTLE), desk))


def status(home: Settings, run_id: str) -> str:
    with contextlib.closing(LedgerReader(home.ledger_path)) as ledger:
        row = ledger.run(run_id)
    assert row is not None
    return row.status


def reports_on_record(home: Settings, run_id: str) -> int:
    """How many ends with a report the audit log has of a run."""
    bodies = [json.loads(data)["body"] for _, data in LogReader(home.audit_dir).records()]
    return sum(body.get("run") == run_id and body["action"] in ("run.finished", "run.blocked") for body in bodies)


def check_whole(desk: Desk, run_id: str, report: dict[str, Any]) -> None:
    """One report, which is the one that was given, in a log without damage, and rebuilt byte for byte."""
    assert reports_on_record(desk.settings, run_id) == 1
    assert verify_log(desk.settings.audit_dir).damage == ()
    row = desk.ledger.run(run_id)
    assert row is not None
    assert (row.status, row.result) == ("finished", report)
    rebuilt = asyncio.run(replay(run_id, desk)).state["report"]
    assert canonical(rebuilt) == canonical({name: value for name, value in report.items() if name != "spent"})


def race(desk: Desk, racers: list[Racer], run_id: str) -> None:
    """Both resume the run at once: one is in the middle of it, and the other is told that."""
    stopped(desk, run_id)
    for racer in racers:
        racer.tell(run_id)
    heard = [racer.hear() for racer in racers]
    (first,) = [at for at, said in enumerate(heard) if "at" in said]
    holder, other = racers[first], heard[1 - first]
    assert other["error"]["kind"] == "run_held"
    assert f"process {holder.pid} on " in other["error"]["message"]
    assert "last sign of life" in other["error"]["message"]
    assert f"finllm resume {run_id}" in other["error"]["fix"]
    assert status(desk.settings, run_id) == "running"
    holder.tell("go on")
    report = holder.hear()["report"]
    check_whole(desk, run_id, report)
    racers[1 - first].tell(run_id)
    assert racers[1 - first].hear() == {"report": report}, "who comes later is given the same report"


def test_of_two_resumes_at_once_one_drives_the_run_and_the_other_is_told_who(
    desk: Desk, racers: Callable[..., list[Racer]]
) -> None:
    two = racers()
    for number in range(RACES):
        race(desk, two, f"race-{number}")


@pytest.mark.soak
def test_however_often_two_resume_at_once_each_run_has_one_report(
    soak: Soak, desk: Desk, racers: Callable[..., list[Racer]]
) -> None:
    two = racers()
    for number in soak.rounds(SOAK):
        race(desk, two, f"race-{number}")
        soak.figure(races=1, refused=1, replayed=1)


def test_a_killed_process_s_run_is_interrupted_and_another_goes_on_with_it_to_the_same_report(
    desk: Desk, racers: Callable[..., list[Racer]], tmp_path: Path
) -> None:
    one, two = racers()
    stopped(desk, "killed")
    one.tell("killed")
    assert "at" in one.hear()
    os.kill(one.pid, signal.SIGKILL)
    one.process.wait(LONGEST_WAIT)
    assert status(desk.settings, "killed") == "interrupted"
    two.tell("killed")
    assert f"taken over from process {one.pid} on " in two.hear()["noted"]
    assert "at" in two.hear()
    two.tell("go on")
    report = two.hear()["report"]
    check_whole(desk, "killed", report)
    elsewhere = scripted(Settings(home=tmp_path / "elsewhere"), EventBus())
    undisturbed = asyncio.run(run_stress_test("undisturbed", asked("killed", ENOUGH), elsewhere)).report
    elsewhere.ledger.close()
    assert undisturbed is not None
    same = undisturbed.model_dump(mode="json")
    assert {name for name in report if report[name] != same[name]} <= {"run_id", "spent"}


def test_a_process_that_stood_still_past_its_lease_writes_no_second_report(
    desk: Desk, racers: Callable[..., list[Racer]]
) -> None:
    one, two = racers(SHORT)
    stopped(desk, "stood-still")
    one.tell("stood-still")
    assert "at" in one.hear()
    os.kill(one.pid, signal.SIGSTOP)

    async def expired() -> None:
        with anyio.fail_after(LONGEST_WAIT):
            while status(desk.settings, "stood-still") == "running":
                await anyio.sleep(SHORT / 10)

    asyncio.run(expired())
    assert status(desk.settings, "stood-still") == "interrupted"
    two.tell("stood-still")
    assert f"taken over from process {one.pid} on " in two.hear()["noted"]
    assert "at" in two.hear()
    os.kill(one.pid, signal.SIGCONT)
    one.tell("go on")
    lost = one.hear()["error"]
    assert lost["kind"] == "run_held"
    assert f"was taken over by process {two.pid} on " in lost["message"]
    two.tell("go on")
    check_whole(desk, "stood-still", two.hear()["report"])


def test_a_heartbeat_outlives_a_busy_event_loop(desk: Desk, racers: Callable[..., list[Racer]]) -> None:
    one, two = racers(SHORT)
    stopped(desk, "busy")
    one.tell("busy")
    assert "at" in one.hear()

    async def beaten() -> None:
        with anyio.fail_after(LONGEST_WAIT):
            while (
                (row := desk.ledger.run("busy")) is None
                or row.holder is None
                or (row.holder.heartbeat_ns - row.holder.acquired_ns < 2 * SHORT * 1e9)
            ):
                await anyio.sleep(SHORT / 10)

    asyncio.run(beaten())
    two.tell("busy")
    assert two.hear()["error"]["kind"] == "run_held"
    one.tell("go on")
    check_whole(desk, "busy", one.hear()["report"])
