"""Rows of the ledger held against the audit log before they are believed: an answer, a run's uses, its report.

What a row says is hashed and compared with the record that was written when the row was new; the record has to be
under the log's signed checkpoint. Whoever changes a row would have to change the log as well, which needs its key and
is found against a witness.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn, Self

from finllm.errors import InputError, RecordAltered, RecordError
from finllm.guardrails.audit.log import AuditLog
from finllm.guardrails.audit.reader import LogReader
from finllm.memory.database import Database
from finllm.memory.held import EntryRow, UseRow
from finllm.memory.places import Places

ENDED = ("run.finished", "run.blocked")
"""Records that hold a run's report."""
SCANNED = 64
"""Runs whose records are kept at hand."""


@dataclass(frozen=True)
class Said:
    """What a record says of a row of the ledger: `use` is the row's number, the digests are sha256 of JSON text."""

    action: str
    run: str | None = None
    node: str | None = None
    task: str | None = None
    use: int | None = None
    actor: str | None = None
    request: str | None = None
    response: str | None = None
    content: str | None = None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        use, actor = body.get("ledger", {}).get("use"), body.get("actor", {}).get("name")
        names = ("run", "node", "task", "request", "response", "content")
        return cls(body["action"], use=use, actor=actor, **{name: body.get(name) for name in names})

    @property
    def kind(self) -> str:
        return self.action.rpartition(".")[0]


