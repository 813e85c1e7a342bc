"""stdin, stdout and stderr as they were handed over: closed, of a narrow encoding, full, or read by nobody any more."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

READER_LEFT = 141
"""Exit code where what reads the output left before its end, as shells tell of a death by SIGPIPE."""
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_NAMES = {_STDOUT: "stdout", _STDERR: "stderr"}


class _Named(io.FileIO):
    """stdout or stderr, whose errors say which it was: a broken pipe or a full disk may be any file's."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)

    def write(self, data: Any, /) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, _NAMES[self.fileno()]) from None


def open_streams() -> None:
    """Make the three streams usable. What is written to a closed one is lost, as the caller asked.

    A closed descriptor is filled first: the next file that is opened, which may be the ledger, would become stdout.
    Where a stream cannot encode a sign such as σ, it shows `?` rather than fail.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BufferedReader(io.FileIO(_STDIN, closefd=False)), "utf-8")
    if sys.stdout is sys.__stdout__:  # not where a test or another program has put its own
        sys.stdout = _opened(_STDOUT, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _opened(_STDERR, sys.stderr)


def _opened(descriptor: int, before: TextIO | None) -> TextIO:
    buffer = io.BufferedWriter(_Named(descriptor))
    if before is None:
        return io.TextIOWrapper(buffer, "utf-8", "replace")
    before.flush()
    by_line = descriptor == _STDERR or before.isatty()
    return io.TextIOWrapper(buffer, before.encoding, "replace", line_buffering=by_line)


def lost_output(error: BaseException) -> OSError | None:
    """The refusal of stdout or stderr that this error is, or that made click or rich leave; None: it is another.

    What was still to be written to that stream goes nowhere: it would fail again at the process's end.
    """
    while isinstance(error, SystemExit) and error.__context__ is not None:
        error = error.__context__
    if not isinstance(error, OSError) or error.filename not in _NAMES.values():
        return None
    discard(next(descriptor for descriptor, name in _NAMES.items() if name == error.filename))
    return error


def discard(descriptor: int) -> None:
    """Let what is still to be written to this stream go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
