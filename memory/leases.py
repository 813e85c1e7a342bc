"""Leases: at most one process drives a run, shows that it lives by a heartbeat, and can be told from one that died.

A lease is a row of the ledger with a random token. It is taken by compare-and-swap, renewed by a thread, and checked in
the transaction of every write that its holder makes for the run: who lost it writes nothing more.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import platform
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from finllm.errors import RecordError, RunHeld
from finllm.memory.database import Database
from finllm.processes import lives, machine, ticks_of

LEASE_SECONDS = 30.0
"""s without a sign of life after which another process may take a run over."""
BEATS = 6
"""Heartbeats in that time."""
ENDED = ("finished", "blocked")
"""What a run is once it has its report."""

COLUMNS = "l.token, l.host, l.machine, l.pid, l.ticks, l.acquired_ns, l.heartbeat_ns, l.expires_ns"
"""What `holder_of` reads, of a table of leases called l."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a run. `machine`, `pid` and `ticks` tell it from all others; times in ns, UTC."""

    token: str
    host: str
    machine: str
    pid: int
    ticks: int | None
    acquired_ns: int
    heartbeat_ns: int
    expires_ns: int

    def lives(self, now_ns: int) -> bool:
        """Whether it still holds the run: not once its time is up, nor where this machine has no such process."""
        return now_ns < self.expires_ns and (self.machine != machine() or lives(self.pid, self.ticks))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host!r}"

    @property
    def told(self) -> str:
        """Who it is, since when it holds the run, and when it last showed that it lives."""
        return f"{self}, since {_moment(self.acquired_ns)}, last sign of life {_moment(self.heartbeat_ns)}"

    def to_json(self) -> dict[str, Any]:
        return {"pid": self.pid, "host": self.host, "since": _moment(self.acquired_ns),
                "heartbeat": _moment(self.heartbeat_ns)}  # fmt: skip


def holder_of(row: Any) -> Holder | None:
    """The holder that the values of `COLUMNS` tell of; None where there is no lease."""
    return None if row[0] is None else Holder(*row)


def status_of(recorded: str, holder: Holder | None, now_ns: int) -> str:
    """Where a run stands, by what its row says and who holds it: `interrupted` if its process died before its end."""
    if recorded in ENDED or (holder is None and recorded != "running"):
        return recorded
    return "running" if holder is not None and holder.lives(now_ns) else "interrupted"


def held(run_id: str, holder: Holder) -> RunHeld:
    """What a process is told that may not have a run, because another has it."""
    return RunHeld(
        f"another process is at {run_id!r}: {holder.told}",
        fix=f"wait until it has ended, as 'finllm runs list' shows, or end that process, then: finllm resume {run_id}",
    )


class Lease:
    """The right to drive a run, for as long as the block lasts that it is the context of.

    `taken_from`: whose process died, or gave no sign of life, before the run's end.
    """

    def __init__(self, leases: Leases, run_id: str, mine: Holder, taken_from: Holder | None) -> None:
        self._leases = leases
        self.run_id, self.mine, self.taken_from = run_id, mine, taken_from

    def check(self) -> None:
        """Errors: RunHeld where another process took the run meanwhile."""
        self._leases.check(self.run_id)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leases.release(self)


