"""Running coroutines so that signals stop them in order: the first cancels what runs, later ones wait for its end.

asyncio's own runner raises KeyboardInterrupt at a second signal, wherever the loop then is. Amid a callback that loses
what the callback was about to wake, and closing waits for it for ever.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

from finllm.interrupts import CLOSING, undisturbed

T = TypeVar("T")


class Runner:
    """`asyncio.Runner`, made and closed undisturbed, whose coroutines hear one signal.

    After `CLOSING` seconds one more signal ends the process, so that nobody has to wait for what hangs.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._task: asyncio.Task[Any] | None = None
        self._first_at: float | None = None

    def __enter__(self) -> Runner:
        with undisturbed():
            self._runner.get_loop()
        return self

    def __exit__(self, *_: object) -> None:
        with undisturbed():
            self._runner.close()

    def rearm(self) -> None:
        """Hear a signal again: what an earlier one stopped has come to its end, and more is asked for."""
        self._first_at = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. Errors: its own; KeyboardInterrupt once a signal has stopped it."""
        main = threading.current_thread() is threading.main_thread()
        heard = main and signal.getsignal(signal.SIGINT) != signal.SIG_IGN
        before = signal.signal(signal.SIGINT, self._stop) if heard else None  # asyncio then installs none of its own
        try:
            return self._runner.run(self._followed(work))
        except asyncio.CancelledError:
            if self._first_at is None:
                raise
            raise KeyboardInterrupt from None
        finally:
            if heard:
                signal.signal(signal.SIGINT, before)

    async def _followed(self, work: Coroutine[Any, Any, T]) -> T:
        self._task = asyncio.current_task()
        return await work

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._first_at is None:
            self._first_at = time.monotonic()
            self._runner.get_loop().call_soon_threadsafe(self._cancel)
        elif time.monotonic() - self._first_at > CLOSING:
            os._exit(128 + number)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def run(work: Coroutine[Any, Any, T]) -> T:
    """What `asyncio.run` does, on such a runner."""
    try:
        runner = Runner().__enter__()
    except BaseException:
        work.close()
        raise
    try:
        return runner.run(work)
    finally:
        runner.__exit__()
