"""The index of search is filled in a process apart: no page waits while traces of new runs are read."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

from finllm.errors import FinllmError
from finllm.web.at_work import forking

if TYPE_CHECKING:
    from finllm.settings import Settings

LITTLE = 3.0
"""s that a search which found nothing waits for runs that the index lacks."""
LONGEST = 600.0


class Indexer:
    """Fills the index of a home when a search finds that it lacks runs. Thread-safe; one goes on at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._lock = settings, threading.Lock()
        self._going: threading.Thread | None = None

    def begin(self, *, wait: bool) -> None:
        """Fill it, where nobody does already. `wait`: a little, until that has ended."""
        with self._lock:
            if self._going is None or not self._going.is_alive():
                self._going = threading.Thread(target=self._fill, daemon=True)
                self._going.start()
            going = self._going
        if wait:
            going.join(LITTLE)

    def _fill(self) -> None:
        try:
            process = forking().Process(target=_child, args=(self._settings,), daemon=True)
            process.start()
        except OSError:  # no process can be begun now: the next search tries again
            return
        process.join(LONGEST)
        if process.is_alive():
            process.kill()
            process.join()


def _child(settings: Settings) -> None:
    from finllm.guardrails.audit.reading import open_reading
    from finllm.review.search import take_in

    os.nice(19)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal stops the server, and with it this
    try:
        with open_reading(settings) as ledger:
            take_in(ledger, settings)
    except FinllmError:
        return  # the next search says that they are not searched yet
