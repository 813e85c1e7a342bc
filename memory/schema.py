"""The tables of the ledger, and the steps that bring an older ledger to them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from finllm.errors import RecordError

SCHEMA_VERSION = 3

_ENTRIES = """
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
INSERT INTO meta VALUES (1);
"""

_LEASES = """
CREATE TABLE lease (
    run_id TEXT PRIMARY KEY, token TEXT NOT NULL, host TEXT NOT NULL, machine TEXT NOT NULL, pid INTEGER NOT NULL,
    ticks INTEGER, acquired_ns INTEGER NOT NULL, heartbeat_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE title (run_id TEXT PRIMARY KEY, title TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO title SELECT id, json_extract(request, '$.scenario.title') FROM run
    WHERE json_valid(request) AND json_extract(request, '$.scenario.title') IS NOT NULL;
CREATE INDEX run_by_time ON run (created_ns, id, status);
UPDATE meta SET schema_version = 2;
"""
"""A run's lease, and what a list of runs shows: beside the rows of `run`, which hold the whole request and report."""

_PLACES = """
CREATE TABLE log_place (name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE log_read (log TEXT NOT NULL, through INTEGER NOT NULL);
UPDATE meta SET schema_version = 3;
"""
"""Where in the audit log the first records of entries and runs stand."""

_STEPS = {0: _ENTRIES, 1: _LEASES, 2: _PLACES}
"""What brings a ledger of each version to the next; 0: an empty file."""


def version_of(db: sqlite3.Connection) -> int | None:
    """The schema that a ledger has: 0 for an empty file, None where it does not say."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE type='table' AND name='meta'").fetchone() is None:
        return 0
    row = db.execute("SELECT schema_version FROM meta").fetchone()
    return None if row is None else int(row[0])


def migrate(db: sqlite3.Connection) -> None:
    """Bring a ledger to the newest schema, in the transaction that is open on it."""
    while (version := version_of(db)) in _STEPS:
        for statement in _STEPS[version].split(";\n"):
            db.execute(statement)


def check_version(version: int | None, path: Path) -> None:
    """Errors: RecordError for a schema that this finllm can neither read nor bring to its own."""
    if version != SCHEMA_VERSION and version not in _STEPS:
        raise RecordError(
            f"the ledger {str(path)!r} has schema {version}, this finllm reads {SCHEMA_VERSION}",
            fix="use the finllm version that wrote it, or another FINLLM_HOME",
        )