class HeldToLog:
    """The rows of one ledger, held against the audit log in `folder`. Implements `memory.held.RowCheck`. Thread-safe.

    Errors, of everything here: RecordError; RecordAltered, naming the row, for one that differs.
    """

    def __init__(self, folder: Path, database: Database, log: AuditLog | None = None) -> None:
        """`log`: the writer of this process, if it writes."""
        self._folder = folder
        self._log = log
        self._lock = threading.RLock()
        self._indexed: dict[str, Said] = {}
        self._entries: dict[str, Said] = {}
        """The first records of entries that are not in the index."""
        self._runs: dict[str, list[Said]] = {}
        """By run, the records of those whose first one is not in the index."""
        self._scanned: dict[str, list[Said]] = {}
        """By run, the records of those whose first one is in the index: the log was searched for them once."""
        self._reader: LogReader | None = None
        try:
            self._reader = LogReader(folder)
        except InputError as error:
            if folder.exists():
                raise RecordError(error.message, fix=error.fix) from error
        self._places = Places(database, self._reader.meta.log if self._reader else "")
        self._known = self._places.through
        """How many of the log's records are in the index or were read here."""
        self._live = 0
        """The same, with those that this process has written since."""
        self._take_in()

    def index(self) -> None:
        """Put into the ledger's index what the log holds beyond it."""
        with self._lock:
            places = self._places
            if self._known > places.through:
                found = [(self._said(at), at) for at in range(places.through, self._known)]
                places.add([(said.task, at) for said, at in found if said.task],
                           [(said.run, at) for said, at in found if said.run], self._known)  # fmt: skip

    def look(self) -> None:
        with self._lock:
            self._grow()

    def appended(self, body: Mapping[str, Any], at: int) -> None:
        """Take in a record that this process has written, the log's number `at`."""
        with self._lock:
            self._add(Said.of(body))
            self._live += at == self._live

    def entry(self, row: EntryRow) -> bool:
        said = self._first(row.key)
        if said is None:
            return False
        self._compare(row, said)
        return True

    def uses(self, run_id: str, rows: Sequence[UseRow]) -> list[UseRow]:
        by_use: dict[int, Said] = {}
        for said in self._of_run(run_id):
            if said.use is not None:
                by_use.setdefault(said.use, said)
        believed: list[UseRow] = []
        for row in rows:
            said = by_use.pop(row.id, None)
            if said is None:
                continue
            action = f"{row.entry.kind}.{'reused' if row.reused else 'recorded'}"
            if (said.node, said.task, said.run, said.action) != (row.node, row.entry.key, run_id, action):
                self._differs(f"use {row.id} of run {run_id!r} is not what it was")
            self._compare(row.entry, said)
            believed.append(row)
        if by_use:
            gone = ", ".join(f"{said.kind} at {said.node!r}" for said in list(by_use.values())[:3])
            self._differs(f"{len(by_use)} rows of run {run_id!r} are gone ({gone})")
        return believed

    def run(self, run_id: str, request: str, result: str | None) -> None:
        self.look()
        said = self._of_run(run_id)
        begun = [one.content for one in said if one.action == "run.started"]
        if not begun:
            raise RecordAltered(
                f"run {run_id!r} is in the ledger, and the audit log {str(self._folder)!r} has no record of it",
                fix="restore the log's folder from a copy, or start a new run",
            )
        if digest(request) != begun[0]:
            self._differs(f"the request of run {run_id!r} is not what it was")
        if result is not None and digest(result) not in [one.content for one in said if one.action in ENDED]:
            self._differs(f"the report of run {run_id!r} is not what it was")

    def _compare(self, row: EntryRow, said: Said) -> None:
        told = (said.kind, said.actor, said.request, said.response)
        if (row.kind, row.actor, digest(row.request), digest(row.response)) != told:
            self._differs(f"the {said.kind} {row.key[:12]} is not what it was")

    def _first(self, key: str) -> Said | None:
        """The first record of an entry: where the index has one, whatever the log's end says of it."""
        with self._lock:
            if key in self._indexed:
                return self._indexed[key]
            if (at := self._places.entry(key)) is not None:
                said = self._indexed[key] = self._said(at)
                if said.task != key:
                    self._differs(f"the place of the entry {key[:12]} in the log is not what it was")
                return said
            if key not in self._entries:
                self._grow()
            return self._entries.get(key)

    def _of_run(self, run_id: str) -> list[Said]:
        """All records of a run, in order."""
        with self._lock:
            first = self._places.run(run_id)
            if first is None or self._reader is None:
                return self._runs.get(run_id, [])
            if run_id not in self._scanned:  # what is written of it from here on is in `_runs`
                if len(self._scanned) >= SCANNED:
                    del self._scanned[next(iter(self._scanned))]
                proven = self._reader.proven_of(run_id, first)
                self._scanned[run_id] = [Said.of(json.loads(data)["body"]) for data in proven]
            return [*self._scanned[run_id], *self._runs.get(run_id, ())]

    def _said(self, at: int) -> Said:
        assert self._reader is not None
        return Said.of(json.loads(self._reader.proven(at))["body"])

    def _grow(self) -> None:
        """Take in what other processes have written since this one looked last."""
        if self._log is not None:
            if self._log.size == self._live and not self._log.behind():
                return
        elif self._reader is not None and not self._reader.grown():
            return
        with contextlib.suppress(InputError):  # no run has begun a log here yet
            if self._reader is None:
                self._reader = LogReader(self._folder)
            else:
                self._reader.catch_up()
            self._take_in()

    def _take_in(self) -> None:
        before, self._known = self._known, self._reader.size if self._reader else 0
        if self._known < before:
            raise RecordAltered(
                f"the audit log {str(self._folder)!r} has {self._known} records, and the ledger knows of {before}",
                fix="run 'finllm audit verify', and restore the log's folder from a copy",
            )
        self._live = self._known
        for at in range(before, self._known):
            self._add(self._said(at))

    def _add(self, said: Said) -> None:
        if said.task is not None:
            self._entries.setdefault(said.task, said)
        if said.run is not None:
            self._runs.setdefault(said.run, []).append(said)

    def _differs(self, what: str) -> NoReturn:
        raise RecordAltered(
            f"the ledger was altered: {what} when the audit log {str(self._folder)!r} recorded it; nothing was decided "
            "on it",
            fix="see all that differs with 'finllm audit verify', and restore ledger.sqlite from a copy",
        )


def digest(text: str) -> str:
    """Hex sha256 of a row's text, as records name it."""
    return sha256(text.encode()).hexdigest()
