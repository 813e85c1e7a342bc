"""A pseudo-terminal that drives a command as a person does: types, waits for what is shown, resizes, leaves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Mapping, Sequence

_STEERING = re.compile(r"\x1b\[[0-9;?<>=]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]|\x1b\][^\x07]*\x07")


class Terminal:
    """`finllm` with `arguments` on a terminal of its own."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], *, rows: int = 24, columns: int = 80) -> None:
        code = "import sys; from finllm.cli.main import main; sys.exit(main())"
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [sys.executable, "-c", code, *arguments], {**os.environ, **env})
        self.shown, self._at = "", 0
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def send(self, text: str) -> None:
        os.write(self.file, text.encode())

    def wait_for(self, text: str, seconds: float = 60.0) -> str:
        """What was shown up to the text, after the last thing that was waited for; steering taken out."""
        until = time.monotonic() + seconds
        while text not in self.text[self._at :]:
            if time.monotonic() > until or not self._read(0.2):
                raise AssertionError(f"{text!r} was not shown, but:\n{self.text[self._at :]}")
        end = self.text.index(text, self._at) + len(text)
        found, self._at = self.text[self._at : end], end
        return found

    def wait_for_one(self, texts: Sequence[str], seconds: float = 60.0) -> str:
        """The text of these that is shown first."""
        until = time.monotonic() + seconds
        while not (found := [one for one in texts if one in self.text[self._at :]]):
            if time.monotonic() > until or not self._read(0.2):
                raise AssertionError(f"none of {texts!r} was shown, but:\n{self.text[self._at :]}")
        first = min(found, key=lambda one: self.text.index(one, self._at))
        self.wait_for(first)
        return first

    def end(self, seconds: float = 60.0) -> int:
        """Its exit code, once it has ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._read(0.2):
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.file)
        return os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        """End it, where it has not ended."""
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.file)

    @property
    def text(self) -> str:
        return _STEERING.sub("", self.shown)

    def _read(self, seconds: float) -> bool:
        """Take in what is there; False once nothing more can come. Answers what a terminal is asked for."""
        ready, _, _ = select.select([self.file], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self.file, 65536)
        except OSError:
            return False
        if b"\x1b[6n" in data:
            os.write(self.file, b"\x1b[1;1R")  # where the cursor is
        self.shown += data.decode(errors="replace")
        return bool(data)