class Leases:
    """The leases of one open ledger."""

    def __init__(self, database: Database, seconds: float, clock: Callable[[], int] = time.time_ns) -> None:
        self._database, self._seconds, self._clock = database, seconds, clock
        self._mine: dict[str, Lease] = {}
        self._closed = threading.Event()
        self._heart: threading.Thread | None = None

    def take(self, db: sqlite3.Connection, run_id: str) -> Lease:
        """Take a run's lease in an open transaction; `keep` it once that is committed.

        Errors: RunHeld where another process, or another task of this one, has it.
        """
        found, now = _look_up(db, run_id), self._clock()
        if run_id in self._mine:
            raise held(run_id, self._mine[run_id].mine)
        if found is not None and found.lives(now):
            raise held(run_id, found)
        pid = os.getpid()
        mine = Holder(secrets.token_hex(8), platform.node(), machine(), pid, ticks_of(pid), now, now, self._until(now))
        values = (run_id, mine.token, mine.host, mine.machine, pid, mine.ticks, now, now, mine.expires_ns)
        db.execute("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        return Lease(self, run_id, mine, found)

    def keep(self, lease: Lease) -> Lease:
        """Renew a lease from here on, from a thread: also while the event loop is busy."""
        self._mine[lease.run_id] = lease
        if self._heart is None:
            self._heart = threading.Thread(target=self._beat, name="leases", daemon=True)
            self._heart.start()
        return lease

    def fence(self, db: sqlite3.Connection, run_id: str) -> None:
        """Let nothing be written, in an open transaction, for a run whose lease this process had and lost.

        Errors: RunHeld.
        """
        lease = self._mine.get(run_id)
        if lease is None:
            return
        found = _look_up(db, run_id)
        if found is None or found.token != lease.mine.token:
            raise self._lost(lease, found)

    def end(self, db: sqlite3.Connection, run_id: str) -> None:
        """Give a run's lease back in the transaction that writes its end. Errors: RunHeld where another has it."""
        self.fence(db, run_id)
        found = _look_up(db, run_id)
        if found is not None and run_id not in self._mine and found.lives(self._clock()):
            raise held(run_id, found)
        db.execute("DELETE FROM lease WHERE run_id=?", (run_id,))

    def forget(self, run_id: str) -> None:
        """Renew it no more: its end is committed."""
        self._mine.pop(run_id, None)

    def check(self, run_id: str) -> None:
        """What `fence` does, outside a transaction."""
        lease = self._mine.get(run_id)
        if lease is None:
            return
        rows = self._database.rows(f"SELECT {COLUMNS} FROM lease l WHERE l.run_id=?", (run_id,), holder_of)
        found = rows[0] if rows else None
        if found is None or found.token != lease.mine.token:
            raise self._lost(lease, found)

    def release(self, lease: Lease) -> None:
        """Give a lease back, if it is still this process's; where that cannot be written, its time runs out."""
        if self._mine.get(lease.run_id) is not lease:
            return
        with contextlib.suppress(RecordError), self._database.transaction() as db:
            db.execute("DELETE FROM lease WHERE run_id=? AND token=?", (lease.run_id, lease.mine.token))
        self.forget(lease.run_id)

    def close(self) -> None:
        """Give all leases back."""
        self._closed.set()
        if self._heart is not None:
            self._heart.join()
        for lease in list(self._mine.values()):
            self.release(lease)

    def _beat(self) -> None:
        while not self._closed.wait(self._seconds / BEATS):
            with contextlib.suppress(RecordError):  # there are more beats before the time is up
                self._renew()

    def _renew(self) -> None:
        """Show that this process lives; waits for no lock, so that nobody waits for it."""
        mine = list(self._mine.values())
        if not mine:
            return
        now = self._clock()
        with self._database.transaction(patient=False) as db:
            for lease in mine:
                db.execute("UPDATE lease SET heartbeat_ns=?, expires_ns=? WHERE run_id=? AND token=?",
                           (now, self._until(now), lease.run_id, lease.mine.token))  # fmt: skip

    def _until(self, now_ns: int) -> int:
        return now_ns + int(self._seconds * 1e9)

    def _lost(self, lease: Lease, found: Holder | None) -> RunHeld:
        by = "another process, which has ended" if found is None else found.told
        return RunHeld(
            f"{lease.run_id!r} was taken over by {by}: this process gave no sign of life for {self._seconds:g} s, and "
            "writes nothing more of it",
            fix="see 'finllm runs list' for how it stands; where processes stand still for long, raise FINLLM_LEASE; "
            f"go on with: finllm resume {lease.run_id}",
        )


def _look_up(db: sqlite3.Connection, run_id: str) -> Holder | None:
    row = db.execute(f"SELECT {COLUMNS} FROM lease l WHERE l.run_id=?", (run_id,)).fetchone()
    return None if row is None else holder_of(row)


def _moment(ns: int) -> str:
    return dt.datetime.fromtimestamp(ns / 1e9, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
