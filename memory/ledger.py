"""The ledger: every model call, placement and human answer as a row keyed by its content, durable before it is seen.

SQLite in WAL mode with `synchronous=FULL`. Rows are only ever added, but for leases. A run is re-run to resume or
replay it: what the ledger holds is answered from it. One process at a time drives a run; its report is written once.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finllm.errors import RecordError
from finllm.memory.database import Mode, Patience
from finllm.memory.leases import LEASE_SECONDS, Lease, Leases
from finllm.memory.reading import LedgerReader
from finllm.scheduler.record import Entry


@dataclass(frozen=True)
class Tip:
    """How many records there are, and the hex root over them; no root where no audit log stands behind the ledger."""

    size: int
    root: str


class Ledger(LedgerReader):
    """The ledger file. Thread-safe; several processes may use one file. Implements `scheduler.record.Recorder`.

    `lease_seconds`: how long a run's process may give no sign of life before another may take the run over.
    """

    def __init__(
        self,
        path: Path,
        patience: Patience | None = None,
        *,
        lease_seconds: float = LEASE_SECONDS,
        mode: Mode = "write",
    ) -> None:
        super().__init__(path, patience, mode=mode)
        self._leases = Leases(self._database, lease_seconds)

    def close(self) -> None:
        self._leases.close()
        super().close()

    def record(self, entry: Entry, *, run_id: str, node: str) -> None:
        """Write an entry and its first use. A key that another process wrote meanwhile is kept as it was.

        Errors, of every write: RecordError; RunHeld for a run that this process held and another has taken over.
        """
        self.write(entry, run_id=run_id, node=node)

    def write(self, entry: Entry, *, run_id: str, node: str) -> int:
        """What `record` does; the number of the use."""
        now = time.time_ns()
        row = (entry.key, entry.kind, entry.actor, now, dump(entry.request), dump(entry.response))
        with self._database.transaction() as db:
            self._leases.fence(db, run_id)
            written = db.execute("INSERT OR IGNORE INTO entry VALUES (?, ?, ?, ?, ?, ?)", row).rowcount
            return _write_use(db, entry.key, run_id, node, reused=not written, at_ns=now)

    def replace(self, entry: Entry, use: int) -> None:
        """Put an entry in the place of one that is not believed: the use of that number is the one that wrote it."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE entry SET kind=?, actor=?, created_ns=?, request=?, response=? WHERE key=?",
                (entry.kind, entry.actor, time.time_ns(), dump(entry.request), dump(entry.response), entry.key),
            )
            db.execute("UPDATE use SET reused=0 WHERE id=?", (use,))

    def swap(self, entry: Entry, *, run_id: str, node: str) -> Entry:
        """Compare-and-swap: the entry takes its key where nobody has it; who holds the key then, in whatever process.

        One that loses writes nothing.
        """
        kept = self.lookup(entry.key)
        if kept is not None:
            return kept
        self.record(entry, run_id=run_id, node=node)
        return self.lookup(entry.key) or entry

    def tip(self) -> Tip:
        """How far the record goes now."""
        return Tip(self.last_use(), "")

    def used(self, key: str, *, run_id: str, node: str) -> None:
        self.write_use(key, run_id=run_id, node=node)

    def write_use(self, key: str, *, run_id: str, node: str) -> int:
        """What `used` does; the number of the use."""
        with self._database.transaction() as db:
            self._leases.fence(db, run_id)
            return _write_use(db, key, run_id, node, reused=True, at_ns=time.time_ns())

    def start_run(self, run_id: str, request: dict[str, Any]) -> Lease:
        """Write that a run begins, held by this process until its end or until the lease is given back."""
        scenario = request.get("scenario")
        title = scenario.get("title") if isinstance(scenario, dict) else None
        with self._database.transaction() as db:
            db.execute(
                "INSERT INTO run VALUES (?, ?, ?, 'running', NULL, NULL)", (run_id, time.time_ns(), dump(request))
            )
            if title is not None:
                db.execute("INSERT OR REPLACE INTO title VALUES (?, ?)", (run_id, str(title)))
            lease = self._leases.take(db, run_id)
        return self._leases.keep(lease)

    def hold(self, run_id: str) -> Lease:
        """Take what nobody holds: a run to go on with, or a batch. Errors: RunHeld, naming who has it."""
        with self._database.transaction() as db:
            lease = self._leases.take(db, run_id)
        return self._leases.keep(lease)

    def check_held(self, run_id: str) -> None:
        """Errors: RunHeld for a run that this process held and another has taken over."""
        self._leases.check(run_id)

    def end_run(self, run_id: str, status: str, result: dict[str, Any] | None) -> None:
        """Write how a run ended, or that it stopped or waits, and give its lease back, all at once.

        Errors: RunHeld where another process has it; RecordError where there is no such run, or it has its report.
        """
        text = None if result is None else dump(result)
        with self._database.transaction() as db:
            self._leases.end(db, run_id)
            done = db.execute(
                "UPDATE run SET status=?, result=?, finished_ns=? WHERE id=? AND result IS NULL",
                (status, text, time.time_ns(), run_id),
            ).rowcount
            if not done:
                raise RecordError(f"run {run_id!r} has its report already, or is not on record; none was written",
                                  fix="see it with 'finllm trace'")  # fmt: skip
        self._leases.forget(run_id)


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


def _write_use(db: sqlite3.Connection, key: str, run_id: str, node: str, *, reused: bool, at_ns: int) -> int:
    row = db.execute(
        "INSERT INTO use (run_id, node, key, reused, at_ns) VALUES (?, ?, ?, ?, ?)",
        (run_id, node, key, int(reused), at_ns),
    )
    assert row.lastrowid is not None
    return row.lastrowid
