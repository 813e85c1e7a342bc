"""The private file beside the ledger: hashes of pass phrases, failed attempts, who is signed in or signing in, sealed
exercises, looks at items that are not on record yet.

Nothing in it decides who somebody is by itself: the record on the ledger names by digest the hash that counts, so that
a hash put here by hand opens nothing. It can be lost without loss of a record, but for looks of the last moment:
everybody then gets a new pass phrase.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finllm.errors import RecordError
from finllm.files import check_secret, exclusive, make_private

_WAIT = 10.0
"""s that a write waits for another process."""
_TABLES = """
CREATE TABLE IF NOT EXISTS phrase (digest TEXT PRIMARY KEY, name TEXT NOT NULL, encoded TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failed (name TEXT PRIMARY KEY, count INTEGER NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signed_in (
    token TEXT PRIMARY KEY, name TEXT NOT NULL, changes INTEGER NOT NULL, began REAL NOT NULL, seen REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS signed_in_by_name ON signed_in (name);
CREATE TABLE IF NOT EXISTS oidc_flow (
    cookie TEXT PRIMARY KEY, state TEXT NOT NULL, nonce TEXT NOT NULL, verifier TEXT NOT NULL, redirect TEXT NOT NULL,
    began REAL NOT NULL, name TEXT NOT NULL, session TEXT NOT NULL, item TEXT NOT NULL, report TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS oidc_proof (
    session TEXT NOT NULL, item TEXT NOT NULL, report TEXT NOT NULL, name TEXT NOT NULL, said TEXT NOT NULL,
    at REAL NOT NULL, PRIMARY KEY (session, item, report)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sealed (digest TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS looking (
    number INTEGER NOT NULL, by TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (number, by, at)
) WITHOUT ROWID;
"""


class SecretFile:
    """The SQLite file at `path`, made for its owner alone. Thread-safe; several processes may use it.

    Errors, of everything here: RecordError; InputError for a file that others may read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock, self._reads = threading.Lock(), threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        """A connection of its own, so that whoever reads does not wait until what another writes is on disk."""

    def close(self) -> None:
        with self._lock, self._reads:
            for one in (self._db, self._reader):
                if one is not None:
                    one.close()
            self._db = self._reader = None

    def rows(self, query: str, *given: Any) -> list[tuple[Any, ...]]:
        """What a query finds; nothing where there is no file yet."""
        with self._reads, self._told("read"):
            if self._reader is None:
                if not self._path.exists():
                    return []
                self._reader = self._opened()
            return self._reader.execute(query, given).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all of it or nothing; nobody else writes meanwhile."""
        with self._lock, self._told("write"):
            db = self._db = self._db or self._opened()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _opened(self) -> sqlite3.Connection:
        make_private(self._path.parent)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        check_secret(self._path, "the file of pass phrases")
        db = sqlite3.connect(self._path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
        with exclusive(self._path.with_name(f".{self._path.name}.lock")):
            db.execute("PRAGMA journal_mode=WAL")  # a commit waits for the disk once; two may not switch at once
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(_TABLES)
        return db

    @contextlib.contextmanager
    def _told(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise RecordError(
                f"cannot {verb} {str(self._path)!r}: {error}; nothing was decided without it",
                fix="free disk space or mend its permissions; where it is damaged, remove it and give each user a new "
                "pass phrase: finllm users phrase NAME",
            ) from error
