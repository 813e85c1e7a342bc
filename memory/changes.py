"""Whether something of some kinds came onto the record: rows of whatever process, each once it is believed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from finllm.memory.reading import LedgerReader, UsedRow
from finllm.scheduler.record import EntryKind

BEFORE = 500
"""Uses before the first look that are looked at too: of some the record may still be on its way."""


class Changes:
    """Counts rows of these kinds. Thread-safe. Errors: RecordError.

    A row comes before its record in the audit log and is believed only with it: it counts from then on, so whoever
    looks again because of the count finds it.
    """

    def __init__(
        self, ledger: LedgerReader, kinds: Sequence[EntryKind], counts: Callable[[UsedRow], bool] = lambda _row: True
    ) -> None:
        """`counts`: which rows of these kinds do."""
        self._ledger, self._kinds, self._counts = ledger, tuple(kinds), counts
        self._lock = threading.Lock()
        self._read = max(ledger.last_use() - BEFORE, 0)
        self._waiting: set[int] = set()
        self._count = 0

    def count(self) -> int:
        """How many there were by now, from somewhere on: another number where something came."""
        with self._lock:
            newest = self._ledger.last_use()
            again = [self._ledger.use(id) for id in sorted(self._waiting)]
            fresh: list[UsedRow] = []
            if newest > self._read:
                fresh = [row for kind in self._kinds for row in self._ledger.written_after(self._read, kind)]
            for row in (*again, *fresh):
                if row.id <= newest:  # of what came since, the kinds that were read first may lack some
                    self._take(row)
            self._read = max(self._read, newest)
            return self._count

    def _take(self, row: UsedRow) -> None:
        if not self._counts(row):
            return
        if self._ledger.believes(row):
            self._waiting.discard(row.id)
            self._count += 1
        else:
            self._waiting.add(row.id)
