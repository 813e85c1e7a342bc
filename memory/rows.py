"""The ledger's rows as they stand, a part at a time: for whoever holds all of them against something."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from finllm.memory.database import Database, Patience
from finllm.memory.held import EntryRow, UseRow

_PART = 500
"""Rows read at once: some hold whole reports."""


@dataclass(frozen=True)
class RunText:
    """A run as its row has it: `request` and `result` are JSON text; `title` is what lists show, None without one."""

    id: str
    created_ns: int
    request: str
    status: str
    result: str | None
    title: str | None


class LedgerRows:
    """All rows of a ledger, of any schema that can be read. Errors: RecordError."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, "read", Patience())
        self._version = self._database.version or 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._database.close()

    def uses(self) -> Iterator[tuple[str, int, UseRow]]:
        """Every use with its run and when it was (ns, UTC), in order."""
        query = (
            "SELECT u.run_id, u.at_ns, u.id, u.node, u.reused, e.key, e.kind, e.actor, e.request, e.response "
            "FROM use u JOIN entry e ON e.key = u.key WHERE u.id > ? ORDER BY u.id LIMIT ?"
        )
        last = -(2**63)
        while part := self._database.rows(query, (last, _PART), tuple):
            for run, at_ns, id, node, reused, *entry in part:
                yield run, at_ns, UseRow(id, node, bool(reused), EntryRow(*entry))
            last = part[-1][2]

    def runs(self) -> Iterator[RunText]:
        """Every run, by id."""
        title = "NULL" if self._version < 2 else "(SELECT t.title FROM title t WHERE t.run_id = r.id)"
        query = (
            f"SELECT r.id, r.created_ns, r.request, r.status, r.result, {title} FROM run r "
            "WHERE r.id > ? ORDER BY r.id LIMIT ?"
        )
        last = ""
        while part := self._database.rows(query, (last, _PART), tuple):
            yield from (RunText(*row) for row in part)
            last = part[-1][0]

    def unused_entries(self) -> int:
        """How many entries no use leads to."""
        query = "SELECT count(*) FROM entry e WHERE NOT EXISTS (SELECT 1 FROM use u WHERE u.key = e.key)"
        return self._one(query)

    def loose_uses(self) -> int:
        """How many uses lead to no entry."""
        return self._one("SELECT count(*) FROM use u WHERE NOT EXISTS (SELECT 1 FROM entry e WHERE e.key = u.key)")

    def places(self, log: str) -> tuple[int, dict[str, int]]:
        """The index over the audit log named `log` (see `memory.places`): how much of it is in there, and by name."""
        if self._version < 3:
            return 0, {}
        known = self._database.rows("SELECT through FROM log_read WHERE log = ?", (log,), lambda row: int(row[0]))
        rows = self._database.rows("SELECT name, seq FROM log_place", (), lambda row: (str(row[0]), int(row[1])))
        return (known[0], dict(rows)) if known else (0, {})

    def _one(self, query: str) -> int:
        rows: list[Any] = self._database.rows(query, (), tuple)
        return int(rows[0][0])
