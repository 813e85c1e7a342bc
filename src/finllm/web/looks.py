"""Looks at items: each is durable before its page is sent, and comes onto the record right behind it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from finllm.errors import FinllmError, RecordError

if TYPE_CHECKING:
    from finllm.memory.reviews import Reviews
    from finllm.memory.users import User

AGAIN = 5.0
"""s after which what could not be written, on a full disk, is tried again."""


class Looks:
    """Notes looks, and puts them on record in a thread of its own. Thread-safe.

    Where a look cannot be noted, on a full disk, its page is read all the same: it is kept, with its moment, until
    there is room, or the server ends.
    """

    def __init__(self, reviews: Reviews, now: Callable[[], str]) -> None:
        """`now`: the moment as rows of reviews say it."""
        self._reviews, self._now = reviews, now
        self._lock, self._wake, self._over = threading.Lock(), threading.Event(), False
        self._late: dict[tuple[str, str], tuple[User, str]] = {}
        self._thread: threading.Thread | None = None

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
        """Put on record what is noted, until `end`."""
        self._thread = threading.Thread(target=self._settle, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Put on record what is noted still, and stop."""
        self._over = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _settle(self) -> None:
        while True:
            over = self._over
            self._wake.clear()
            settled = self._settled()
            if over:
                return
            self._wake.wait(None if settled else AGAIN)

    def _settled(self) -> bool:
        """Whether all is on record now."""
        with self._lock:
            late = dict(self._late)
        with contextlib.suppress(FinllmError):
            for (name, id), (viewer, at) in late.items():
                self._reviews.noted(viewer, id, at)
                with self._lock:
                    del self._late[name, id]
            self._reviews.looking.settle()
            return True
        return False
