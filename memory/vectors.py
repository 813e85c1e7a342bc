"""What encoders made of texts, and slow tools of series, remembered by the digest of content and of what made it.

A cache and no record: whatever is missing or spoilt in it is computed again, to the same bytes, as every text is read
by itself. A replay does without it.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from finllm.files import make_private, sha256_of_file

_TRY = 2.0
"""s that a read or write waits for another process; after that the text is simply read again."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS made (key BLOB PRIMARY KEY, digest BLOB NOT NULL, data BLOB NOT NULL) WITHOUT ROWID"
)

Rows = npt.NDArray[np.floating]
M = TypeVar("M", bound=BaseModel)


class FileDigest(BaseModel):
    """The digest of a file."""

    sha256: str


class Vectors:
    """Arrays and models by key in one SQLite file. Thread-safe; processes share it. What fails is not remembered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()  # what makes a row may ask for others
        self._seen: dict[bytes, bytes] = {}

    def through(
        self, made_by: str, texts: Sequence[str], make: Callable[[str], Rows], dtype: type[np.floating]
    ) -> list[Rows]:  # fmt: skip
        """The row of each text, by what is named `made_by` (its digest): remembered, else made one by one."""
        keys = [hashlib.sha256(f"{made_by}\0{text}".encode()).digest() for text in texts]
        with self._lock:
            known = self._known(keys)
            new: dict[bytes, bytes] = {}
            for key, text in zip(keys, texts, strict=True):
                if key not in known:
                    known[key] = new[key] = np.ascontiguousarray(make(text), dtype=dtype).tobytes()
            self._keep(new)
        return [np.frombuffer(known[key], dtype=dtype).copy() for key in keys]

    def digest(self, path: Path) -> str:
        """Hex sha256 of a large file, remembered until its path, size or modification time changes. Errors: OSError."""
        stat = path.stat()
        about = f"{path} {stat.st_size} {stat.st_mtime_ns}"
        return self.model(FileDigest, "file", about, lambda: FileDigest(sha256=sha256_of_file(path))).sha256

    def model(self, kind: type[M], made_by: str, about: str, make: Callable[[], M]) -> M:
        """What `made_by` (its digest) makes of what `about` is the digest of: remembered, else made. Errors: `make`'s.

        Both ways it is what its JSON reads back as, so that it is the same to the last digit.
        """
        key = hashlib.sha256(f"{kind.__qualname__} {made_by}\0{about}".encode()).digest()
        with self._lock:
            known = self._known([key]).get(key)
        if known is not None:
            try:
                return kind.model_validate_json(known)
            except ValidationError:
                pass  # of another shape: made again
        data = make().model_dump_json().encode()
        with self._lock:
            self._keep({key: data})
        return kind.model_validate_json(data)

    def _known(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found = {key: self._seen[key] for key in keys if key in self._seen}
        if len(found) == len(set(keys)) or not self._path.exists():
            return found
        with suppress(sqlite3.Error), closing(self._opened()) as db:
            for key in set(keys) - found.keys():
                row = db.execute("SELECT digest, data FROM made WHERE key=?", (key,)).fetchone()
                if row is not None and hashlib.sha256(key + row[1]).digest() == row[0]:
                    found[key] = row[1]
        self._seen |= found
        return found

    def _keep(self, new: dict[bytes, bytes]) -> None:
        if not new:
            return
        self._seen |= new
        rows = [(key, hashlib.sha256(key + data).digest(), data) for key, data in new.items()]
        with suppress(sqlite3.Error, OSError):
            make_private(self._path.parent)
            with closing(self._opened()) as db, db:
                db.executemany("INSERT OR REPLACE INTO made VALUES (?, ?, ?)", rows)

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=_TRY)
        db.execute(_TABLE)
        return db


class Forgetful(Vectors):
    """Remembers nothing: every text is read again, one by one, to the same bytes."""

    def __init__(self) -> None:
        super().__init__(Path())

    def through(
        self, made_by: str, texts: Sequence[str], make: Callable[[str], Rows], dtype: type[np.floating]
    ) -> list[Rows]:  # fmt: skip
        del made_by
        return [np.ascontiguousarray(make(text), dtype=dtype) for text in texts]

    def model(self, kind: type[M], made_by: str, about: str, make: Callable[[], M]) -> M:
        del made_by, about
        return kind.model_validate_json(make().model_dump_json())
