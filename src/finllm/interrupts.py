"""Signals that ask a process to stop: SIGTERM and SIGHUP interrupt it as Ctrl-C does, and closing is not cut short."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a terminal, a shell, a service manager and a container send to end a process that may still close."""
CLOSING = 20.0
"""Seconds that a process may take to close before one more signal ends it where it stands."""


class Interrupts:
    """While the block lasts, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, as SIGINT does.

    `received`: the first of the two that came. A signal that the process was started to ignore, as by nohup, is left
    ignored. `to_the_end`: once the block is left the process ends, and nothing interrupts that; else all is put back.
    Outside the main thread nothing is changed.
    """

    def __init__(self, *, to_the_end: bool = False) -> None:
        self.received: signal.Signals | None = None
        self._to_the_end = to_the_end

    def __enter__(self) -> Interrupts:
        self._before = {
            number: signal.signal(number, self._interrupt) for number in _heard() if number != signal.SIGINT
        }
        if self._to_the_end:
            atexit.register(ignore_interrupts)  # registered first, so called last: Python's own end is not cut short
        return self

    def __exit__(self, *_: object) -> None:
        if self._to_the_end:
            _put_off([])
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def exit_code(self, code: int) -> int:
        """The exit code of a command that ends with `code`: an interrupted one's tells by which signal."""
        return 128 + self.received if code == 128 + signal.SIGINT and self.received is not None else code

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)
        on_interrupt = signal.getsignal(signal.SIGINT)  # asyncio has one that lets the tasks end in order
        if callable(on_interrupt):
            on_interrupt(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt


@contextlib.contextmanager
def undisturbed(*, dropped: bool = False) -> Generator[None]:
    """Put off what would interrupt the block until it has ended; `dropped`: or for good, as nothing is left to stop.

    It is dropped too where the block is left with an error. After `CLOSING` seconds one more signal ends the process
    at once, so that nobody has to wait for what hangs.
    """
    came = list[int]()
    before = _put_off(came)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came and not dropped:
        signal.raise_signal(came[0])


@contextlib.contextmanager
def closing_undisturbed() -> Generator[contextlib.ExitStack]:
    """An exit stack that closes undisturbed: what is open is given back whole, also at a second Ctrl-C."""
    stack = contextlib.ExitStack()
    try:
        yield stack
    except BaseException:
        with undisturbed(dropped=True):
            stack.__exit__(*sys.exc_info())
        raise
    with undisturbed():
        stack.close()


def ignore_interrupts() -> None:
    """Ignore these signals, as a child process does: they go to a whole group, and the parent ends it in order."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _put_off(came: list[int]) -> dict[signal.Signals, Any]:
    """Only note the signals from now on; the handlers that were there before."""
    began = time.monotonic()

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)
        if time.monotonic() - began > CLOSING:
            os._exit(128 + number)

    return {number: signal.signal(number, note) for number in _heard()}


def _heard() -> list[signal.Signals]:
    """The signals that are not ignored; none outside the main thread, which alone may change that."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
