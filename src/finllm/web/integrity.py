"""Whether the record is whole, for the badge of every item: verified again, in a process apart, once it grew."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from finllm.errors import FinllmError

if TYPE_CHECKING:
    from finllm.settings import Settings

OFTEN = 60.0
"""s at least between two verifications of a record that grows: to look at an item is itself put on record."""
LONGEST = 600.0


@dataclass(frozen=True)
class Integrity:
    """What a verification of the whole record found; `at` (s since 1970) and how long it took, s.

    `status`: `intact`, `unproven` (no witness says that nothing is missing), `damaged`, or `not checked`.
    """

    status: str
    size: int = 0
    witnessed: int | None = None
    damage: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    at: float = 0.0
    took: float = 0.0

    @property
    def tone(self) -> str:
        return {"intact": "good", "unproven": "warn", "not checked": "warn"}.get(self.status, "bad")


NOT_YET = Integrity("not checked", notes=("it is being verified for the first time since the server began",))


class Verifier:
    """The newest verification of a home. Thread-safe; one goes on at a time, and nobody waits for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._lock = settings, threading.Lock()
        self._last, self._newest, self._going = NOT_YET, -1, False

    def look(self, newest: int) -> Integrity:
        """The newest there is; another is begun where the ledger's last row is another than `newest` was then."""
        with self._lock:
            stale = newest != self._newest and time.time() - self._last.at > OFTEN
            if stale and not self._going:
                self._going = True
                threading.Thread(target=self._verify, args=(newest,), daemon=True).start()
            return self._last

    def _verify(self, newest: int) -> None:
        try:
            found = verified_apart(self._settings)
        except (OSError, RuntimeError) as error:  # no process can be begun now
            found = Integrity("not checked", notes=(f"it could not be verified: {error}",), at=time.time())
        with self._lock:
            self._last, self._newest, self._going = found, newest, False


def verified_apart(settings: Settings) -> Integrity:
    """Verify in a process of its own, which takes no page's time."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, settings), daemon=True)
    began = time.time()
    process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(LONGEST) else Integrity("not checked", notes=("it took too long",), at=began)
    except (EOFError, OSError):
        found = Integrity("not checked", notes=("the process that verifies has ended",), at=began)
    process.kill()
    process.join()
    ours.close()
    return found


def _child(pipe: Connection, settings: Settings) -> None:
    os.nice(19)
    pipe.send(verified(settings))


def verified(settings: Settings) -> Integrity:
    """Every record, blob and signature, then every row of the ledger and every report file against the log."""
    from finllm.guardrails.audit import read_witnessed, verify_log
    from finllm.guardrails.audit.home import verify_home

    began = time.time()
    try:
        kept = settings.audit_witness
        verdict = verify_log(settings.audit_dir, None if kept is None else read_witnessed(kept))
        held = verify_home(settings.audit_dir, settings.ledger_path) if not verdict.damage else []
    except FinllmError as error:
        return Integrity("not checked", notes=(error.message, error.fix), at=began, took=time.time() - began)
    problems = [f"record {one.index}: {one.kind}: {one.what}" for one in verdict.damage]
    problems += [f"{one.file}: {what}" for one in held for what in one.problems]
    notes = (*verdict.notes, *(note for one in held for note in one.notes))
    return Integrity("damaged" if problems else verdict.status, verdict.size, verdict.witnessed, tuple(problems[:50]),
                     notes, began, time.time() - began)  # fmt: skip
