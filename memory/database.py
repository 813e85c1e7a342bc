"""The ledger's SQLite file: opened to write or only to read, waited for while locked, each failure with its mend."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from finllm.errors import RecordError
from finllm.files import make_private
from finllm.memory.schema import SCHEMA_VERSION, check_version, migrate, version_of
from finllm.processes import locked_by
from finllm.settings import Settings

Mode = Literal["write", "read"]
T = TypeVar("T")

_TRY, _BETWEEN, _TELL_AFTER = 0.5, 0.05, 1.0
"""s that SQLite itself waits for a lock, that pass between two tries, and before a person is told of the wait."""


def _untold(line: str) -> None:
    del line


@dataclass(frozen=True)
class Patience:
    """How long to wait for a ledger that another process has locked, s, and who is told once that it takes a while."""

    seconds: float = 10.0
    tell: Callable[[str], None] = _untold

    @classmethod
    def of(cls, settings: Settings, tell: Callable[[str], None] | None) -> Patience:
        return cls(settings.ledger_wait, tell or _untold)


class Database:
    """One connection, shared by the threads of a process; several processes may have the file open.

    To write: made if it is not there, brought to the newest schema, in WAL mode with every commit on disk. To read:
    needs no write access, makes no file, and takes a ledger of an older schema as it is.
    Errors, of everything here: RecordError that says what failed and how to mend it.
    """

    def __init__(self, path: Path, mode: Mode, patience: Patience) -> None:
        self._path, self._mode, self._patience = path, mode, patience
        self._lock = threading.Lock()
        self._closing = contextlib.ExitStack()
        self._seen: tuple[int, int, int] | None = None
        try:
            self._db = self._open_to_write() if mode == "write" else self._open_to_read()
            self.version = self._patiently(lambda: version_of(self._db))
            check_version(self.version, path)
        except (OSError, sqlite3.Error) as error:
            self._closing.close()
            raise self._failed("open", error) from error
        except BaseException:
            self._closing.close()
            raise

    def close(self) -> None:
        self._closing.close()

    @contextlib.contextmanager
    def transaction(self, *, patient: bool = True) -> Iterator[sqlite3.Connection]:
        """Write all of it or nothing; durable when this is left. `patient` False: not where the file is locked now."""
        with self._lock:
            try:
                if patient:
                    self._patiently(lambda: self._db.execute("BEGIN IMMEDIATE"))
                else:
                    self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._failed("write", error) from error
            finally:
                with contextlib.suppress(sqlite3.Error):  # a full disk may have rolled back already
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")

    def rows(self, query: str, parameters: tuple[Any, ...], make: Callable[[Any], T]) -> list[T]:
        """What `make` makes of each row. A row that it finds spoilt (ValueError) is a RecordError too."""
        with self._lock:
            try:
                found = self._fetch(query, parameters)
                while self._seen is not None and self._seen != _quiet(self._path):
                    self._reopen()  # somebody has begun to write: what was read may be of two moments
                    found = self._fetch(query, parameters)
                return [make(row) for row in found]
            except (sqlite3.Error, OSError, ValueError) as error:
                raise self._failed("read", error) from error

    def damaged(self, error: ValueError) -> RecordError:
        """The error of a row that cannot be read."""
        return self._failed("read", error)

    def _fetch(self, query: str, parameters: tuple[Any, ...]) -> list[Any]:
        try:
            return self._patiently(lambda: self._db.execute(query, parameters).fetchall())
        except sqlite3.DatabaseError:
            if self._seen is None or self._seen == _quiet(self._path):
                raise
            return []  # read while somebody wrote: it is read again

    def _patiently(self, action: Callable[[], T]) -> T:
        """Do it, and again as long as another process has the file locked."""
        began, told = time.monotonic(), False
        while True:
            try:
                return action()
            except (sqlite3.OperationalError, BlockingIOError) as error:
                waited = time.monotonic() - began
                if not _is_lock(error):
                    raise
                if waited >= min(_TELL_AFTER, self._patience.seconds / 2) and not told:
                    told = True
                    self._patience.tell(f"waiting for the ledger {str(self._path)!r}, held by {self._lockers()}")
                if waited >= self._patience.seconds:
                    raise
                time.sleep(_BETWEEN)

    def _open_to_write(self) -> sqlite3.Connection:
        make_private(self._path.parent)
        with self._gate.open("a") as gate:  # SQLite does not wait where two switch to WAL at once
            self._patiently(lambda: fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB))
            db = self._connected(str(self._path))
            self._patiently(lambda: db.execute("PRAGMA journal_mode=WAL"))
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA foreign_keys=ON")
            if version_of(db) != SCHEMA_VERSION:
                self._patiently(lambda: db.execute("BEGIN IMMEDIATE"))
                migrate(db)
                db.execute("COMMIT")
        return db

    def _open_to_read(self) -> sqlite3.Connection:
        """Without a writer the file is whole, and is read as it lies; else SQLite has to look into what is beside it.

        Where it may not make the index that this needs, a writer died and left its log: both are read from a copy.
        """
        self._seen = _quiet(self._path)
        uri = self._path.absolute().as_uri()
        if self._seen is not None:
            return self._connected(f"{uri}?mode=ro&immutable=1", uri=True)
        try:
            db = self._connected(f"{uri}?mode=ro", uri=True)
            self._patiently(lambda: db.execute("SELECT 1 FROM sqlite_master").fetchone())
        except sqlite3.OperationalError as error:
            if not _is_of(error, "SQLITE_CANTOPEN", "SQLITE_READONLY") or not os.access(self._path, os.R_OK):
                raise
            return self._connected(str(self._copied()))
        return db

    def _reopen(self) -> None:
        self._closing.close()
        self._db = self._open_to_read()

    def _copied(self) -> Path:
        folder = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="finllm-ledger-")))
        for path in (self._path, _beside(self._path, "-wal")):
            if path.exists():
                shutil.copyfile(path, folder / path.name)
        return folder / self._path.name

    def _connected(self, database: str, *, uri: bool = False) -> sqlite3.Connection:
        db = sqlite3.connect(database, timeout=_TRY, isolation_level=None, check_same_thread=False, uri=uri)
        self._closing.callback(db.close)
        return db

    @property
    def _gate(self) -> Path:
        return self._path.with_name(f".{self._path.name}.lock")

    def _lockers(self) -> str:
        return ", ".join(locked_by(self._path, _beside(self._path, "-shm"), self._gate)) or "another process"

    def _failed(self, verb: str, error: Exception) -> RecordError:
        what, fix = self._told(error)
        after = "; nothing was decided without it" if self._mode == "write" else ""
        return RecordError(f"cannot {verb} the ledger {str(self._path)!r}: {what}{after}", fix=fix)

    def _told(self, error: Exception) -> tuple[str, str]:
        """What went wrong, and what mends it."""
        folder = str(self._path.parent)
        if _is_lock(error):
            lockers = self._lockers()
            what = f"it is locked by {lockers}, also after a wait of {self._patience.seconds:g} s"
            return what, f"wait until {lockers} has ended, or end it; FINLLM_LEDGER_WAIT sets the longest wait, s"
        if _is_of(error, "SQLITE_FULL") or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
            return f"{error}", f"free disk space where {folder!r} is, then resume the run"
        if _is_of(error, "SQLITE_CORRUPT", "SQLITE_NOTADB") or isinstance(error, ValueError):
            return (f"it is damaged: {error}", "keep the file, restore it from a copy, and hold that against the audit "
                    "log with 'finllm audit verify'")  # fmt: skip
        if _is_of(error, "SQLITE_IOERR"):
            return f"{error}", f"mend the disk or mount of {folder!r} (or free space on it), then resume the run"
        if _is_of(error, "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_CANTOPEN") or isinstance(error, OSError):
            return (
                f"{error}",
                f"mend the permissions of {folder!r} and what is in it, or set FINLLM_HOME to another folder",
            )
        return f"{error}", "report this as a fault of finllm; what was written before is kept"


def _quiet(path: Path) -> tuple[int, int, int] | None:
    """What tells a file that nobody writes from one that was written since; None while somebody may be writing."""
    if _beside(path, "-wal").exists() or _beside(path, "-journal").exists():
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _is_lock(error: Exception) -> bool:
    return isinstance(error, BlockingIOError) or _is_of(error, "SQLITE_BUSY", "SQLITE_LOCKED")


def _is_of(error: Exception, *names: str) -> bool:
    """Whether SQLite's name for an error is one of these, or of their finer kinds."""
    return str(getattr(error, "sqlite_errorname", "")).startswith(names)
