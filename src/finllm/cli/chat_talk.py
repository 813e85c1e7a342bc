"""The talk of `finllm chat` at a terminal: a line is a question, `?` shows what can be asked, Ctrl-D leaves."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from finllm.cli.chat import told
from finllm.cli.display.prompt import Lines
from finllm.errors import FinllmError
from finllm.plain_text import clean, clean_lines

if TYPE_CHECKING:
    from finllm.chat.chat import Chat

HISTORY = "chat.history"
_LEAVES = frozenset(("/quit", "/exit", "quit", "exit", "bye"))


def talk(opened: Chat) -> None:
    """Ask and answer until the end of input. A fault of one answer ends that answer alone."""
    table = opened.table
    print(f"finllm chat · {table.ledger.count_runs()} runs on record · on the table: {clean(table.report.title)}, "
          f"{table.run.id}\nnumbers come from evidence rows only · ? what I can answer · Ctrl-D leaves")  # fmt: skip
    asked, began = 0, time.monotonic()
    title = clean(table.report.title)
    lines = Lines(table.settings.home / HISTORY, lambda: _words(opened),
                  lambda: f"{title} · {table.run.id} · {asked} questions · no model calls")  # fmt: skip
    for line in lines.each(lambda: "> "):
        if line.lower() in _LEAVES:
            break
        asked += 1
        _answer(opened, line)
    print(f"\n{asked} questions, {time.monotonic() - began:.0f} s · back: finllm chat --run {table.run.id}")


def _answer(opened: Chat, line: str) -> None:
    try:
        print("\n".join(told(opened.ask("help" if line == "?" else line), opened)))
    except KeyboardInterrupt:
        print("stopped; the talk goes on", file=sys.stderr)
    except FinllmError as error:
        print(f"error: {clean_lines(error.message)}\n  fix: {clean_lines(error.fix)}", file=sys.stderr)
    sys.stdout.flush()


def _words(opened: Chat) -> Iterable[str]:
    """What may be completed: names of the run, ids of its rows, and words of the catalogue's forms."""
    from finllm.chat.catalogue import answerable

    yield from (name for slot in ("factor", "position", "sector", "source", "agent", "term") for name in
                opened.table.known.of(slot).values())  # fmt: skip
    yield from (row.id for row in opened.table.rows)
    yield from (form.split("{")[0].strip() for kind in answerable() for form in kind.forms[:3])
