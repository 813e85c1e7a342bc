"""Rows of one kind as they come onto the ledger: read once each, appended by compare-and-swap at a place of their own.

The chain knows what was read before, so that asking again costs what is new, however much else is on record.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from finllm.errors import RecordError
from finllm.memory.ledger import Ledger
from finllm.memory.reading import LedgerReader, UsedRow
from finllm.scheduler.placement.task import key_of
from finllm.scheduler.record import Entry, EntryKind


class Chain:
    """The rows of a kind in a ledger, in the order in which they were written. Thread-safe. Errors: RecordError."""

    def __init__(self, ledger: LedgerReader, kind: EntryKind, name: str) -> None:
        """`name`: an entry's key is made of it and of its place, and it is the node of its use."""
        self._ledger, self._kind, self._name = ledger, kind, name
        self._lock = threading.RLock()
        self._rows: list[Entry] = []
        self._keys: set[str] = set()
        self._read = 0
        self._waiting: set[int] = set()
        """Uses whose record was not in the audit log when they were read: on their way, or of a process that died."""

    def rows(self) -> list[Entry]:
        """All rows that are on record now; those of before stay in their places."""
        with self._lock:
            newest = self._ledger.last_use()
            again = [self._ledger.use(id) for id in sorted(self._waiting)]
            fresh = self._ledger.written_after(self._read, self._kind) if newest > self._read else []
            for row in (*again, *fresh):
                self._take(row)
            self._read = max(self._read, newest)  # what else was written until then is not looked through again
            return list(self._rows)

    def append(self, place: Mapping[str, Any], actor: str, said: Mapping[str, Any], run: str | None = None) -> bool:
        """Put a row at its place, durable when this returns; False where another row has the place.

        `run`: under which the audit log keeps it together with others, the chain's name where none is given.
        """
        if not isinstance(self._ledger, Ledger):
            raise RecordError("the ledger is open only to read", fix="report this as a fault of finllm")
        entry = Entry(key_of(self._name, dict(place)), self._kind, actor, dict(place), dict(said))
        kept = self._ledger.swap(entry, run_id=run or self._name, node=self._name)
        return (kept.actor, kept.response) == (actor, entry.response)

    def _take(self, row: UsedRow) -> None:
        if row.use.key in self._keys:
            self._waiting.discard(row.id)
        elif self._ledger.believes(row):
            self._waiting.discard(row.id)
            self._keys.add(row.use.key)
            self._rows.append(row.use.entry)
        else:
            self._waiting.add(row.id)
        self._read = max(self._read, row.id)
