"""What runs cost, read from their reports in a process apart: no page waits while reports are read."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from finllm.errors import FinllmError, RecordError
from finllm.memory.leases import ENDED
from finllm.web.at_work import forking, hang_up

if TYPE_CHECKING:
    from finllm.desk.spending import SpentRow
    from finllm.memory.reading import LedgerReader
    from finllm.settings import Settings

COUNTED = 200
"""Runs whose cost is added up, the newest."""
KEPT = 5 * COUNTED
BETWEEN, LITTLE, LONGEST = 1.0, 3.0, 10.0
"""s between two looks for runs that have ended, that a page waits for the first of them, and for the process's end."""


class Costs:
    """What each run cost that has ended, as its report on record says it, which is written once. Thread-safe.

    A process reads the newest runs, then those that end, for as long as this is open.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._lock = settings, threading.Lock()
        self._of: dict[str, SpentRow | None] = {}
        self._going, self._over, self._read = False, False, threading.Event()
        self._pipe: Connection | None = None
        self._thread: threading.Thread | None = None

    def begin(self, *, wait: bool = False) -> None:
        """Read on, where nobody does. `wait`: a little, until the first time that all were read."""
        with self._lock:
            starts, self._going = not (self._going or self._over), True
            if starts:
                self._thread = threading.Thread(target=self._follow, daemon=True)
                self._thread.start()
        if wait:
            self._read.wait(LITTLE)

    def close(self) -> None:
        """Let the process go, and wait for its end."""
        with self._lock:
            self._over = True
            if self._pipe is not None:
                hang_up(self._pipe)
        if self._thread is not None:
            self._thread.join(LONGEST)

    def knows(self, run_id: str) -> bool:
        """Whether a run's report has been read."""
        with self._lock:
            return run_id in self._of

    def of(self, run_id: str) -> SpentRow | None:
        """What a run cost; None where its report does not say it, or has not been read yet."""
        with self._lock:
            return self._of.get(run_id)

    def _follow(self) -> None:
        ours, theirs = forking().Pipe()
        with self._lock:
            if self._over:
                return
            self._pipe, known = ours, set(self._of)
        process = forking().Process(target=_child, args=(theirs, self._settings, known), daemon=True)
        with contextlib.suppress(EOFError, OSError):  # it has ended, or was let go; a look at the page begins it again
            process.start()
            theirs.close()
            while True:
                self._take(*ours.recv())
        with self._lock:
            self._going, self._pipe = False, None
            ours.close()
        with contextlib.suppress(AssertionError):  # it was never begun
            process.join(LONGEST)

    def _take(self, run_id: str | None, spent: dict[str, object] | None) -> None:
        from finllm.desk.spending import SpentRow

        if run_id is None:
            self._read.set()
            return
        row = None if spent is None else SpentRow.model_validate(spent)
        with self._lock:
            self._of[run_id] = row
            while len(self._of) > KEPT:
                del self._of[next(iter(self._of))]


def _child(pipe: Connection, settings: Settings, known: set[str]) -> None:
    from finllm.guardrails.audit.reading import open_reading

    os.nice(19)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal stops the server, which lets this go
    with contextlib.suppress(FinllmError, OSError), open_reading(settings) as ledger:
        while True:
            for run_id in _fresh(ledger, known):
                pipe.send((run_id, spent_of(run_id, ledger)))
                known.add(run_id)
            pipe.send((None, None))  # all that have ended are read
            if pipe.poll(BETWEEN):  # the other end says nothing: it is closed
                return


def _fresh(ledger: LedgerReader, known: set[str]) -> list[str]:
    """Of the newest runs those that have ended and are not known, the newest first."""
    return [one.id for one in ledger.runs(COUNTED) if one.status in ENDED and one.id not in known]


def spent_of(run_id: str, ledger: LedgerReader) -> dict[str, object] | None:
    """What a run's report says that it cost; None where it says nothing, or is not what was recorded."""
    try:
        text = ledger.report_text(run_id)
    except RecordError:
        return None
    return None if text is None else json.loads(text).get("spent")
