"""The ledger as readers have it: runs and what they used, without write access, from ledgers of older schemas too."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finllm.memory.database import Database, Mode, Patience
from finllm.memory.held import EntryRow, RowCheck, UseRow
from finllm.memory.leases import COLUMNS, Holder, holder_of, status_of
from finllm.scheduler.record import Entry

_USE = "u.id, u.node, u.reused, e.key, e.kind, e.actor, e.request, e.response FROM use u JOIN entry e ON e.key = u.key"
_USES = f"SELECT u.run_id, u.at_ns, {_USE}"
_NO_LEASES = (
    "(SELECT NULL AS run_id, NULL AS token, NULL AS host, NULL AS machine, NULL AS pid, NULL AS ticks, "
    "NULL AS acquired_ns, NULL AS heartbeat_ns, NULL AS expires_ns WHERE 0)"
)
_TITLES_OF_REQUESTS = "(SELECT id AS run_id, json_extract(request, '$.scenario.title') AS title FROM run)"
"""What stands for the tables of schema 2 in a ledger of schema 1."""


@dataclass(frozen=True)
class Use:
    """A run's use of an entry, in order; `reused` is False for the use that wrote the entry."""

    node: str
    key: str
    reused: bool
    entry: Entry


@dataclass(frozen=True)
class UsedRow:
    """A use as its row says: the row's number, the run, and when (ns, UTC)."""

    id: int
    run_id: str
    at_ns: int
    use: Use
    row: EntryRow


@dataclass(frozen=True)
class RunHead:
    """A run as a list shows it.

    `status`: `running` while a process that lives holds it, `interrupted` where its process died before its end,
    `stopped`, `waiting` (for a person), `finished` or `blocked`. `holder`: that process; None where the run was let go.
    """

    id: str
    created_ns: int
    title: str
    status: str
    holder: Holder | None


@dataclass(frozen=True)
class RunRow:
    """A run: its inputs, its status (as in `RunHead`) and, once it ended, its report."""

    id: str
    created_ns: int
    request: dict[str, Any]
    status: str
    result: dict[str, Any] | None
    holder: Holder | None = None


