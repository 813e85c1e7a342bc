"""Rows of one kind: asking again costs what is new, and a row that somebody changed is never passed over."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from finllm.errors import RecordAltered
from finllm.memory.users import Users
from finllm.scheduler.record import CALL, Entry
from finllm.settings import Settings
from tests.memory.desks import Home, home_at


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with home_at(tmp_path) as one:
        yield one


def test_what_else_is_on_record_is_looked_through_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    written_after = home.ledger.written_after

    def counted(id: int, kind: str) -> list[object]:
        asked.append(id)
        return list(written_after(id, kind))

    home.users.list()
    monkeypatch.setattr(home.ledger, "written_after", counted)
    for number in range(20):
        home.ledger.record(Entry(f"{number:064x}", CALL, "edge", {}, {"text": "yes"}), run_id="r", node="read")
    newest = home.ledger.last_use()
    for _ in range(3):
        home.users.list()
    assert len(asked) == 1
    home.users.disable("rev1", by="boss")
    home.users.list()
    assert newest in asked
    found = home.users.find("rev1")
    assert found is not None
    assert found.disabled


def test_a_row_that_was_changed_is_refused_each_time_it_is_asked_for(home: Home, tmp_path: Path) -> None:
    """Passed over at the second look, the row that disabled somebody would let them in again."""
    settings = Settings(home=tmp_path)
    home.users.disable("rev1", by="boss")
    with sqlite3.connect(settings.ledger_path) as db:
        changed = db.execute("UPDATE entry SET response=replace(response, 'disabled', 'enabled') "
                             "WHERE key=(SELECT key FROM use ORDER BY id DESC LIMIT 1)").rowcount  # fmt: skip
    db.close()
    assert changed == 1
    users = Users(home.ledger, home.secret)
    for _ in range(3):
        with pytest.raises(RecordAltered):
            users.find("rev1")
