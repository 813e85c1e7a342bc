"""Where in the audit log the records of the ledger's rows stand: an index, made again from the log wherever it lacks.

It only saves a search: what is found at a place is compared with the row, so an index that lies is found out.
"""

from __future__ import annotations

from collections.abc import Iterable

from finllm.memory.database import Database

_RUN = "run "
"""Before the names of runs in the index, whose other names are entries' keys."""


class Places:
    """The index of a ledger over the audit log named `log`; empty for another log, and in a ledger of an older schema.

    Errors, of everything here: RecordError.
    """

    def __init__(self, database: Database, log: str) -> None:
        self._database = database
        self._log = log
        self._kept = (database.version or 0) >= 3
        known = self._numbers("SELECT through FROM log_read WHERE log=?", log)
        self.through = known[0] if known else 0
        """How many of the log's records are in the index."""

    def entry(self, key: str) -> int | None:
        """The number of the first record of an entry."""
        return self._first(key)

    def run(self, run_id: str) -> int | None:
        """The number of a run's first record."""
        return self._first(_RUN + run_id)

    def add(self, entries: Iterable[tuple[str, int]], runs: Iterable[tuple[str, int]], through: int) -> None:
        """Put records into the index, which then holds the log's first `through`; those of another log are dropped.

        Of several records of one entry or run the first one that was put in stays.
        """
        with self._database.transaction() as db:
            if not self.through:
                db.execute("DELETE FROM log_place")
                db.execute("DELETE FROM log_read")
                db.execute("INSERT INTO log_read VALUES (?, 0)", (self._log,))
            places = [*entries, *((_RUN + run, seq) for run, seq in runs)]
            db.executemany("INSERT OR IGNORE INTO log_place VALUES (?, ?)", places)
            db.execute("UPDATE log_read SET through=max(through, ?)", (through,))
        self.through = through

    def _first(self, name: str) -> int | None:
        return next(iter(self._numbers("SELECT seq FROM log_place WHERE name=?", name)), None) if self.through else None

    def _numbers(self, query: str, parameter: str) -> list[int]:
        return self._database.rows(query, (parameter,), lambda row: int(row[0])) if self._kept else []
