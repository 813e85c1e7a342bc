"""The talk at a real terminal: a pseudo-terminal of 80 columns, a dumb one, none at all, Ctrl-C and Ctrl-D."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import finllm

LONGEST = 120.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\][^\x07]*\x07|\x1b[=>()][0-9AB]?")


class Terminal:
    """A child at a pseudo-terminal: type to it, and wait for what it shows."""

    def __init__(self, home: Path, term: str, columns: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        env = {
            **os.environ,
            "FINLLM_HOME": str(home),
            "TERM": term,
            "PYTHONPATH": str(Path(finllm.__file__).parents[1]),
        }
        code = "import sys; from finllm.cli.main import main; sys.exit(main())"
        self.child = subprocess.Popen([sys.executable, "-c", code, "chat", "--run", "run-hormuz"], stdin=slave,
                                      stdout=slave, stderr=slave, env=env, start_new_session=True)  # fmt: skip
        os.close(slave)
        self.shown = self._left = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, wanted: str) -> str:
        """What was shown since the last call, up to the text. The cursor is told to be at the left, if asked for."""
        end, got = time.monotonic() + LONGEST, self._left
        while wanted not in _ESCAPES.sub("", got):
            assert time.monotonic() < end, f"{wanted!r} is not in {got!r}"
            if select.select([self._master], [], [], 0.5)[0]:
                try:
                    piece = os.read(self._master, 65536).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"it ended without {wanted!r}: {got!r}") from None
                if "\x1b[6n" in piece:
                    os.write(self._master, b"\x1b[1;1R")
                got += piece
                self.shown += piece
        told, _, self._left = _ESCAPES.sub("", got).partition(wanted)
        return told + wanted

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.child.pid, signal.SIGWINCH)

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        os.close(self._master)


@contextmanager
def terminal(home: Path, term: str = "xterm-256color", columns: int = 80) -> Iterator[Terminal]:
    opened = Terminal(home, term, columns)
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.slow
def test_a_talk_at_a_terminal_of_80_columns(chat_home: Path) -> None:
    with terminal(chat_home) as shown:
        assert "on the table" in shown.until("Ctrl-D leaves")
        shown.until("questions")
        shown.type("E61\r")
        assert "understood" in shown.until("repeat: finllm trace run-hormuz")
        shown.until("1 questions")
        shown.type("half a quest\x03")
        shown.until("(Ctrl-D leaves)")
        shown.until("1 questions")
        shown.type("\x1b[200~what did the navy say\nis a limit breached\x1b[201~")
        shown.type("\r")
        shown.until("Minesweepers")
        shown.until("The limit")
        shown.until("questions")
        shown.type("\x04")
        shown.until("back: finllm chat --run run-hormuz")
        assert shown.child.wait(LONGEST) == 0
        assert "\x1b[?1049h" not in shown.shown, "the whole screen was taken"
    assert "what did the navy say" in (chat_home / "chat.history").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_resize_a_long_paste_and_ctrl_c_in_an_answer_leave_the_talk_as_it_was(chat_home: Path) -> None:
    with terminal(chat_home) as shown:
        shown.until("questions")
        shown.resize(40, 132)
        shown.type("\x1b[200~" + "E61\n" * 200 + "\x1b[201~\r")
        for _ in range(200):
            shown.until("repeat: finllm trace run-hormuz")
        shown.until("200 questions")
        shown.resize(24, 80)
        shown.type("why did the market move as it did and what would turn it round\r")
        shown.type("\x03")
        shown.until("questions")
        shown.type("\x03\x03")
        shown.type("E61\r")
        shown.until("repeat: finllm trace run-hormuz")
        shown.until("questions")
        shown.type("\x04")
        shown.until("back: finllm chat")
        assert shown.child.wait(LONGEST) == 0


@pytest.mark.slow
def test_a_dumb_terminal_gets_plain_lines(chat_home: Path) -> None:
    with terminal(chat_home, term="dumb") as shown:
        shown.until("> ")
        shown.type("E61\r")
        shown.until("repeat:")
        shown.type("\x04")
        shown.until("back: finllm chat")
        assert "\x1b" not in shown.shown


def test_without_a_terminal_each_line_of_stdin_is_a_question(
    chat_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from finllm.cli.main import main

    monkeypatch.setenv("FINLLM_HOME", str(chat_home))
    monkeypatch.setattr(sys, "stdin", io.StringIO("E61\n\nand E62?\n"))
    assert main(["chat"]) == 0
    assert capsys.readouterr().out.count("understood:") == 2
