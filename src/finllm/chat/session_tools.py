"""The verbs of a session as tools for other assistants: open, edit, undo, compare, show; offered where runs are.

The figures are those of `finllm session`, as it is the same session. No file of this machine is read or written for a
program: a session starts from a shipped scenario, a run or a session on record, or a story.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

from finllm.errors import InputError
from finllm.settings import Settings

if TYPE_CHECKING:
    from mcp.server import MCPServer

    from finllm.desk.desk import Desk
    from finllm.running import Runner
    from finllm.sessions.answers import Answer
    from finllm.sessions.session import Session

READS_FILES = frozenset(("limits", "save", "minutes"))
"""Verbs that name a file."""
_WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
T = TypeVar("T")

Id = Annotated[str, Field(description="The session's id, such as s-221130-0910-1f3a.")]


class SessionAnswer(BaseModel):
    """A version's figures beside those that it was made of, and the rows of evidence that they are.

    Money in `currency`. `asked`, `reused`: model calls that were made, and that the ledger answered.
    """

    session: str
    version: str
    run: str
    verb: str
    total: float | None
    currency: str | None
    by_factor: dict[str, float]
    interval: list[float] | None
    compliance: str | None
    breaches: list[str]
    base: dict[str, Any] | None
    said: list[str]
    rows: list[dict[str, Any]]
    asked: int
    reused: int
    command: str | None

    @classmethod
    def of(cls, session: Session, answer: Answer) -> SessionAnswer:
        """Errors: the answer's own, where the line could not be carried out."""
        if answer.error is not None:
            raise answer.error
        told = {name: value for name, value in answer.to_json().items() if name in cls.model_fields}
        report = session.report_of(session.version)
        cited = set(answer.figures.rows.values()) if answer.figures else set[str]()
        rows = [row.model_dump(mode="json") for row in report.evidence if row.id in cited] if report else []
        return cls.model_validate({**told, "session": session.id, "rows": rows})


class ServedSessions:
    """Sessions of a server, at one desk that is opened when the first of them is; one line at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sessions")
        self._closing = contextlib.ExitStack()
        self._at: tuple[Desk, Runner] | None = None
        self._open: dict[str, Session] = {}

    def open(self, start: str) -> SessionAnswer:
        """Errors: InputError for a start that is a file, or none at all; those of a run."""
        return self._work(lambda: self._opened(start))

    def line(self, session: str, line: str, kinds: frozenset[str] | None = None) -> SessionAnswer:
        """Carry out a line. `kinds`: those of its verb that are allowed. Errors: InputError; those of the line."""
        return self._work(lambda: self._carried_out(session, line, kinds))

    def close(self) -> None:
        self._work(self._closed)

    def _work(self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result()

    def _closed(self) -> None:
        for one in self._open.values():
            one.close()
        self._open.clear()
        self._closing.close()
        self._at = None

    def _opened(self, start: str) -> SessionAnswer:
        from finllm.sessions.opening import opening
        from finllm.sessions.requests import shipped_scenarios

        start = start.strip()
        if start in self._open:
            return SessionAnswer.of(self._open[start], self._open[start].begin())
        is_file = start not in shipped_scenarios() and ("/" in start.split(" ")[0] or Path(start).exists())
        if is_file:
            raise InputError("no file is opened for a program",
                             fix="name a shipped scenario, a run or a session, or tell the story")  # fmt: skip
        begin = opening(start, self._settings)
        return self._begun(begin)

    def _begun(self, begin: Any) -> SessionAnswer:
        from finllm.sessions.session import Session, person

        desk, runner = self._desk()
        session = Session.on(begin, desk, runner, who=f"{person()} (by a program)")
        try:
            answer = SessionAnswer.of(session, session.begin())
        except BaseException:
            session.close()
            raise
        self._open[session.id] = session
        return answer

    def _desk(self) -> tuple[Desk, Runner]:
        from finllm.desk.desk import open_desk
        from finllm.events import EventBus
        from finllm.running import Runner

        if self._at is None:
            desk = self._closing.enter_context(open_desk(self._settings, EventBus()))
            self._at = desk, self._closing.enter_context(Runner())
        return self._at

    def _carried_out(self, id: str, line: str, kinds: frozenset[str] | None) -> SessionAnswer:
        from finllm.sessions.grammar import parse

        said = parse(line)
        if said.verb.name in READS_FILES or (said.verb.name == "source" and said.words[:1] == ("add",)):
            raise InputError(f"'{said.verb.name}' names a file, and none is read or written for a program",
                             fix=f"type it at the terminal: finllm session {id}")  # fmt: skip
        if kinds is not None and said.verb.kind not in kinds:
            raise InputError(f"'{said.verb.name}' is no edit", fix="use the tool of that name, or finllm session")
        if id not in self._open:
            self._opened(id)
        session = self._open[id]
        return SessionAnswer.of(session, session.do(line))


def add_session_tools(
    server: MCPServer[Any], sessions: ServedSessions, told: Callable[[Callable[[], SessionAnswer]], SessionAnswer]
) -> None:
    """Offer the verbs. `told`: says an error of ours as the protocol does."""

    def session_open(
        start: Annotated[str, Field(description="A shipped scenario's name, a run or session on record, or a story in "
                                                "plain words.")],
    ) -> SessionAnswer:  # fmt: skip
        """Open a session, and run its first version where it was not: seconds, or minutes where models are asked."""
        return told(lambda: sessions.open(start))

    def session_edit(
        session: Id,
        line: Annotated[str, Field(description='An edit, such as: shock OIL_WTI +60% because "two lanes are mined"; '
                                               'read EQUITY_US down large because "…"; horizon 40; trade AAPL -1000; '
                                               'source ID off because "…"; hold; level 99; replay lehman-2008.')],
    ) -> SessionAnswer:  # fmt: skip
        """Make a version by an edit with its reason: its figures, and those of the version that it was made of."""
        return told(lambda: sessions.line(session, line, frozenset(("edit",))))

    def session_undo(session: Id) -> SessionAnswer:
        """Take the version into hand that this one was made of; nothing is lost."""
        return told(lambda: sessions.line(session, "undo"))

    def session_compare(
        session: Id,
        version: Annotated[str, Field(pattern=r"^v?[0-9]{1,6}$", description="A version, such as v1.")],
        other: Annotated[str | None, Field(pattern=r"^v?[0-9]{1,6}$",
                                           description="Another; the one in hand, if left out.")] = None,
    ) -> SessionAnswer:  # fmt: skip
        """What differs between two versions of a session, and what that did."""
        return told(lambda: sessions.line(session, f"compare {version} {other or ''}".strip()))

    def session_show(session: Id) -> SessionAnswer:
        """The version in hand: its figures, what they stand on, and what has to be known before they are read."""
        return told(lambda: sessions.line(session, "show"))

    for tool in (session_open, session_edit, session_undo, session_compare):
        server.add_tool(tool, annotations=_WRITES)
    server.add_tool(session_show, annotations=_READS)
