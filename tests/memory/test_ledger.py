"""The ledger: what is written is durable for everyone, kept as it was, and never half there."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import RecordError
from finllm.memory.answers import HUMAN
from finllm.memory.ledger import Ledger
from finllm.scheduler.record import CALL, PLACEMENT, Entry, EntryKind

READER = """
import json, sys
from pathlib import Path
from finllm.memory.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
entry = ledger.lookup("k1")
print(json.dumps({"actor": entry.actor, "response": entry.response, "uses": [u.node for u in ledger.uses("run")]}))
"""
OPENER = """
import sys, time
from pathlib import Path
from finllm.memory.ledger import Ledger
while time.time() < float(sys.argv[2]):
    pass
Ledger(Path(sys.argv[1])).close()
"""
WRITER = """
import os, signal, sys
from pathlib import Path
from finllm.memory.answers import HUMAN
from finllm.memory.ledger import Ledger
from finllm.scheduler.record import Entry
ledger = Ledger(Path(sys.argv[1]))
for i in range(int(sys.argv[3])):
    ledger.record(Entry(f"{sys.argv[2]}{i}", "call", "edge", {}, {"i": i}), run_id="run", node="n")
    ledger.record(Entry(f"shared{i}", "call", sys.argv[2], {}, {"by": sys.argv[2]}), run_id=sys.argv[2], node="n")
