"""Group commit: threads that append at the same time share one write and one fsync."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finllm.errors import RecordError
from finllm.guardrails.audit.canonical import canonical_bytes

BATCH = 256
"""Most that one commit takes, so that none waits long for the others."""

Item = tuple[Mapping[str, Any], Mapping[str, bytes]]
"""A record's body, and the blobs (sha256 → content) that it names."""


class Waiting:
    """Records on their way, and the thread that waits for them. The commit sets `first`, the index of the first one."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = [(canonical_bytes(body), blobs) for body, blobs in items]
        self.first = -1
        self.error: RecordError | None = None
        self.leads = False
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def sleep(self) -> None:
        """Until somebody wakes it; at most once."""
        self._asleep.acquire()

    def wake(self) -> None:
        """Called by one at a time."""
        if self._asleep.locked():
            self._asleep.release()


class GroupCommit:
    """Makes `commit` of what waits, one at a time. After one that failed everything is refused with its error.

    `failed` makes the error of an operating system's refusal.
    """

    def __init__(self, commit: Callable[[Sequence[Waiting]], None], failed: Callable[[Exception], RecordError]) -> None:
        self._commit = commit
        self._failed = failed
        self._mutex = threading.Lock()
        self._queue: list[Waiting] = []
        self._busy = False
        self.broken: RecordError | None = None

    def add(self, items: Sequence[Item]) -> int:
        """Wait until the records are committed; the index of the first. Errors: RecordError."""
        mine = Waiting(items)
        with self._mutex:
            if self.broken is not None:
                raise self.broken
            self._queue.append(mine)
            mine.leads, self._busy = not self._busy, True
        if not mine.leads:
            self._await(mine)
        if mine.leads:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return mine.first

    def _await(self, mine: Waiting) -> None:
        try:
            mine.sleep()
        except BaseException:  # interrupted: what has not been begun is withdrawn, and the lead goes to the next
            with self._mutex:
                if mine in self._queue:
                    self._queue.remove(mine)
                if mine.leads:
                    self._hand_over()
            raise

    def _lead(self) -> None:
        """Commit what waits, this thread's records among it, then hand over to the first that came since."""
        with self._mutex:
            batch, self._queue = self._queue[:BATCH], self._queue[BATCH:]
        error = self.broken
        try:
            if error is None:
                self._commit(batch)
        except OSError as failure:
            error = self._failed(failure)
        except RecordError as failure:
            error = failure
        except BaseException:
            error = self._failed(OSError("the commit was interrupted"))
            raise
        finally:
            with self._mutex:
                self.broken = error
                for one in batch:
                    one.error = error
                    one.wake()
                self._hand_over()

    def _hand_over(self) -> None:
        self._busy = bool(self._queue)
        if self._queue:
            self._queue[0].leads = True
            self._queue[0].wake()
