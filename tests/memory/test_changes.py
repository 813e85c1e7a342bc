"""What came onto the record is counted once, whoever wrote it, and only once it is believed."""

from __future__ import annotations

from pathlib import Path

from finllm.guardrails.audit import open_recorder
from finllm.memory.changes import Changes
from finllm.scheduler.placement.task import key_of
from finllm.scheduler.record import Entry, EntryKind
from finllm.settings import Settings

ONE, OTHER, NEITHER = EntryKind("review"), EntryKind("user"), EntryKind("call")


def entry(kind: EntryKind, number: int) -> Entry:
    return Entry(key_of("changes", {"kind": kind, "number": number}), kind, "ada", {"number": number}, {})


def test_each_row_of_its_kinds_counts_once_and_no_other(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    here, elsewhere = open_recorder(settings), open_recorder(settings)
    changes, expected = Changes(here, (ONE, OTHER)), 0
    for number, kind in enumerate((ONE, NEITHER, OTHER, ONE, NEITHER, OTHER, OTHER, ONE)):
        (here if number % 2 else elsewhere).record(entry(kind, number), run_id="run", node="node")
        (elsewhere if number % 2 else here).used(entry(kind, number).key, run_id="run", node="again")
        expected += kind != NEITHER
        assert changes.count() == expected
    assert Changes(here, (ONE, OTHER)).count() == expected
    elsewhere.close()
    here.close()


def test_a_row_counts_once_its_record_is_there(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    here, elsewhere = open_recorder(settings), open_recorder(settings)
    changes = Changes(here, (ONE,))
    row = elsewhere.write(entry(ONE, 1), run_id="run", node="node")
    assert [changes.count(), changes.count()] == [0, 0]
    here.record(entry(ONE, 2), run_id="run", node="node")
    assert changes.count() == 1
    elsewhere._audit(row)
    assert [changes.count(), changes.count()] == [2, 2]
    elsewhere.close()
    here.close()
