"""The session at a terminal: inline, so that scrollback and copying stay the terminal's; plain where that is dumb.

Ctrl-C stops the answer and keeps the session, or empties the line; Ctrl-D leaves, and the way back is printed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finllm.cli.session import BLOCK, cost
from finllm.errors import FinllmError, as_finllm_error
from finllm.events import CallFinished, CallStarted, Event, NodeStarted, Noted, Progress
from finllm.interrupts import undisturbed
from finllm.plain_text import clean, clean_lines, cut
from finllm.sessions.grammar import ALIASES, VERBS

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completion
    from prompt_toolkit.document import Document

    from finllm.sessions.answers import Answer
    from finllm.sessions.session import Session

LEAVE = frozenset(("quit", "exit", "q", ":q", "bye"))
NOTICED = 2.0
"""s after which a wait is told of."""
_WANTS = {"shock": "factor", "read": "factor", "accept": "factor", "withhold": "factor", "source": "source",
          "trade": "position", "goto": "version", "compare": "version", "name": "version", "replay": "episode",
          "save": "file", "minutes": "file", "limits": "file", "help": "verb"}  # fmt: skip
"""What the first word after a verb is."""


class Talk:
    """Shows what a run is at on one line of stderr, once it has taken two seconds; and counts what is asked."""

    def __init__(self, plain: bool) -> None:
        self._plain, self._since, self._shown = plain, time.monotonic(), 0.0
        self.asked, self.reused, self.on, self._node = 0, 0, "", ""

    def start(self) -> None:
        self._since, self._shown, self.asked, self.reused, self._node = time.monotonic(), 0.0, 0, 0, ""

    def __call__(self, event: Event) -> None:
        match event:
            case NodeStarted():
                self._node = event.node
            case CallStarted():
                self.on = short(event.backend)
            case CallFinished(reused=True):
                self.reused += 1
            case CallFinished():
                self.asked += 1
            case Progress():
                self._node = event.what
            case Noted(level="warning"):
                self.clear()
                print(f"  note: {clean(event.message)}", file=sys.stderr)
            case _:
                return
        now = time.monotonic()
        if now - self._since > NOTICED and now - self._shown > (NOTICED if self._plain else 0.2):
            self._shown = now
            said = cut(f"  … {self._node.replace('_', ' ')}{f' on {self.on}' if self.on else ''}, asked {self.asked}, "
                       f"from the record {self.reused}, {now - self._since:.0f} s (^C stops)", 78)  # fmt: skip
            print(said if self._plain else f"\r{said:<78}", end="\n" if self._plain else "", file=sys.stderr,
                  flush=True)  # fmt: skip

    def clear(self) -> None:
        """Take the line away."""
        if self._shown and not self._plain:
            print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)
        self._shown = 0.0


def short(backend: str) -> str:
    """A backend by its tier and precision."""
    parts = backend.split(":")
    return f"{parts[0]} {parts[-1]}" if len(parts) > 2 else backend


def talk_at_terminal(opened: Session, talk: Talk) -> None:
    """Read lines and answer them until the person leaves."""

    def begun() -> Answer:
        print("\n".join(heading(opened)), flush=True)  # here, as Ctrl-C may come as soon as it is seen
        return opened.begin()

    _answered(opened, begun, talk)
    with undisturbed(dropped=True):
        opened.warm()
        ask = asker(opened, talk)
    while True:
        try:
            text = ask(f"{opened.id} {opened.version.id}> ")
        except KeyboardInterrupt:
            continue  # an empty line again
        except EOFError:
            break
        for line in lines_of(text):
            if line.casefold() in LEAVE:
                _left(opened)
                return
            _answered(opened, lambda line=line: opened.do(line, lambda one: _shown(one, talk)), talk)
    _left(opened)


def heading(opened: Session) -> Iterator[str]:
    """Which session, on which book, as of when, on what models."""
    request = opened.version.request
    tiers = ", ".join(f"{offer.tier} {offer.precision}" for offer in opened.desk.broker.offers)
    yield cut(clean(f"finllm session {opened.id} · {request.scenario.title} · book {request.portfolio.name} · as of "
                    f"{request.as_of} · {tiers} · ? for verbs"), 160)  # fmt: skip
    if opened.reading is not None:
        yield f"reads only: {clean(opened.reading.message)}"
        yield f"  fix: {clean(opened.reading.fix)}"


def lines_of(text: str) -> Iterator[str]:
    """The lines of what was typed or pasted; a story, and a text between triple quotes, are one."""
    text = text.strip()
    if not text:
        return
    if text.split(None, 1)[0].casefold() == "story" or BLOCK in text:
        yield text
        return
    yield from (line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def _answered(opened: Session, work: Callable[[], Answer], talk: Talk) -> None:
    """Carry it out and show the answer; what stops it is told, and the session stands."""
    talk.start()
    try:
        answer = work()
    except (FinllmError, OSError, MemoryError, KeyboardInterrupt) as error:
        talk.clear()
        _error(as_finllm_error(error))
        return
    talk.clear()
    if answer.error is not None:
        _error(answer.error)
        return
    if answer.said:
        print(f"{answer.version}")
    print("\n".join(f"  {clean_lines(line)}" for line in answer.said))
    print(_dim(f"  {cost(answer)}{f' · repeat: {answer.command}' if answer.command else ''}"), flush=True)


def _shown(answer: Answer, talk: Talk) -> None:
    """What the tools say of an edit at once: dim, and called provisional."""
    talk.clear()
    for line in (f"{answer.version} provisional, {answer.took_s:.1f} s: {answer.said[0]}", *answer.said[1:]):
        print(_dim(f"  {clean_lines(line)}"))
    sys.stdout.flush()


def _error(error: FinllmError) -> None:
    print(f"  error: {clean_lines(error.message)}\n    fix: {clean_lines(error.fix)}", flush=True)


def _left(opened: Session) -> None:
    print(f"{opened.version.id} is kept. Back: finllm session {opened.id}", flush=True)


def _dim(text: str) -> str:
    """Dim on a terminal that shows it, and where nobody asked for no colour."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else f"\x1b[2m{text}\x1b[0m"


def dumb() -> bool:
    """Whether the terminal is one that no line can be edited on."""
    return os.environ.get("TERM", "") in ("", "dumb", "unknown") or not sys.stdout.isatty()


def asker(opened: Session, talk: Talk) -> Callable[[str], str]:
    """What asks for a line: an editor with history and completion; a plain prompt on a dumb terminal."""
    if dumb():
        return input
    from prompt_toolkit import PromptSession
    from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.shortcuts import CompleteStyle

    path = opened.desk.settings.home / "session-history"
    path.touch(mode=0o600, exist_ok=True)
    prompt: PromptSession[str] = PromptSession(
        history=FileHistory(str(path)), completer=_completer(Known(opened)), auto_suggest=AutoSuggestFromHistory(),
        complete_while_typing=False, complete_style=CompleteStyle.READLINE_LIKE, enable_history_search=True,
        bottom_toolbar=lambda: status(opened, talk), key_bindings=_keys(), mouse_support=False,
        color_depth=_depth(),
    )  # fmt: skip
    return prompt.prompt


def _depth() -> Any:
    from prompt_toolkit.output import ColorDepth

    return ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None


def _keys() -> Any:
    """Alt-Enter begins a new line of the same text."""
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def status(opened: Session, talk: Talk) -> str:
    """The status line: versions, where the last answer ran, what it asked, what is held."""
    tree = opened.tree
    where = talk.on or next((short(offer.name) for offer in opened.desk.broker.offers), "no backend")
    queue = len(getattr(opened.desk.broker, "waiting", ()) or ())
    said = (f" {tree.version.id} of {len(tree.versions)} · {where} · last: asked {talk.asked}, from the record "
            f"{talk.reused}{f' · queue {queue}' if queue else ''}")  # fmt: skip
    return cut(f"{said}{' · reads only' if opened.reading else ''} · ^D leaves", 79)


class Known:
    """What may be completed, looked up once for each version: the typing waits for nothing."""

    def __init__(self, opened: Session) -> None:
        self._opened = opened
        self._of: tuple[int, dict[str, list[str]]] | None = None

    def words(self, kind: str) -> list[str]:
        number = self._opened.tree.current
        if self._of is None or self._of[0] != number:
            self._of = number, self._found()
        return self._of[1].get(kind, [])

    def _found(self) -> dict[str, list[str]]:
        from finllm.tools.data.factors import factor_table
        from finllm.tools.pnl.episodes import EPISODES

        request, tree = self._opened.version.request, self._opened.tree
        report = self._opened.report_of(self._opened.version)
        return {
            "verb": [*VERBS, *ALIASES],
            "factor": list(dict.fromkeys([*factor_table(), *request.scenario.factors])),
            "source": [*(one.id for one in request.scenario.sources), "add"],
            "position": [one.id for one in request.portfolio.positions],
            "version": [*(one.id for one in tree.versions.values()), *tree.names.values()],
            "episode": [*EPISODES, "off"],
            "evidence": [row.id for row in report.evidence] if report else [],
        }  # fmt: skip


def candidates(text: str, known: Known) -> Iterable[str]:
    """What the last word of a line may become."""
    words = text.split()
    last = "" if not text or text[-1].isspace() else words[-1]
    before = words if not last else words[:-1]
    if not before:
        rows = known.words("evidence") if last[:1] in ("E", "e") and last[1:].isdigit() else []
        names = [*(one for one in VERBS if one not in ("evidence", "help")), *ALIASES, "quit", *rows]
        return [one for one in names if one.casefold().startswith(last.casefold())]
    verb = ALIASES.get(before[0].casefold(), before[0].casefold())
    kind = _WANTS.get(verb, "")
    if kind == "file" and len(before) == 1:
        return _files(last)
    options = known.words(kind) if len(before) == 1 else _second(verb, len(before))
    return [one for one in options if one.casefold().startswith(last.casefold())]


def _second(verb: str, at: int) -> list[str]:
    if verb == "read":
        return [["up", "down", "none"], ["small", "medium", "large", "extreme"], ["because"]][min(at, 4) - 2]
    if verb == "source":
        return ["on", "off", "mute"] if at == 2 else ["because"]
    return ["because"] if verb in ("shock", "accept", "withhold", "trade") else []


def _files(last: str) -> list[str]:
    path = Path(last).expanduser()
    folder, stem = (path, "") if last.endswith("/") else (path.parent, path.name)
    try:
        found = sorted(one for one in folder.iterdir() if one.name.startswith(stem))[:50]
    except OSError:
        return []
    head = last[: len(last) - len(stem)] if stem else last
    return [f"{head}{one.name}{'/' if one.is_dir() else ''}" for one in found]


def _completer(known: Known) -> Any:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.completion import Completion as Found

    class Completing(Completer):
        def get_completions(self, document: Document, complete_event: Any) -> Iterable[Completion]:
            del complete_event
            text = document.text_before_cursor
            last = "" if not text or text[-1].isspace() else text.split()[-1]
            for word in candidates(text, known):
                yield Found(word, start_position=-len(last))

    return Completing()
