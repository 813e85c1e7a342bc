"""Leases: one holder at a time, whoever asks and whatever the clock says; who lost one writes nothing more."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from finllm.errors import RecordError, RunHeld
from finllm.memory.database import Database, Patience
from finllm.memory.leases import Holder, Lease, Leases, status_of
from finllm.memory.ledger import Ledger
from finllm.processes import lives, machine, ticks_of
from finllm.scheduler.record import CALL, Entry

SECOND = 1_000_000_000
ME = Holder("token", "here", machine(), os.getpid(), ticks_of(os.getpid()), 0, 0, 10 * SECOND)
"""This process, with a lease until the tenth second."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with contextlib.closing(Ledger(tmp_path / "ledger.sqlite")) as opened:
        yield opened


@pytest.fixture
def other(tmp_path: Path, ledger: Ledger) -> Iterator[Ledger]:
    """The same ledger, opened a second time, as another process would."""
    del ledger
    with contextlib.closing(Ledger(tmp_path / "ledger.sqlite")) as opened:
        yield opened


def rob(other: Ledger, ledger: Ledger, run_id: str) -> Lease:
    """Take a lease whose time is up: as if its holder had been suspended for long."""
    with ledger._database.transaction() as db:
        db.execute("UPDATE lease SET expires_ns=0 WHERE run_id=?", (run_id,))
    return other.hold(run_id)


def test_a_run_that_is_held_is_refused_with_its_holder_and_is_free_again_after_its_end(
    ledger: Ledger, other: Ledger
) -> None:
    ledger.start_run("run", {})
    for asked in (other, ledger):
        with pytest.raises(RunHeld, match=f"another process is at 'run': process {os.getpid()} on ") as refusal:
            asked.hold("run")
        assert "finllm resume run" in refusal.value.fix
        assert refusal.value.exit_code == 1
    ledger.end_run("run", "waiting", None)
    with other.hold("run") as lease:
        assert lease.taken_from is None
        row = ledger.run("run")
        assert row is not None
        assert row.status == "running"
    row = ledger.run("run")
    assert row is not None
    assert (row.status, row.holder) == ("waiting", None), "a lease that was given back leaves the run as it was"


def test_who_lost_a_run_writes_neither_a_row_nor_an_end(ledger: Ledger, other: Ledger) -> None:
    lease = ledger.start_run("run", {})
    entry = Entry("k", CALL, "edge", {}, {})
    ledger.record(entry, run_id="run", node="n")
    assert rob(other, ledger, "run").taken_from == replace(lease.mine, expires_ns=0)
    for write in (
        lambda: ledger.record(Entry("late", CALL, "edge", {}, {}), run_id="run", node="n"),
        lambda: ledger.used("k", run_id="run", node="n"),
        lambda: ledger.end_run("run", "finished", {"total": 1}),
        lease.check,
    ):
        with pytest.raises(RunHeld, match="'run' was taken over by process"):
            write()
    lease.__exit__(None, None, None)
    other.end_run("run", "finished", {"total": 2})
    row = ledger.run("run")
    assert row is not None
    assert (row.status, row.result) == ("finished", {"total": 2})
    assert ledger.lookup("late") is None
    assert len(ledger.uses("run")) == 1


def test_the_end_of_a_run_that_another_holds_is_not_written_without_a_lease(ledger: Ledger, other: Ledger) -> None:
    ledger.start_run("run", {})
    with pytest.raises(RunHeld):
        other.end_run("run", "finished", {})
    ledger.end_run("run", "finished", {"total": 1})
    with pytest.raises(RecordError, match="has its report already"):
        other.end_run("run", "finished", {"total": 2})


def test_a_ledger_that_is_closed_lets_its_runs_go(tmp_path: Path, other: Ledger) -> None:
    with contextlib.closing(Ledger(tmp_path / "ledger.sqlite")) as leaving:
        leaving.start_run("run", {})
    row = other.run("run")
    assert row is not None
    assert (row.status, row.holder) == ("interrupted", None)
    assert other.hold("run").taken_from is None


@pytest.mark.parametrize(
    ("recorded", "holder", "status"),
    [
        ("running", ME, "running"),
        ("stopped", ME, "running"),
        ("running", None, "interrupted"),
        ("running", replace(ME, ticks=1), "interrupted"),
        ("running", replace(ME, expires_ns=5), "interrupted"),
        ("stopped", replace(ME, expires_ns=5), "interrupted"),
        ("running", replace(ME, machine="elsewhere", pid=1 << 30), "running"),
        ("stopped", None, "stopped"),
        ("waiting", None, "waiting"),
        ("finished", ME, "finished"),
        ("blocked", None, "blocked"),
    ],
)
def test_where_a_run_stands_follows_from_its_row_and_its_holder(
    recorded: str, holder: Holder | None, status: str
) -> None:
    assert status_of(recorded, holder, 5 * SECOND) == status


def test_a_process_that_ended_is_told_from_one_that_lives_and_from_a_later_one_of_its_number() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        ticks = ticks_of(child.pid)
        assert lives(child.pid, ticks)
        assert ticks is None or not lives(child.pid, ticks + 1)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert ticks is None or not lives(child.pid, ticks), "it has ended, though nobody has looked at it yet"
    assert not lives(child.pid, ticks)


class OneHolder(RuleBasedStateMachine):
    """Three ledgers at one run, on a clock that only this test moves: never two that may write."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.clock = lambda: self.now
        self.files = contextlib.ExitStack()
        folder = Path(self.files.enter_context(tempfile.TemporaryDirectory()))
        self.databases = [Database(folder / "ledger.sqlite", "write", Patience()) for _ in range(3)]
        self.leases = [Leases(database, 10.0, self.clock) for database in self.databases]
        self.held: dict[int, Lease] = {}

    def teardown(self) -> None:
        for leases, database in zip(self.leases, self.databases, strict=True):
            leases.close()
            database.close()
        self.files.close()

    def may_write(self, who: int) -> bool:
        with self.databases[who].transaction() as db:
            try:
                self.leases[who].fence(db, "run")
            except RunHeld:
                return False
        return who in self.held

    @rule(who=st.integers(0, 2))
    def take(self, who: int) -> None:
        try:
            with self.databases[who].transaction() as db:
                lease = self.leases[who].take(db, "run")
        except RunHeld:
            return
        self.leases[who]._mine["run"] = lease  # as `keep` does, without its thread
        self.held[who] = lease
        assert lease.taken_from is None or lease.taken_from.expires_ns <= self.now

    @rule(who=st.integers(0, 2))
    def beat(self, who: int) -> None:
        self.leases[who]._renew()

    @rule(seconds=st.integers(1, 15))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(who=st.integers(0, 2))
    @precondition(lambda self: self.held)
    def release(self, who: int) -> None:
        if who in self.held:
            self.leases[who].release(self.held.pop(who))

    @invariant()
    def at_most_one_may_write(self) -> None:
        assert sum(self.may_write(who) for who in range(3)) <= 1


TestOneHolder = OneHolder.TestCase
TestOneHolder.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
