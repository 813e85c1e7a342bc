"""Sessions on record: what was done in each, row after row, so that the same tree stands again after any death."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from finllm.errors import RecordError
from finllm.memory.ledger import Ledger
from finllm.memory.reading import LedgerReader, Use
from finllm.scheduler.placement.task import key_of
from finllm.scheduler.record import Entry, EntryKind

SESSION = EntryKind("session")
"""A session that was opened, and everything that was done in it."""
NODE = "session"
FORMAT = 1
"""Of the rows; a session of a newer one is not read."""


class _Row(BaseModel):
    """`who` did it, `at` which time (ISO 8601, UTC), by which `line` as typed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    who: str
    at: str
    line: str = ""


class OpenedRow(_Row):
    """The session with its first version. `start`: what it was opened on; `forked`: the session and version it left."""

    what: Literal["opened"] = "opened"
    format: int = FORMAT
    session: str
    title: str
    start: str
    run: str
    request: dict[str, Any]
    forked: tuple[str, int] | None = None


class VersionRow(_Row):
    """A new version after an edit of `parent`: the whole request of its run."""

    what: Literal["version"] = "version"
    number: int
    parent: int
    verb: str
    why: str | None
    run: str
    request: dict[str, Any]


class MovedRow(_Row):
    """Another version is in hand: by undo, redo or goto, or since what was begun was stopped."""

    what: Literal["moved"] = "moved"
    verb: Literal["undo", "redo", "goto", "stopped"]
    to: int


class NamedRow(_Row):
    what: Literal["named"] = "named"
    version: int
    text: str


class AskedRow(_Row):
    """A question that was answered, and the lines of the answer: it changed nothing, and is in the minutes."""

    what: Literal["asked"] = "asked"
    verb: str
    version: int
    said: tuple[str, ...] = ()


Row = OpenedRow | VersionRow | MovedRow | NamedRow | AskedRow
_ROW: TypeAdapter[Row] = TypeAdapter(Row)


def new_session_id(now: dt.datetime, salt: str) -> str:
    return f"s-{now.astimezone(dt.UTC):%y%m%d-%H%M}-{salt}"


def session_rows(session: str, ledger: LedgerReader) -> list[Row]:
    """What was done in a session, in order; empty where there is none. Errors: RecordError for a newer format."""
    return rows_in(session, ledger.uses(session, SESSION))


def rows_in(session: str, uses: Iterable[Use]) -> list[Row]:
    """The same of uses that are at hand."""
    found: list[Row] = []
    for use in uses:
        if use.entry.request.get("session") != session:
            continue
        newer = use.entry.response.get("format", FORMAT)
        try:
            found.append(_ROW.validate_python(use.entry.response))
        except ValidationError as error:
            if newer != FORMAT:
                raise _newer(session, newer) from error
            raise RecordError(f"row {len(found)} of session {session!r} cannot be read: the ledger is damaged",
                              fix="see 'finllm audit verify'; begin anew from one of its runs") from error  # fmt: skip
        if newer != FORMAT:
            raise _newer(session, newer)
    return found


def _newer(session: str, found: object) -> RecordError:
    return RecordError(f"session {session!r} is of a newer finllm: it is of format {found}, this reads {FORMAT}",
                       fix="open it with the version of finllm that wrote it")  # fmt: skip


def append(session: str, at: int, row: Row, ledger: Ledger) -> None:
    """Put what was done on record as the row of that place. Errors: RecordError where another process was first."""
    said = row.model_dump(mode="json")
    key = key_of("session", {"session": session, "row": at})
    kept = ledger.swap(Entry(key, SESSION, row.who, {"session": session, "row": at}, said), run_id=session, node=NODE)
    if kept.response != said:
        raise RecordError(f"another process has gone on with session {session!r}",
                          fix=f"open it again: finllm session {session}")  # fmt: skip


def enlist(row: OpenedRow, ledger: Ledger) -> None:
    """Put a session into the list of all, behind the last one there."""
    listed = {"session": row.session, "title": row.title, "start": row.start, "at": row.at, "who": row.who}
    number = count(ledger)
    while True:
        key = _place(number)
        kept = ledger.swap(Entry(key, SESSION, row.who, {"number": number}, listed), run_id=row.session, node=NODE)
        if kept.response == listed:
            return
        number += 1


def count(ledger: LedgerReader) -> int:
    """How many sessions are on record: the places are filled one after the other."""
    high = 1
    while ledger.lookup(_place(high - 1)) is not None:
        high *= 2
    low = high // 2
    while low < high:
        middle = (low + high) // 2
        if ledger.lookup(_place(middle)) is not None:
            low = middle + 1
        else:
            high = middle
    return low


def sessions(ledger: LedgerReader, limit: int | None = None) -> list[dict[str, str]]:
    """The sessions on record, the newest first: `session`, `title`, `start`, `at`, `who`."""
    last = count(ledger)
    first = 0 if limit is None else max(0, last - limit)
    found = [ledger.lookup(_place(number)) for number in reversed(range(first, last))]
    return [dict(entry.response) for entry in found if entry is not None]


def _place(number: int) -> str:
    return key_of("sessions", {"number": number})
