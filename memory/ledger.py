"""The ledger: every model call, placement and human answer as a row keyed by its content, durable before it is seen.

SQLite in WAL mode with `synchronous=FULL`. Rows are only ever added. A run is re-run to resume or replay it: what the
ledger holds is answered from it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finllm.errors import RecordError
from finllm.files import exclusive
from finllm.scheduler.record import Entry, EntryKind

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE meta (schema_version INTEGER NOT NULL);
CREATE TABLE entry (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, actor TEXT NOT NULL, created_ns INTEGER NOT NULL,
    request TEXT NOT NULL, response TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE use (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, node TEXT NOT NULL, key TEXT NOT NULL,
    reused INTEGER NOT NULL, at_ns INTEGER NOT NULL, FOREIGN KEY (key) REFERENCES entry (key)
);
CREATE INDEX use_by_run ON use (run_id, id);
CREATE TABLE run (
    id TEXT PRIMARY KEY, created_ns INTEGER NOT NULL, request TEXT NOT NULL,
    status TEXT NOT NULL, result TEXT, finished_ns INTEGER
) WITHOUT ROWID;
"""

_USES = (
    "SELECT u.id, u.run_id, u.at_ns, u.node, u.reused, e.key, e.kind, e.actor, e.request, e.response "
    "FROM use u JOIN entry e ON e.key = u.key"
)


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


@dataclass(frozen=True)
class RunRow:
    """A run: its inputs, its status (`running`, `finished`, `blocked`, `stopped`) and, once it ended, its report."""

    id: str
    created_ns: int
    request: dict[str, Any]
    status: str
    result: dict[str, Any] | None


