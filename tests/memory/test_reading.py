"""Readers of the ledger: they write nothing, need no write access, read older ledgers, and wait out a lock."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finllm.errors import RecordError
from finllm.guardrails.audit import open_recorder
from finllm.memory.database import Patience
from finllm.memory.ledger import Ledger
from finllm.memory.reading import LedgerReader
from finllm.memory.schema import _ENTRIES
from finllm.scheduler.record import CALL, Entry
from finllm.settings import Settings
from tests.desks import request_for

LONGEST = 60.0
BRIEF = 0.6
"""s that a test waits for a lock that it knows to stay."""
LOCKER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    db.execute(statement)
print("locked", flush=True)
sys.stdin.read()
"""
LEAVER = """
import os, signal, sys
from pathlib import Path
from finllm.memory.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
ledger.start_run("left", {"scenario": {"title": "Left"}})
os.kill(os.getpid(), signal.SIGKILL)
"""
UNPRIVILEGED = """
import contextlib, io, os, sys
from finllm.cli.main import main
commands = (["runs", "list"], ["runs", "list", "--json"], ["trace", "run"], ["trace", "run", "--json"])
said = []
for attempt in range(2):
    for command in commands:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert main(command) == 0, command
        said.append(out.getvalue())
    if attempt == 0 and os.geteuid() == 0:  # what is imported by now needs no rights any more
        os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    open(os.path.join(os.environ["FINLLM_HOME"], "mine"), "w")
except PermissionError:
    print(len(said), said[:len(commands)] == said[len(commands):])
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ended(path: Path) -> Path:
    """A ledger with a finished run and a call, closed."""
    with contextlib.closing(Ledger(path)) as ledger:
        ledger.start_run("run", {"scenario": {"title": "A strait is closed"}})
        ledger.record(Entry("k", CALL, "edge", {}, {"text": "yes"}), run_id="run", node="narrative")
        ledger.end_run("run", "finished", {"total": -1.5})
    return path


@contextlib.contextmanager
def locked(path: Path, *statements: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the ledger locked."""
    command = [sys.executable, "-c", LOCKER, str(path), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def listing(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_reader_leaves_every_file_as_it_was_and_makes_none(ended: Path) -> None:
    before = listing(ended.parent)
    with contextlib.closing(LedgerReader(ended)) as ledger:
        row = ledger.run("run")
        assert row is not None
        assert (row.status, row.result) == ("finished", {"total": -1.5})
        assert [use.entry.response for use in ledger.uses("run", CALL)] == [{"text": "yes"}]
        assert [(one.id, one.title, one.status) for one in ledger.runs()] == [("run", "A strait is closed", "finished")]
        assert ledger.count_runs() == 1
    assert listing(ended.parent) == before
    with pytest.raises(RecordError, match="cannot open the ledger"):
        LedgerReader(ended.with_name("none.sqlite"))
    assert listing(ended.parent) == before


def test_a_reader_sees_what_a_writer_that_comes_later_commits(ended: Path) -> None:
    with contextlib.closing(LedgerReader(ended)) as reader:
        assert reader.count_runs() == 1
        with contextlib.closing(Ledger(ended)) as writer:
            writer.start_run("next", {"scenario": {"title": "Next"}})
            assert [(one.id, one.status) for one in reader.runs()] == [("next", "running"), ("run", "finished")]
            writer.end_run("next", "stopped", None)
        assert [(one.id, one.status) for one in reader.runs()] == [("next", "stopped"), ("run", "finished")]


def test_the_log_of_a_writer_that_died_is_read_also_from_a_folder_that_none_may_write(
    tmp_path: Path, path: Path
) -> None:
    child = subprocess.run([sys.executable, "-c", LEAVER, str(path)], check=False, timeout=LONGEST)
    assert child.returncode == -signal.SIGKILL
    assert path.with_name("ledger.sqlite-wal").stat().st_size > 0
    with contextlib.closing(LedgerReader(path)) as ledger:
        assert [(one.id, one.status) for one in ledger.runs()] == [("left", "interrupted")]
    copied = tmp_path / "copy"
    copied.mkdir()
    for name in ("ledger.sqlite", "ledger.sqlite-wal"):
        (copied / name).write_bytes((tmp_path / name).read_bytes())
    before = listing(copied)
    copied.chmod(0o555)
    try:
        with contextlib.closing(LedgerReader(copied / "ledger.sqlite")) as ledger:
            assert [(one.id, one.status) for one in ledger.runs()] == [("left", "interrupted")]
        if os.geteuid() != 0:  # root may write there all the same, and SQLite then makes its index
            assert listing(copied) == before
    finally:
        copied.chmod(0o755)


def test_lists_and_stories_need_no_write_access_to_the_home(tmp_path: Path) -> None:
    """In a process without rights; the run's request is one that a story can be told of."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        home = Path(folder)
        with contextlib.closing(open_recorder(Settings(home=home))) as ledger:
            ledger.start_run("run", request_for("hormuz-blockade").model_dump(mode="json"))
            ledger.end_run("run", "stopped", None)
        for path in (home, *home.rglob("*")):  # a home is private until somebody opens it
            path.chmod(0o555 if path.is_dir() else 0o444)
        environ = {**os.environ, "FINLLM_HOME": str(home)}
        child = subprocess.run([sys.executable, "-c", UNPRIVILEGED], env=environ, capture_output=True, text=True,
                               timeout=4 * LONGEST, check=False)  # fmt: skip
        home.chmod(0o755)
    assert child.stdout == "8 True\n", child.stderr


def test_a_writer_s_lock_keeps_no_reader_out_and_a_writer_that_waits_names_it(ended: Path) -> None:
    told: list[str] = []
    with locked(ended, "BEGIN IMMEDIATE") as locker:
        with contextlib.closing(LedgerReader(ended)) as reader:
            assert reader.count_runs() == 1
        with contextlib.closing(Ledger(ended, Patience(BRIEF, told.append))) as writer:
            began = time.monotonic()
            with pytest.raises(RecordError) as refusal:
                writer.start_run("next", {})
            assert time.monotonic() - began < LONGEST
        name = f"process {locker.pid} ("
        assert f"it is locked by {name}" in refusal.value.message
        assert "disk space" not in str(refusal.value)
        assert f"wait until {name}" in refusal.value.fix
        assert "FINLLM_LEDGER_WAIT" in refusal.value.fix
        (line,) = told
        assert line.startswith(f"waiting for the ledger {str(ended)!r}, held by {name}")
    with contextlib.closing(Ledger(ended)) as writer:
        writer.start_run("next", {})


def test_a_reader_that_is_kept_out_waits_a_while_and_names_who_keeps_it_out(ended: Path) -> None:
    told: list[str] = []
    with locked(ended, "PRAGMA locking_mode=EXCLUSIVE", "BEGIN EXCLUSIVE") as locker:
        with pytest.raises(RecordError, match=f"it is locked by process {locker.pid} \\("):
            LedgerReader(ended, Patience(BRIEF, told.append))
        assert len(told) == 1
        locker.kill()
        locker.wait(LONGEST)
        with contextlib.closing(LedgerReader(ended)) as reader:
            assert reader.count_runs() == 1


def test_a_lock_that_is_let_go_in_time_is_waited_out(ended: Path) -> None:
    with locked(ended, "BEGIN IMMEDIATE") as locker:
        patience = Patience(LONGEST, lambda _line: locker.kill())  # told of the wait: now it may end
        with contextlib.closing(Ledger(ended, patience)) as writer:
            writer.start_run("next", {})
            assert writer.count_runs() == 2


def fail(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(f"as {name}")
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("SQLITE_FULL", "free disk space"),
        ("SQLITE_READONLY_DBMOVED", "permissions"),
        ("SQLITE_CANTOPEN", "permissions"),
        ("SQLITE_IOERR_WRITE", "mend the disk"),
        ("SQLITE_CORRUPT_INDEX", "restore it from a copy"),
        ("SQLITE_BUSY_SNAPSHOT", "wait until"),
        ("SQLITE_MISMATCH", "report this"),
    ],
)
def test_each_failure_of_the_file_has_its_own_mend(ended: Path, name: str, mend: str) -> None:
    ledger = Ledger(ended)
    with pytest.raises(RecordError) as refusal, ledger._database.transaction():
        raise fail(name)
    ledger.close()
    assert mend in refusal.value.fix
    assert ("disk space" in refusal.value.fix) == (name == "SQLITE_FULL")


@pytest.fixture
def old(path: Path) -> Path:
    """A ledger as schema 1 had it, with three runs."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.executescript(f"PRAGMA journal_mode=WAL; {_ENTRIES}")
        for at, (run_id, status) in enumerate((("a", "finished"), ("b", "running"), ("c", "stopped"))):
            request = json.dumps({"scenario": {"title": f"Story {run_id}"}})
            result = json.dumps({"total": 1}) if status == "finished" else None
            db.execute("INSERT INTO run VALUES (?, ?, ?, ?, ?, ?)", (run_id, at, request, status, result, at))
        db.execute("INSERT INTO run VALUES ('spoilt', 9, '{half', 'stopped', NULL, 9)")
    return path


RUNS: list[tuple[str, str, str]] = [("c", "Story c", "stopped"), ("b", "Story b", "interrupted"),
                                    ("a", "Story a", "finished")]  # fmt: skip


def shown(ledger: LedgerReader) -> list[tuple[str, str, str]]:
    return [(one.id, one.title, one.status) for one in ledger.runs() if one.id != "spoilt"]


def test_an_older_ledger_is_read_as_it_is_and_brought_up_to_date_by_the_first_writer(old: Path) -> None:
    with contextlib.closing(sqlite3.connect(old)) as db, db:
        db.execute("DELETE FROM run WHERE id='spoilt'")
    before = listing(old.parent)
    with contextlib.closing(LedgerReader(old)) as ledger:
        assert (ledger.schema, shown(ledger)) == (1, RUNS)
        row = ledger.run("a")
        assert row is not None
        assert row.result == {"total": 1}
    assert listing(old.parent) == before
    with contextlib.closing(Ledger(old)) as ledger:
        assert (ledger.schema, shown(ledger)) == (3, RUNS)
        ledger.hold("b")
        assert [one.status for one in ledger.runs()] == ["stopped", "running", "finished"]


def test_a_row_that_somebody_spoilt_does_not_stop_a_ledger_from_being_brought_up_to_date(old: Path) -> None:
    with contextlib.closing(Ledger(old)) as ledger:
        assert shown(ledger) == RUNS
        with pytest.raises(RecordError, match="it is damaged"):
            ledger.run("spoilt")


def filled(path: Path, runs: int, size: int) -> None:
    """A ledger of many runs with large reports."""
    Ledger(path).close()
    result = json.dumps({"evidence": "x" * size})
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA synchronous=OFF")
        request = json.dumps({"scenario": {"title": "t"}, "portfolio": "x" * 20_000})
        rows: list[tuple[Any, ...]] = [(f"run-{at:05}", at, request, "finished", result, at) for at in range(runs)]
        db.executemany("INSERT INTO run VALUES (?, ?, ?, ?, ?, ?)", rows)
        db.executemany("INSERT INTO title VALUES (?, ?)", [(row[0], f"Story {row[1]}") for row in rows])


def test_a_page_of_many_runs_reads_no_report(path: Path) -> None:
    filled(path, 2000, 100_000)
    with contextlib.closing(LedgerReader(path)) as ledger:
        before = resource.getrusage(resource.RUSAGE_SELF)
        newest, all_of_them = ledger.runs(10), ledger.runs()
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert [one.id for one in newest] == [f"run-{at:05}" for at in range(1999, 1989, -1)]
        assert (len(all_of_them), ledger.count_runs()) == (2000, 2000)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    assert after.ru_maxrss - before.ru_maxrss < 50_000, "KB"
