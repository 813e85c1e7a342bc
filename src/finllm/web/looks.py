"""Looks at items: each is durable before its page is sent, and a process of its own puts it on record right behind."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from finllm.errors import FinllmError, RecordError
from finllm.web.at_work import forking, hang_up

if TYPE_CHECKING:
    from finllm.memory.reviews import Reviews
    from finllm.memory.users import User
    from finllm.settings import Settings

AGAIN, LONGEST = 5.0, 10.0
"""s after which what could not be written, on a full disk, is tried again, and that the process has to end."""


class Looks:
    """Notes looks, and has them put on record, one message for all that came meanwhile. Thread-safe.

    Where a look cannot be noted, on a full disk, its page is read all the same: it is kept, with its moment, until
    there is room, or the server ends.
    """

    def __init__(self, settings: Settings, reviews: Reviews, now: Callable[[], str]) -> None:
        """`now`: the moment as rows of reviews say it."""
        self._settings, self._reviews, self._now = settings, reviews, now
        self._lock, self._wake, self._over = threading.Lock(), threading.Event(), False
        self._late: dict[tuple[str, str], tuple[User, str]] = {}
        self._thread: threading.Thread | None = None
        self._pipe: Connection | None = None
        self._process: Any = None

    def note(self, viewer: User, id: str) -> None:
        """Somebody is about to be shown an item; durable when this returns. Errors: as `Reviews.noted`, but
        RecordError."""
        try:
            self._reviews.noted(viewer, id)
        except RecordError:
            with self._lock:
                self._late.setdefault((viewer.name, id), (viewer, self._now()))
        self._wake.set()

    def begin(self) -> None:
        """Have what is noted put on record, until `end`."""
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Put on record what is noted still, and stop."""
        self._over = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(FinllmError):
            self._reviews.looking.settle()

    def _follow(self) -> None:
        settled = True
        while True:
            self._wake.wait(None if settled else AGAIN)
            self._wake.clear()
            if self._over:
                break
            settled = self._settled()
        if self._pipe is not None and self._process is not None:
            hang_up(self._pipe)
            self._process.join(LONGEST)

    def _settled(self) -> bool:
        """Whether all is on record now."""
        with self._lock:
            late = dict(self._late)
        try:
            for (name, id), (viewer, at) in late.items():
                self._reviews.noted(viewer, id, at)
                with self._lock:
                    del self._late[name, id]
            pipe = self._pipe = self._pipe or self._begun()
            pipe.send(True)
            return bool(pipe.recv())
        except (FinllmError, OSError, EOFError):  # what is noted counts, and is tried again
            self._pipe = None
            return False

    def _begun(self) -> Connection:
        ours, theirs = forking().Pipe()
        self._process = forking().Process(target=_child, args=(theirs, self._settings), daemon=True)
        self._process.start()
        theirs.close()
        return ours


def _child(pipe: Connection, settings: Settings) -> None:
    from finllm.guardrails.audit.recorder import open_recorder
    from finllm.memory.reviews import reviews_of

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal stops the server, which lets this go
    with contextlib.suppress(FinllmError, OSError, EOFError), contextlib.closing(open_recorder(settings)) as ledger:
        reviews = reviews_of(ledger, settings)
        while pipe.recv():
            reviews.looking.settle()
            pipe.send(True)