print("written", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def entry(key: str, kind: EntryKind = CALL, **response: Any) -> Entry:
    return Entry(key, kind, "edge", {"prompt": "what?"}, response or {"text": "σ — 10 %"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    opened = Ledger(path)
    yield opened
    opened.close()


def in_child(code: str, *args: object) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_record_is_durable_for_another_process_while_it_is_open_here(path: Path, ledger: Ledger) -> None:
    ledger.record(entry("k1"), run_id="run", node="narrative")
    out, err = in_child(READER, path).communicate(timeout=60)
    assert json.loads(out or err) == {"actor": "edge", "response": {"text": "σ — 10 %"}, "uses": ["narrative"]}


def test_two_processes_that_write_at_once_and_are_killed_lose_nothing(path: Path) -> None:
    count = 25
    writers = [in_child(WRITER, path, name, count) for name in ("left", "right")]
    outputs = [writer.communicate(timeout=120) for writer in writers]
    assert [out for out, _err in outputs] == ["written\n"] * 2, outputs
    ledger = Ledger(path)
    for name in ("left", "right"):
        assert all(ledger.lookup(f"{name}{i}") == entry_of(name, i) for i in range(count))
    assert len(ledger.uses("run")) == 2 * count
    for i in range(count):
        first = ledger.lookup(f"shared{i}")
        assert first is not None
        assert first.response == {"by": first.actor}
        reused = {use.node: use.reused for name in ("left", "right") for use in ledger.uses(name)[i : i + 1]}
        assert reused
    written = [not use.reused for name in ("left", "right") for use in ledger.uses(name)]
    assert sum(written) == count
    ledger.close()


def test_processes_that_open_a_new_ledger_at_the_same_moment_all_get_it(tmp_path: Path) -> None:
    for attempt in range(3):
        start = time.time() + 1.5
        openers = [in_child(OPENER, tmp_path / f"{attempt}.sqlite", start) for _ in range(4)]
        failures = [opener.communicate(timeout=60)[1] for opener in openers]
        assert failures == [""] * 4


def entry_of(name: str, i: int) -> Entry:
    return Entry(f"{name}{i}", CALL, "edge", {}, {"i": i})


def test_what_was_recorded_first_stays(ledger: Ledger) -> None:
    ledger.record(entry("k", text="first"), run_id="one", node="n")
    ledger.record(entry("k", text="second"), run_id="two", node="n")
    kept = ledger.lookup("k")
    assert kept is not None
    assert kept.response == {"text": "first"}
    assert [use.reused for use in ledger.uses("one") + ledger.uses("two")] == [False, True]


def test_uses_come_in_order_and_by_kind(ledger: Ledger) -> None:
    ledger.record(entry("p", PLACEMENT), run_id="run", node="narrative")
    ledger.record(entry("c"), run_id="run", node="narrative")
    ledger.record(entry("h", HUMAN), run_id="run", node="human")
    ledger.used("c", run_id="run", node="reread")
    ledger.record(entry("other"), run_id="another", node="n")
    assert [(use.key, use.node, use.reused) for use in ledger.uses("run")] == [
        ("p", "narrative", False),
        ("c", "narrative", False),
        ("h", "human", False),
        ("c", "reread", True),
    ]
    assert [use.key for use in ledger.uses("run", "human")] == ["h"]
    assert ledger.uses("nobody") == []


def test_a_use_of_what_is_not_there_is_refused(ledger: Ledger) -> None:
    with pytest.raises(RecordError):
        ledger.used("nothing", run_id="run", node="n")
    assert ledger.uses("run") == []


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", {1, 2}], ids=["nan", "inf", "surrogate", "set"])
def test_what_json_cannot_hold_is_refused_and_nothing_is_written(ledger: Ledger, value: object) -> None:
    with pytest.raises(RecordError, match="cannot put this on record"):
        ledger.record(entry("k", value=value), run_id="run", node="n")
    assert ledger.lookup("k") is None
    assert ledger.uses("run") == []


def test_many_threads_may_use_one_ledger(ledger: Ledger) -> None:
    failures: list[BaseException] = []

    def write(name: int) -> None:
        try:
            for i in range(20):
                ledger.record(entry(f"{name}-{i}"), run_id="run", node=str(name))
                assert ledger.lookup(f"{name}-{i}") is not None
                ledger.uses("run")
        except BaseException as error:  # noqa: BLE001  a thread's failure is the test's
            failures.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(ledger.uses("run")) == 80


def test_a_ledger_of_another_schema_is_refused_with_what_to_do(path: Path, ledger: Ledger) -> None:
    ledger.close()
    edit(path, "UPDATE meta SET schema_version = 99")
    with pytest.raises(RecordError, match="has schema 99, this finllm reads 3") as refusal:
        Ledger(path)
    assert refusal.value.fix == "use the finllm version that wrote it, or another FINLLM_HOME"
    edit(path, "DELETE FROM meta")
    with pytest.raises(RecordError, match="has schema None"):
        Ledger(path)


def edit(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(statement)
    db.close()


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be one" * 100, b"\0" * 5000])
def test_a_file_that_is_no_ledger_is_a_record_error_and_is_left_as_it_was(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"cannot .* the ledger .*ledger\.sqlite"):
        Ledger(path)
    assert path.read_bytes() == content


def test_a_file_spoilt_in_the_middle_is_a_record_error(path: Path, ledger: Ledger) -> None:
    for i in range(300):
        ledger.record(entry(f"k{i}", text="x" * 500), run_id="run", node="n")
    ledger.close()
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(RecordError), contextlib.closing(Ledger(path)) as spoilt:
        spoilt.uses("run")


def test_a_row_that_somebody_spoilt_is_a_record_error(path: Path, ledger: Ledger) -> None:
    ledger.record(entry("k"), run_id="run", node="n")
    edit(path, "UPDATE entry SET response = '{half'")
    with pytest.raises(RecordError, match="cannot read the ledger"):
        ledger.lookup("k")


def test_a_place_that_cannot_hold_a_ledger_is_a_record_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot open the ledger"):
        Ledger(tmp_path / "file" / "ledger.sqlite")
    with pytest.raises(RecordError, match="cannot open the ledger"):
        Ledger(Path("/proc/finllm/ledger.sqlite"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError, match="cannot open the ledger") as refusal:
        Ledger(tmp_path / "folder")
    assert "permissions" in refusal.value.fix


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_read_only_ledger_is_a_record_error(path: Path, ledger: Ledger, what: str) -> None:
    ledger.close()
    locked = path if what == "file" else path.parent
    locked.chmod(0o400 if what == "file" else 0o500)
    try:
        with pytest.raises(RecordError):
            Ledger(path).record(entry("k"), run_id="run", node="n")
    finally:
        locked.chmod(0o700)


def test_a_write_that_fails_half_way_leaves_nothing_and_the_ledger_usable(ledger: Ledger) -> None:
    with pytest.raises(RecordError):
        ledger.record(entry("k"), run_id=None, node="n")  # pyright: ignore[reportArgumentType]
    assert ledger.lookup("k") is None
    ledger.record(entry("k"), run_id="run", node="n")
    assert ledger.lookup("k") == entry("k")


def test_a_closed_ledger_says_so(ledger: Ledger) -> None:
    ledger.close()
    with pytest.raises(RecordError):
        ledger.lookup("k")
    with pytest.raises(RecordError):
        ledger.record(entry("k"), run_id="run", node="n")


def test_a_run_goes_from_running_to_its_end_and_the_newest_comes_first(ledger: Ledger) -> None:
    ledger.start_run("a", {"title": "one"})
    ledger.start_run("b", {"title": "two"})
    row = ledger.run("a")
    assert row is not None
    assert (row.status, row.result) == ("running", None)
    ledger.end_run("a", "stopped", None)
    ledger.end_run("a", "finished", {"total": -1.5})
    assert [(run.id, run.status) for run in ledger.runs()] == [("b", "running"), ("a", "finished")]
    assert [run.id for run in ledger.runs(limit=1)] == ["b"]
    ended = ledger.run("a")
    assert ended is not None
    assert ended.result == {"total": -1.5}
    with pytest.raises(RecordError, match="'a' has its report already"):
        ledger.end_run("a", "finished", {"total": 2.5})
    assert ledger.run("a") == ended
    assert ledger.run("nobody") is None
    with pytest.raises(RecordError):
        ledger.start_run("a", {})


documents = st.dictionaries(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=5,
)


@given(request=documents, response=documents)
@settings(max_examples=40, deadline=None)
def test_runs_and_entries_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, request: dict[str, Any], response: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("round") / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.start_run("run", request)
    ledger.end_run("run", "finished", response)
    ledger.record(Entry("k", HUMAN, "person", request, response), run_id="run", node="human")
    ledger.close()
    again = Ledger(path)
    row = again.run("run")
    assert row is not None
    assert (row.request, row.status, row.result) == (request, "finished", response)
    assert again.lookup("k") == Entry("k", HUMAN, "person", request, response)
    again.close()