class LedgerReader:
    """What is on record. Thread-safe. Errors, of everything here: RecordError."""

    def __init__(self, path: Path, patience: Patience | None = None, *, mode: Mode = "read") -> None:
        self._database = Database(path, mode, patience or Patience())
        self._check: RowCheck | None = None
        old = self._database.version == 1
        self._leases_table = _NO_LEASES if old else "lease"
        self._titles_table = _TITLES_OF_REQUESTS if old else "title"

    def hold_to(self, check: RowCheck) -> None:
        """From here on believe only what `check` knows: `lookup`, `uses` and `run` give no row that differs from it."""
        self._check = check

    @property
    def database(self) -> Database:
        return self._database

    @property
    def schema(self) -> int | None:
        """The schema that the file has."""
        return self._database.version

    def close(self) -> None:
        self._database.close()

    def lookup(self, key: str) -> Entry | None:
        """The entry at `key`, or None where there is none, or none that is on record."""
        query = "SELECT key, kind, actor, request, response FROM entry WHERE key=?"
        row = next(iter(self._database.rows(query, (key,), lambda row: EntryRow(*row))), None)
        if row is None or (self._check is not None and not self._check.entry(row)):
            return None
        return self._parsed(row)

    def uses(self, run_id: str, kind: str | None = None) -> list[Use]:
        """What a run used, in order, each use with its entry."""
        if self._check is not None:
            self._check.look()
        rows = self._database.rows(f"SELECT {_USE} WHERE u.run_id=? ORDER BY u.id", (run_id,), _use_row)
        if self._check is not None:
            rows = self._check.uses(run_id, rows)
        return [Use(row.node, row.entry.key, row.reused, self._parsed(row.entry)) for row in rows
                if kind is None or row.entry.kind == kind]  # fmt: skip

    def use(self, id: int) -> UsedRow:
        """One use by its number, which must be there."""
        (row,) = self._database.rows(f"{_USES} WHERE u.id=?", (id,), _used)
        return row

    def uses_after(self, id: int) -> list[UsedRow]:
        """The uses of all runs after the one numbered `id`, in order, on record or not."""
        return self._database.rows(f"{_USES} WHERE u.id>? ORDER BY u.id", (id,), _used)

    def written_after(self, id: int, kind: str) -> list[UsedRow]:
        """The uses after the one numbered `id` that wrote an entry of that kind, in order, on record or not."""
        query = f"{_USES} WHERE u.id>? AND u.reused=0 AND e.kind=? ORDER BY u.id"
        return self._database.rows(query, (id, kind), _used)

    def believes(self, row: UsedRow) -> bool:
        """Whether the entry of a use is on record as it stands. Errors: RecordAltered."""
        return self._check is None or self._check.entry(row.row)

    def uses_since(self, at_ns: int) -> list[UsedRow]:
        """What calls of all runs cost since a time (ns, UTC): the uses that wrote a call or a charge, in order."""
        query = f"{_USES} WHERE u.at_ns>=? AND u.reused=0 AND e.kind IN ('call', 'charge') ORDER BY u.id"
        rows = self._database.rows(query, (at_ns,), _used)
        return [row for row in rows if self._check is None or self._check.entry(row.row)]

    def last_use(self) -> int:
        """The number of the newest use; 0 where there is none."""
        return self._database.rows("SELECT coalesce(max(id), 0) FROM use", (), lambda row: int(row[0]))[0]

    def count_uses(self, run_id: str, kind: str | None = None) -> int:
        """How many uses a run has, of that kind or of any, on record or not."""
        query, given = "SELECT count(*) FROM use WHERE run_id=?", (run_id,)
        if kind is not None:
            query, given = "SELECT count(*) FROM use u JOIN entry e ON e.key=u.key WHERE u.run_id=? AND e.kind=?", (
                run_id, kind)  # fmt: skip
        return self._database.rows(query, given, lambda row: int(row[0]))[0]

    def run(self, run_id: str) -> RunRow | None:
        found = self._run_row(run_id)
        try:
            return None if found is None else _run(found)
        except ValueError as error:
            raise self._database.damaged(error) from error

    def report_text(self, run_id: str) -> str | None:
        """The report of a run as JSON text, held to the record as `run` is; None where there is none."""
        found = self._run_row(run_id)
        return None if found is None else found[4]

    def _run_row(self, run_id: str) -> Any:
        """The row of a run as it stands, held to the record; None without one. Errors: RecordAltered."""
        query = (
            f"SELECT r.id, r.created_ns, r.request, r.status, r.result, {COLUMNS} FROM run r "
            f"LEFT JOIN {self._leases_table} l ON l.run_id = r.id WHERE r.id=?"
        )
        found = next(iter(self._database.rows(query, (run_id,), tuple)), None)
        if found is not None and self._check is not None:
            self._check.run(found[0], found[2], found[4])
        return found

    def runs(self, limit: int | None = None) -> list[RunHead]:
        """The newest runs, the newest first, as many as `limit` says; reads neither requests nor reports."""
        query = (
            f"SELECT r.id, r.created_ns, t.title, r.status, {COLUMNS} "
            "FROM (SELECT id, created_ns, status FROM run ORDER BY created_ns DESC, id DESC LIMIT ?) r "
            f"LEFT JOIN {self._titles_table} t ON t.run_id = r.id "
            f"LEFT JOIN {self._leases_table} l ON l.run_id = r.id ORDER BY r.created_ns DESC, r.id DESC"
        )
        return self._database.rows(query, (-1 if limit is None else limit,), _head)

    def _parsed(self, row: EntryRow) -> Entry:
        try:
            return row.entry()
        except ValueError as error:
            raise self._database.damaged(error) from error

    def count_runs(self) -> int:
        return self._database.rows("SELECT count(*) FROM run", (), lambda row: int(row[0]))[0]


def _use_row(row: Any) -> UseRow:
    id, node, reused, *entry = row
    return UseRow(id, node, bool(reused), EntryRow(*entry))


def _used(row: Any) -> UsedRow:
    run_id, at_ns, *use = row
    one = _use_row(use)
    return UsedRow(one.id, run_id, at_ns, Use(one.node, one.entry.key, one.reused, one.entry.entry()), one.entry)


def _run(row: Any) -> RunRow:
    id, created_ns, request, recorded, result, *lease = row
    holder = holder_of(lease)
    status = status_of(recorded, holder, time.time_ns())
    return RunRow(id, created_ns, json.loads(request), status, None if result is None else json.loads(result), holder)


def _head(row: Any) -> RunHead:
    id, created_ns, title, recorded, *lease = row
    holder = holder_of(lease)
    return RunHead(id, created_ns, title or "", status_of(recorded, holder, time.time_ns()), holder)
