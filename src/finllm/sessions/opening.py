"""How a session is opened: on a scenario, a story, a run on record, or again; and who may write in it."""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finllm.errors import InputError, RunHeld
from finllm.memory.sessions import OpenedRow, append, enlist, new_session_id, session_rows
from finllm.sessions.tree import Tree

if TYPE_CHECKING:
    from finllm.desk.desk import Desk
    from finllm.desk.request import RunRequest
    from finllm.settings import Settings


@dataclass(frozen=True)
class Start:
    """What a session starts from: a request to run, a run on record, or a session on record, by its id."""

    said: str
    request: RunRequest | None = None
    run: str | None = None
    session: str | None = None


def opening(
    start: str, settings: Settings, *, portfolio: Path | None = None, limits: Path | None = None,
    prices: Sequence[Path] = (), as_of: dt.date | None = None, currency: str | None = None,
) -> Start:  # fmt: skip
    """What `start` is, checked before a model is opened. Errors: InputError, LookAheadError."""
    from finllm.sessions.requests import build_request, build_told, find_scenario

    said = " ".join(start.split())[:200]
    given = (portfolio, limits, tuple(prices) or None, as_of, currency)
    if not start.strip():
        raise InputError("what shall the session start from?",
                         fix="name a scenario, a run, or tell the story: finllm session hormuz-blockade")  # fmt: skip
    known = _on_record(start.strip(), said, settings)
    if known is not None:
        if any(one is not None for one in given):
            raise InputError(f"{start!r} has its own book, limits, prices and day", fix="leave those options out")
        return known
    if start.startswith("s-") and " " not in start.strip() and not Path(start).exists():
        raise InputError(f"no session {start!r}", fix="'finllm session list' shows those on record")
    options: dict[str, Any] = {"portfolio": portfolio, "limits": limits, "prices": prices, "as_of": as_of,
                               "currency": currency, "seed": settings.seed}  # fmt: skip
    if len(start.split()) > 2 and not Path(start).expanduser().exists():
        return Start(said, request=build_told(start, **options).request)
    find_scenario(start)
    return Start(said, request=build_request(start, **options).request)


def _on_record(start: str, said: str, settings: Settings) -> Start | None:
    """The session or run of that id, if there is one; makes no ledger."""
    from finllm.guardrails.audit.reading import open_reading

    if not settings.ledger_path.exists() or len(start.split()) > 1:
        return None
    with open_reading(settings) as ledger:
        if start.startswith("s-") and session_rows(start, ledger):
            return Start(said, session=start)
        return Start(said, run=start) if ledger.run(start) is not None else None


def tree_of(
    start: Start, desk: Desk, who: str, *, fork: bool, closing: contextlib.ExitStack
) -> tuple[Tree, RunHeld | None]:  # fmt: skip
    """The tree of a session on record, or of a new one, which is put on record; held for this process until closed.

    The second value says who has the session, where that is another process: this one may read, or fork.
    """
    if start.session is not None and not fork:
        return _again(start.session, desk, closing)
    now, forked = dt.datetime.now(dt.UTC), None
    if start.session is not None:
        left = Tree.of(session_rows(start.session, desk.ledger))
        run, request, title = left.version.run, left.version.request, left.opened.title
        forked = start.session, left.current
    elif start.run is not None:
        run, request = start.run, _asked(start.run, desk)
        title = request.scenario.title
    else:
        from finllm.graphs.flow import new_run_id

        assert start.request is not None
        request, title = start.request, start.request.scenario.title
        run = new_run_id(title, now, secrets.token_hex(2))
    row = OpenedRow(
        who=who, at=now.isoformat(timespec="seconds"), line=f"open {start.said}",
        session=new_session_id(now, secrets.token_hex(2)), title=title, start=start.said, run=run,
        request=request.model_dump(mode="json"), forked=forked,
    )  # fmt: skip
    closing.enter_context(desk.ledger.hold(row.session))
    append(row.session, 0, row, desk.ledger)
    enlist(row, desk.ledger)
    return Tree.of([row]), None


def _again(session: str, desk: Desk, closing: contextlib.ExitStack) -> tuple[Tree, RunHeld | None]:
    held: RunHeld | None = None
    try:
        closing.enter_context(desk.ledger.hold(session))
    except RunHeld as error:
        held = RunHeld(f"session {session!r} is another's, and this one only reads: {error.message}",
                       fix=f"go on in a session of your own: finllm session {session} --fork")  # fmt: skip
    return Tree.of(session_rows(session, desk.ledger)), held


def _asked(run: str, desk: Desk) -> RunRequest:
    """What a run on record was asked. Errors: InputError for one that is still going on."""
    from finllm.desk.request import RunRequest

    row = desk.ledger.run(run)
    assert row is not None
    if row.status == "running" and row.holder is not None:
        from finllm.memory.leases import held

        raise held(run, row.holder)
    return RunRequest.model_validate(row.request)
