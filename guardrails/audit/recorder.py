"""A ledger whose writes return only once the audit log has them too, and which believes no row that the log does not.

The ledger's row comes first; the audit record follows before anybody sees the answer. A row whose process died in
between was seen by nobody and is not believed: what it answers is asked again. A use of an entry that is on record gets
its record when the log is next opened by one process alone. Runs are the other way round: the record of a start or an
end comes first, and a repeated one does no harm.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finllm.errors import RecordError
from finllm.files import exclusive
from finllm.guardrails.audit.clock import ClockWatch
from finllm.guardrails.audit.commit import Item
from finllm.guardrails.audit.held import HeldToLog
from finllm.guardrails.audit.keys import keyring
from finllm.guardrails.audit.log import AuditLog
from finllm.guardrails.audit.reader import LogReader
from finllm.guardrails.audit.records import (
    clock_stepped,
    run_ended,
    run_started,
    session_opened,
    told_by_cluster,
    use_recorded,
)
from finllm.guardrails.audit.storage import Layout
from finllm.memory.database import Patience
from finllm.memory.leases import LEASE_SECONDS, Lease
from finllm.memory.ledger import Ledger, Tip
from finllm.memory.texts import Texts, texts_of
from finllm.scheduler.record import Entry
from finllm.settings import Settings


class AuditedRecorder(Ledger):
    """A ledger whose writes return only once the audit log has them too, and whose rows are held against that.

    Errors, of all writes and of opening: RecordError; the ledger's row is kept then, and nothing is decided on it.
    """

    def __init__(
        self,
        path: Path,
        log: AuditLog,
        folder: Path,
        patience: Patience | None = None,
        *,
        lease_seconds: float = LEASE_SECONDS,
        watch: ClockWatch | None = None,
        texts: Texts | None = None,
    ) -> None:
        """`texts`: where the texts of a run's sources are kept whole before its start is on record."""
        super().__init__(path, patience, lease_seconds=lease_seconds)
        self._texts = texts
        self._log, self._watch = log, watch or ClockWatch()
        self._session = secrets.token_hex(6)
        self._swapping = path.with_name(f".{path.name}.swap")
        try:
            self._held = HeldToLog(folder, self._database, log)
            self.hold_to(self._held)
            self._alone = os.open(Layout(folder).sessions, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._begin(folder)
        except OSError as error:
            super().close()
            raise RecordError(
                f"cannot open the audit log {str(folder)!r}: {error}; nothing was decided without it",
                fix="free disk space or mend its permissions, then resume the run",
            ) from error
        except BaseException:
            super().close()
            raise

    def close(self) -> None:
        """Close ledger and log; the log is left under a fresh checkpoint."""
        super().close()
        os.close(self._alone)
        self._log.close()

    def record(self, entry: Entry, *, run_id: str, node: str) -> None:
        use_id = self.write(entry, run_id=run_id, node=node)
        row = self.use(use_id)
        if row.use.reused and not self._held.entry(row.row):
            self.replace(entry, use_id)  # what was there has no record: its process died, and nobody has seen it
        self._audit(use_id)

    def swap(self, entry: Entry, *, run_id: str, node: str) -> Entry:
        """As in a ledger, one at a time: whoever looks sees a row only once the audit log has it too."""
        with exclusive(self._swapping):
            return super().swap(entry, run_id=run_id, node=node)

    def tip(self) -> Tip:
        """How far the log goes, under a checkpoint that is signed now."""
        made = self._log.checkpoint()
        return Tip(made.size, made.root.hex())

    def used(self, key: str, *, run_id: str, node: str) -> None:
        self._audit(self.write_use(key, run_id=run_id, node=node))

    def start_run(self, run_id: str, request: dict[str, Any]) -> Lease:
        if self._texts is not None:
            self._texts.keep(texts_of(request))
        self._append(run_started(run_id, request, self._session, kept=self._texts is not None))
        return super().start_run(run_id, request)

    def end_run(self, run_id: str, status: str, result: dict[str, Any] | None) -> None:
        self.check_held(run_id)
        row = self.run(run_id)
        try:
            self._append(run_ended(run_id, status, {} if row is None else row.request, result, self._session))
        except RecordError:
            if status == "stopped":  # so it is, whether the audit log can say it or not
                super().end_run(run_id, status, result)
            raise
        super().end_run(run_id, status, result)

    def told(self, what: str, about: Mapping[str, Any]) -> None:
        """Put on record what a cluster refused, or that a node of it went. From any thread."""
        self._append(told_by_cluster(what, about, self._session))

    def _audit(self, use_id: int) -> None:
        row = self.use(use_id)
        self._append(use_recorded(row.use, row.run_id, row.id, row.at_ns, self._session, recovered=False))

    def _append(self, item: Item) -> None:
        if by := self._watch.step():
            self._put(clock_stepped(self._session, by))
        self._put(item)

    def _put(self, item: Item) -> None:
        body, blobs = item
        self._held.appended(body, self._log.append(body, blobs))

    def _begin(self, folder: Path) -> None:
        """Say that this session begins and, where no other is open, give uses without an audit record theirs."""
        self._held.index()
        try:
            fcntl.flock(self._alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._alone, fcntl.LOCK_SH)
            self._append(session_opened(self._session, through=-1, recovered=0, unproven=0))
            return
        if by := self._watch.behind(_newest(folder)):
            self._put(clock_stepped(self._session, by))
        through, known = _audited(folder)
        missing = [row for row in self.uses_after(max(through, 0)) if row.id not in known]
        proven = [row for row in missing if self._held.entry(row.row)]
        for row in proven:
            self._append(use_recorded(row.use, row.run_id, row.id, row.at_ns, self._session, recovered=True))
        self._append(session_opened(self._session, through=self.last_use(), recovered=len(proven),
                                    unproven=len(missing) - len(proven)))  # fmt: skip
        fcntl.flock(self._alone, fcntl.LOCK_SH)


@contextlib.contextmanager
def _closing_on_error(log: AuditLog) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(RecordError):
            log.close()
        raise


def open_recorder(settings: Settings, tell: Callable[[str], None] | None = None) -> AuditedRecorder:
    """The ledger and the audit log of the home, opened together; `tell` is told where another process has it locked.

    Errors: RecordError; InputError for a signing key that cannot be read.
    """
    try:
        keys = keyring(settings)
    except OSError as error:
        raise RecordError(
            f"cannot make the signing key in {str(settings.home)!r}: {error}; nothing was decided without it",
            fix="mend the folder's permissions, or give a key in FINLLM_AUDIT_KEY",
        ) from error
    log = AuditLog(settings.audit_dir, keys)
    with _closing_on_error(log):
        patience = Patience.of(settings, tell)
        return AuditedRecorder(settings.ledger_path, log, settings.audit_dir, patience, lease_seconds=settings.lease,
                               texts=Texts(settings.texts_dir))  # fmt: skip


def _newest(folder: Path) -> int:
    """When the newest record was made, ns, UTC; 0 where there is none."""
    newest = next(LogReader(folder).newest_first(), None)
    return 0 if newest is None else int(json.loads(newest)["body"]["at"]["ns"])


def _audited(folder: Path) -> tuple[int, set[int]]:
    """The use up to which all have a record, by the last session that could tell, and those recorded since."""
    known: set[int] = set()
    reader = LogReader(folder)
    for data in reader.newest_first():
        body = json.loads(data)["body"]
        through = body["ledger"]["through"] if body["action"] == "session.opened" else -1
        if through >= 0:
            return through, known
        if "ledger" in body:
            known.add(body["ledger"].get("use", -1))
    return 0, known