class Ledger:
    """The ledger file. Thread-safe; several processes may use one file. Implements `scheduler.record.Recorder`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            with exclusive(
                path.with_name(f".{path.name}.lock")
            ):  # SQLite does not wait where two switch to WAL at once
                self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
                self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise self._failed("open", error) from error

    def _prepare(self) -> None:
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._migrate()
        except BaseException:
            self._db.close()
            raise

    def _migrate(self) -> None:
        with self._transaction() as db:
            exists = db.execute("SELECT 1 FROM sqlite_master WHERE type='table' AND name='meta'").fetchone()
            if exists is None:
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute("INSERT INTO meta VALUES (?)", (SCHEMA_VERSION,))
            row = db.execute("SELECT schema_version FROM meta").fetchone()
        found = None if row is None else row[0]
        if found != SCHEMA_VERSION:
            raise RecordError(
                f"the ledger {str(self._path)!r} has schema {found}, this finllm reads {SCHEMA_VERSION}",
                fix="use the finllm version that wrote it, or another FINLLM_HOME",
            )

    def close(self) -> None:
        self._db.close()

    def lookup(self, key: str) -> Entry | None:
        with self._reading() as db:
            row = db.execute("SELECT key, kind, actor, request, response FROM entry WHERE key=?", (key,)).fetchone()
            return None if row is None else _entry(row)

    def record(self, entry: Entry, *, run_id: str, node: str) -> None:
        """Write an entry and its first use. A key that another process wrote meanwhile is kept as it was."""
        self.write(entry, run_id=run_id, node=node)

    def write(self, entry: Entry, *, run_id: str, node: str) -> int:
        """What `record` does; the number of the use."""
        now = time.time_ns()
        row = (entry.key, entry.kind, entry.actor, now, dump(entry.request), dump(entry.response))
        with self._transaction() as db:
            written = db.execute("INSERT OR IGNORE INTO entry VALUES (?, ?, ?, ?, ?, ?)", row).rowcount
            return self._use(db, entry.key, run_id, node, reused=not written, at_ns=now)

    def used(self, key: str, *, run_id: str, node: str) -> None:
        self.write_use(key, run_id=run_id, node=node)

    def write_use(self, key: str, *, run_id: str, node: str) -> int:
        """What `used` does; the number of the use."""
        with self._transaction() as db:
            return self._use(db, key, run_id, node, reused=True, at_ns=time.time_ns())

    @staticmethod
    def _use(db: sqlite3.Connection, key: str, run_id: str, node: str, *, reused: bool, at_ns: int) -> int:
        row = db.execute(
            "INSERT INTO use (run_id, node, key, reused, at_ns) VALUES (?, ?, ?, ?, ?)",
            (run_id, node, key, int(reused), at_ns),
        )
        assert row.lastrowid is not None
        return row.lastrowid

    def uses(self, run_id: str, kind: EntryKind | None = None) -> list[Use]:
        """What a run used, in order, each use with its entry."""
        query = (
            "SELECT u.node, u.reused, e.key, e.kind, e.actor, e.request, e.response "
            "FROM use u JOIN entry e ON e.key = u.key WHERE u.run_id=? AND (? IS NULL OR e.kind=?) ORDER BY u.id"
        )
        with self._reading() as db:
            rows = db.execute(query, (run_id, kind, kind)).fetchall()
            return [Use(row[0], row[2], bool(row[1]), _entry(row[2:])) for row in rows]

    def use(self, id: int) -> UsedRow:
        """One use by its number, which must be there."""
        with self._reading() as db:
            return _used(db.execute(f"{_USES} WHERE u.id=?", (id,)).fetchone())

    def uses_after(self, id: int) -> list[UsedRow]:
        """The uses of all runs after the one numbered `id`, in order."""
        with self._reading() as db:
            return [_used(row) for row in db.execute(f"{_USES} WHERE u.id>? ORDER BY u.id", (id,)).fetchall()]

    def uses_since(self, at_ns: int) -> list[UsedRow]:
        """What calls of all runs cost since a time (ns, UTC): the uses that wrote a call or a charge, in order."""
        query = f"{_USES} WHERE u.at_ns>=? AND u.reused=0 AND e.kind IN ('call', 'charge') ORDER BY u.id"
        with self._reading() as db:
            return [_used(row) for row in db.execute(query, (at_ns,)).fetchall()]

    def last_use(self) -> int:
        """The number of the newest use; 0 where there is none."""
        with self._reading() as db:
            return db.execute("SELECT coalesce(max(id), 0) FROM use").fetchone()[0]

    def start_run(self, run_id: str, request: dict[str, Any]) -> None:
        with self._transaction() as db:
            db.execute(
                "INSERT INTO run VALUES (?, ?, ?, 'running', NULL, NULL)", (run_id, time.time_ns(), dump(request))
            )

    def end_run(self, run_id: str, status: str, result: dict[str, Any] | None) -> None:
        with self._transaction() as db:
            db.execute(
                "UPDATE run SET status=?, result=?, finished_ns=? WHERE id=?",
                (status, None if result is None else dump(result), time.time_ns(), run_id),
            )

    def run(self, run_id: str) -> RunRow | None:
        with self._reading() as db:
            row = db.execute("SELECT id, created_ns, request, status, result FROM run WHERE id=?", (run_id,)).fetchone()
            return None if row is None else _run(row)

    def runs(self) -> list[RunRow]:
        """All runs, newest first."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT id, created_ns, request, status, result FROM run ORDER BY created_ns DESC, id DESC"
            ).fetchall()
            return [_run(row) for row in rows]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._failed("write", error) from error
            finally:
                with contextlib.suppress(sqlite3.Error):  # a full disk may have rolled back already
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except (sqlite3.Error, ValueError) as error:
                raise self._failed("read", error) from error

    def _failed(self, verb: str, error: Exception) -> RecordError:
        return RecordError(
            f"cannot {verb} the ledger {str(self._path)!r}: {error}; nothing was decided without it",
            fix="free disk space or mend its permissions, then resume the run",
        )


def dump(value: Any) -> str:
    """The JSON of a row, the same text for the same value. Errors: RecordError for what JSON cannot say."""
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError) as error:
        raise RecordError(
            f"cannot put this on record: {error}", fix="report this as a fault of finllm; nothing was decided on it"
        ) from error
    return text


def _used(row: Any) -> UsedRow:
    id, run_id, at_ns, node, reused, *entry = row
    return UsedRow(id, run_id, at_ns, Use(node, entry[0], bool(reused), _entry(entry)))


def _entry(row: Any) -> Entry:
    key, kind, actor, request, response = row
    return Entry(key, kind, actor, json.loads(request), json.loads(response))


def _run(row: Any) -> RunRow:
    return RunRow(row[0], row[1], json.loads(row[2]), row[3], None if row[4] is None else json.loads(row[4]))
