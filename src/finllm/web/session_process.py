"""The process of one session: it carries out the lines that the desk sends, on the one Session that all doors use."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finllm.errors import Cancelled, FinllmError, InputError, as_finllm_error
from finllm.events import CallFinished, CallStarted, Event, EventBus, NodeStarted, Progress
from finllm.plain_text import clean_lines

if TYPE_CHECKING:
    from finllm.sessions.answers import Answer
    from finllm.sessions.session import Session
    from finllm.settings import Settings

BETWEEN = 0.2
"""s between two words on how far it is."""
FILES = frozenset(("save", "minutes", "limits"))
"""Verbs that read or write a file of this machine: not for a browser, which takes both from the session's page."""


class _Told:
    """A renderer that tells the desk how far a run is."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._last = pipe, 0.0
        self.node, self.asked, self.reused = "", 0, 0

    def __call__(self, event: Event) -> None:
        match event:
            case NodeStarted():
                self.node = event.node
            case CallFinished(reused=True):
                self.reused += 1
            case CallFinished():
                self.asked += 1
            case Progress():
                self.node = event.what
            case CallStarted():
                pass
            case _:
                return
        if time.monotonic() - self._last > BETWEEN:
            self._last = time.monotonic()
            self._pipe.send({"node": self.node, "asked": self.asked, "reused": self.reused})

    def afresh(self) -> None:
        self.node, self.asked, self.reused = "", 0, 0


def work(pipe: Connection, who: str, start: Mapping[str, Any], settings: Settings) -> None:
    """Open the session, then carry out each line until the desk lets go. Nothing that fails ends it but that."""
    with contextlib.suppress(OSError):
        os.nice(15)  # whoever reads a page comes first: ten that compute weigh a third of one page that is made
    signal.signal(signal.SIGINT, signal.default_int_handler)
    told = _Told(pipe)
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        try:
            session = _opened(start, who, settings, EventBus(told))
        except (FinllmError, OSError, MemoryError, KeyboardInterrupt) as error:
            pipe.send({"busy": "", "failed": _why(as_finllm_error(error))})
            return
        with session:
            pipe.send({"session": session.id})
            _begun(session, pipe)
            while True:
                try:
                    line = pipe.recv()
                except KeyboardInterrupt:
                    continue
                told.afresh()
                pipe.send(_carried_out(session, line, pipe))


def _opened(start: Mapping[str, Any], who: str, settings: Settings, bus: EventBus) -> Session:
    from finllm.sessions.session import Session

    book = start.get("portfolio")
    return Session.open(start["start"], portfolio=None if book is None else Path(book), who=who, settings=settings,
                        bus=bus, fork=bool(start.get("fork")))  # fmt: skip


def _begun(session: Session, pipe: Connection) -> None:
    """Run the first version where it has no report yet. What stops it is told; the session stands."""
    if session.report_of(session.version) is not None:
        if not pipe.poll():
            pipe.send({"busy": ""})
        return
    try:
        pipe.send(_answered(session.begin()))
    except (FinllmError, OSError, MemoryError, KeyboardInterrupt) as error:
        pipe.send({"busy": "", "failed": _why(as_finllm_error(error))})


def _carried_out(session: Session, line: str, pipe: Connection) -> dict[str, Any]:
    try:
        check_line(line)
    except InputError as error:
        return {"busy": "", "failed": _why(error)}
    return _answered(session.do(line, lambda one: pipe.send({"shown": _lines(one)})))


def check_line(line: str) -> None:
    """Errors: InputError for a line that would read or write a file of this machine, or is none."""
    from finllm.sessions.grammar import parse

    found = parse(line)
    if found.verb.name in FILES or (found.verb.name == "source" and found.words[:1] == ("add",)):
        raise InputError(f"'{found.verb.name}' takes a file of the machine that the desk runs on",
                         fix="the session's page has what is to be kept; else use 'finllm session'")  # fmt: skip


def _answered(answer: Answer) -> dict[str, Any]:
    if answer.error is not None:
        return {"busy": "", "shown": (), "failed": _why(answer.error)}
    asked = answer.asked + answer.reused
    took = f"{answer.took_s:.1f} s" + (f", asked {answer.asked} of {asked} questions" if asked else "")
    return {"busy": "", "shown": (), "said": _lines(answer), "took": took, "failed": None}


def _lines(answer: Answer) -> tuple[str, ...]:
    return tuple(clean_lines(one)[:2000] for one in answer.said[:400])


def _why(error: FinllmError) -> tuple[str, str]:
    if isinstance(error, Cancelled):
        return "it was stopped; the session stands", "do it again to go on"
    return error.message, error.fix
