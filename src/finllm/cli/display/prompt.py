"""Asking for lines at a terminal, inline: history across sessions, Ctrl-R, completion, pasted lines; no full screen.

Scrollback, copy and screen readers stay the terminal's. Where the terminal is dumb, or stdin is none, lines are read
plainly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

Words = Callable[[], Iterable[str]]
Status = Callable[[], str]


def is_plain() -> bool:
    """Whether lines have to be read plainly: no terminal, or one that can do nothing but print."""
    return not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") in ("dumb", "")


class Lines:
    """Lines that a person types. `history`: where they are kept; `words`: what may be completed; `status`: what stands
    below the line. Ctrl-C drops the line, Ctrl-D ends."""

    def __init__(self, history: Path, words: Words, status: Status | None = None) -> None:
        self._history, self._words, self._status = history, words, status
        self._session: PromptSession[str] | None = None

    def each(self, prompt: Callable[[], str]) -> Iterator[str]:
        """Each line that is not blank, until the end of input; `prompt` is asked anew before each.

        A paste of several lines is one line of input: they are given one by one.
        """
        while True:
            try:
                text = self._read(prompt())
            except EOFError:
                return
            except KeyboardInterrupt:
                print("(Ctrl-D leaves)", file=sys.stderr)
                continue
            yield from (line.strip() for line in text.splitlines() if line.strip())

    def _read(self, prompt: str) -> str:
        if is_plain():
            sys.stdout.write(prompt)
            sys.stdout.flush()
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            return line
        self._session = self._session or self._opened()
        return self._session.prompt(prompt)

    def _opened(self) -> PromptSession[str]:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory, InMemoryHistory

        try:
            self._history.parent.mkdir(parents=True, exist_ok=True)
            self._history.touch(mode=0o600)
            history: Any = FileHistory(str(self._history))
        except OSError:
            history = InMemoryHistory()
        completer = WordCompleter(lambda: sorted(set(self._words())), ignore_case=True)
        return PromptSession(
            history=history, completer=completer, complete_while_typing=False, auto_suggest=AutoSuggestFromHistory(),
            enable_history_search=True, bottom_toolbar=self._status, refresh_interval=0,
        )  # fmt: skip
