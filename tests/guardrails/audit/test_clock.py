"""A clock that goes back, or is an hour off, is on record, and no verification takes it for damage."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from finllm.cli.history import list_runs
from finllm.guardrails.audit import verify_log
from finllm.guardrails.audit.clock import ClockWatch
from finllm.guardrails.audit.home import verify_home
from finllm.guardrails.audit.keys import keyring
from finllm.guardrails.audit.log import AuditLog
from finllm.guardrails.audit.reader import LogReader
from finllm.guardrails.audit.recorder import AuditedRecorder
from finllm.settings import Settings

SECOND = 1_000_000_000
HOUR = 3600 * SECOND


class Clocks:
    """A clock that can be set, beside one that cannot."""

    def __init__(self) -> None:
        self.wall, self.steady = time.time_ns(), 0

    def passes(self, ns: int, *, set_by: int = 0) -> None:
        self.wall += ns + set_by
        self.steady += ns

    def watch(self) -> ClockWatch:
        return ClockWatch(lambda: self.wall, lambda: self.steady)


def recorder(home: Settings, clocks: Clocks) -> AuditedRecorder:
    log = AuditLog(home.audit_dir, keyring(home))
    return AuditedRecorder(home.ledger_path, log, home.audit_dir, watch=clocks.watch())


def steps(home: Settings) -> list[int]:
    bodies: list[dict[str, Any]] = [json.loads(data)["body"] for _, data in LogReader(home.audit_dir).records()]
    return [int(body["by_ns"]) for body in bodies if body["action"] == "clock.stepped"]


@pytest.mark.parametrize("by", [-HOUR, HOUR, -3 * SECOND, -400 * 24 * HOUR], ids=["back", "ahead", "3 s", "a year"])
def test_a_clock_that_is_set_during_a_run_is_on_record_and_no_damage(by: int, tmp_path_factory: Any) -> None:
    home, clocks = Settings(home=tmp_path_factory.mktemp("home")), Clocks()
    with closing(recorder(home, clocks)) as ledger:
        ledger.start_run("one", {"scenario": {"title": "One"}})
        clocks.passes(SECOND, set_by=by)
        ledger.end_run("one", "stopped", None)
    assert steps(home) == [by]
    assert verify_log(home.audit_dir).status == "unproven"


@pytest.mark.parametrize("by", [-HOUR, HOUR], ids=["back", "ahead"])
def test_a_clock_that_is_set_between_the_record_of_a_start_and_its_row_is_a_note_and_no_damage(
    by: int, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, clocks = Settings(home=tmp_path_factory.mktemp("home")), Clocks()
    monkeypatch.setattr(time, "time_ns", lambda: clocks.wall)
    with closing(recorder(home, clocks)) as ledger:
        say = ledger._append  # pyright: ignore[reportPrivateUsage]

        def said_and_then_set(item: Any) -> None:
            say(item)
            clocks.passes(SECOND, set_by=by)

        monkeypatch.setattr(ledger, "_append", said_and_then_set)
        ledger.start_run("one", {"scenario": {"title": "One"}})
        monkeypatch.setattr(ledger, "_append", say)
        ledger.end_run("one", "stopped", None)
    (held, *_) = verify_home(home.audit_dir, home.ledger_path)
    assert held.problems == ()
    assert any(f"the clock was set by {by / SECOND + 1:+,.0f} s as run 'one' began" in note for note in held.notes)
    with closing(sqlite3.connect(home.ledger_path)) as changed, changed:
        changed.execute("UPDATE run SET created_ns = created_ns + ?", (2 * HOUR,))
    (held, *_) = verify_home(home.audit_dir, home.ledger_path)
    assert "when run 'one' began is not what it was" in held.problems


def test_a_session_that_begins_before_the_newest_record_says_so(tmp_path_factory: Any) -> None:
    home, clocks = Settings(home=tmp_path_factory.mktemp("home")), Clocks()
    recorder(home, clocks).close()
    clocks.passes(0, set_by=-HOUR)
    recorder(home, clocks).close()
    (by,) = steps(home)
    assert by == pytest.approx(-HOUR, abs=60 * SECOND)
    assert verify_log(home.audit_dir).status == "unproven"


def test_time_that_passes_sleep_and_a_clock_kept_right_are_no_steps(tmp_path_factory: Any) -> None:
    home, clocks = Settings(home=tmp_path_factory.mktemp("home")), Clocks()
    with closing(recorder(home, clocks)) as ledger:
        ledger.start_run("one", {"scenario": {"title": "One"}})
        clocks.passes(9 * HOUR, set_by=SECOND // 2)
        ledger.end_run("one", "stopped", None)
    assert steps(home) == []


@pytest.fixture
def _summer_time_ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a zone whose local time goes through 01:30 twice that night."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_summer_time_ends")
def test_local_time_and_its_changes_have_no_part(
    tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, clocks = Settings(home=tmp_path_factory.mktemp("home")), Clocks()
    before = 1_667_712_600  # 2022-11-06T05:30:00Z, 01:30 there, and 01:30 again an hour later
    for run_id, at in (("first", before), ("second", before + 3600)):
        clocks.wall = at * SECOND
        monkeypatch.setattr(time, "time_ns", lambda: clocks.wall)
        with closing(recorder(home, clocks)) as ledger:
            ledger.start_run(run_id, {"scenario": {"title": run_id}})
            ledger.end_run(run_id, "stopped", None)
    monkeypatch.setenv("FINLLM_HOME", str(home.home))
    list_runs(None, None, as_json=True)
    listed = json.loads(capsys.readouterr().out)["runs"]
    assert [(row["id"], row["when"]) for row in listed] == [
        ("second", "2022-11-06T06:30:00Z"), ("first", "2022-11-06T05:30:00Z"),
    ]  # fmt: skip
    assert steps(home) == []
