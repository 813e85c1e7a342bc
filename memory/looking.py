"""Looks at items on their way onto the record: durable in the private file before anybody sees what they look at.

A row of the audited record takes a tenth of a second where ten sessions write too, and a page need not wait for it: a
look that is noted counts at once, and whoever opens the reviews next puts it on record, should its process be killed.
"""

from __future__ import annotations

from finllm.memory.review_record import ReviewRecord
from finllm.memory.review_rows import Look
from finllm.memory.secret_file import SecretFile


class Looking:
    """The looks that are noted and those on record. Thread-safe; several processes may use one home. Errors:
    RecordError."""

    def __init__(self, secret: SecretFile, record: ReviewRecord) -> None:
        self._secret, self._record = secret, record

    def note(self, number: int, look: Look) -> None:
        """Note a look at an item; durable when this returns."""
        with self._secret.transaction() as db:
            db.execute("INSERT OR IGNORE INTO looking VALUES (?, ?, ?)", (number, look.by, look.at))

    def of(self, number: int) -> list[Look]:
        """Who looked at an item, those first that are on record."""
        noted = self._secret.rows("SELECT by, at FROM looking WHERE number=? ORDER BY at", number)
        found = self._record.looks(number)  # after those: one that is put on record meanwhile is in it
        return [*found, *(look for by, at in noted if (look := Look(by=by, at=at)) not in found)]

    def settle(self) -> None:
        """Put what is noted on record; each look once, whoever else does the same."""
        for number, by, at in self._secret.rows("SELECT number, by, at FROM looking ORDER BY at"):
            self._record.look(int(number), Look(by=by, at=at))
            with self._secret.transaction() as db:
                db.execute("DELETE FROM looking WHERE number=? AND by=? AND at=?", (number, by, at))
