"""A session as a page: its versions and figures from the record, its verbs as forms, and how far a run is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse, Response

from finllm.errors import InputError
from finllm.memory.sessions import SESSION, rows_in
from finllm.sessions.answers import Figures, beside
from finllm.sessions.tree import Tree, Version
from finllm.web.books import books_of, start_of
from finllm.web.doors import Asked, Door, only
from finllm.web.live import digest_of
from finllm.web.refusals import NotFound, not_found

if TYPE_CHECKING:
    from finllm.web.at_work import Now

WORKING = only("analyst", "risk")
LISTED = 60
QUESTIONS = ("show", "drives", "flip", "hedge", "versions")
"""Questions that take no words, as buttons."""


@dataclass(frozen=True)
class Row:
    """A version as the page lists it. `said`: its figures, with those of the one it was made of beside them."""

    version: Version
    name: str
    said: tuple[str, ...]
    total: str


def listed(asked: Asked) -> Response:
    """One's own sessions, the newest first, and the form that opens one."""
    from finllm.memory.sessions import sessions
    from finllm.sessions.requests import shipped_scenarios

    own = [one for one in sessions(asked.serving.ledger, 400) if one["who"] == asked.who.name][:LISTED]
    return asked.page("sessions.html.j2", own=own, scenarios=list(shipped_scenarios()), failed=None,
                      books=list(books_of(asked.serving.settings)), wanted=asked.query.get("scenario", ""))  # fmt: skip


def begin(asked: Asked) -> Response:
    """Open a session on a shipped scenario, or on a story in plain words."""
    form = asked.form
    story = form.get("story", "").strip()
    start, said = start_of("story" if story else "scenario", story or form.get("scenario", ""),
                           form.get("book", "default"), asked.serving.settings)  # fmt: skip
    return RedirectResponse(f"/opening/{asked.serving.at_work.begin(asked.who.name, start, said)}", 303)


def opening(asked: Asked) -> Response:
    """How far the opening of a session is; on to it once it has an id."""
    now = asked.serving.at_work.opened(asked.path["key"], asked.who.name)
    if now.session is not None:
        return RedirectResponse(f"/session/{now.session}", 303)
    return asked.page("opening.html.j2", now=now)


def one_session(asked: Asked) -> Response:
    """The session as it is on record, with what goes on in it now."""
    tree = own_tree(asked)
    now = asked.serving.at_work.now(tree.opened.session)
    ended = [_row(asked, tree, one) for one in tree.versions.values()]
    here = next(row for row in ended if row.version.number == tree.current)
    report = asked.serving.reports.get(here.version.run).report if _ended(asked, here.version) else None
    return asked.page(
        "session.html.j2", tree=tree, rows=ended, here=here, report=report, state=_state(asked, tree, now),
        now=now, base=f"/run/{here.version.run}", questions=QUESTIONS,
        factors=sorted(report.by_factor) if report else [], sources=here.version.request.scenario.sources,
        asked_before=tree.asked[-8:][::-1],
    )  # fmt: skip


def own_tree(asked: Asked) -> Tree:
    """The session of the address, if it is the person's own. Errors: NotFound, for another's too."""
    session, ledger = asked.path["session"], asked.serving.ledger

    def read() -> tuple[Tree | None, int]:
        uses = ledger.uses(session, SESSION)
        rows = rows_in(session, uses)
        return Tree.of(rows) if rows else None, len(uses)

    rows = ledger.count_uses(session)  # one that is not on record yet is looked for again
    key = ("session", session, rows)
    tree, _ = asked.serving.reports.made.get(key, read, keep=lambda found: found[1] == rows)
    if tree is None:
        raise not_found("session")
    if tree.opened.who != asked.who.name:
        raise not_found("session")
    return tree


def session_state(asked: Asked) -> str:
    """A digest of what the session's page shows."""
    tree = own_tree(asked)
    return _state(asked, tree, asked.serving.at_work.now(tree.opened.session))


def _state(asked: Asked, tree: Tree, now: Now | None) -> str:
    return digest_of(tree.rows, None if now is None else (now.at, now.busy), _ended(asked, tree.version))


def _ended(asked: Asked, version: Version) -> bool:
    """Whether its run has its report, which is kept at hand once it was read."""
    try:
        return asked.serving.reports.get(version.run).report is not None
    except NotFound:
        return False


def _row(asked: Asked, tree: Tree, version: Version) -> Row:
    def made() -> Row | None:
        if not _ended(asked, version):
            return None
        report = asked.serving.reports.get(version.run).report
        assert report is not None
        figures, base, of = Figures.of(report), None, None
        if version.parent is not None and _ended(asked, tree.versions[version.parent]):
            parent = asked.serving.reports.get(tree.versions[version.parent].run).report
            base, of = (None, None) if parent is None else (Figures.of(parent), tree.versions[version.parent].id)
        return Row(version, "", tuple(beside(figures, base, of)), str(report.total))

    reports = asked.serving.reports
    found = reports.made.get(("version", version.run, version.parent), made, keep=lambda one: one is not None)
    name = tree.names.get(version.number, "")
    return Row(version, name, found.said if found else (), found.total if found else "not finished")


def do(asked: Asked) -> Response:
    """Carry out a line, typed as at the keyboard or put together by a form."""
    tree = own_tree(asked)
    line = line_of(asked.form)
    asked.serving.at_work.do(tree.opened.session, asked.who.name, line)
    return RedirectResponse(f"/session/{tree.opened.session}", 303)


def line_of(form: Mapping[str, str]) -> str:
    """The line that a form of a verb stands for. Errors: InputError for one that no verb has."""
    from finllm.web.session_process import check_line

    why = " ".join(form.get("because", "").replace('"', "'").split())
    because = f' because "{why}"' if why else ""
    word = {name: " ".join(form.get(name, "").split()) for name in ("factor", "move", "source", "way", "number", "to")}
    match form.get("verb", "line"):
        case "shock":
            line = f"shock {word['factor']} {word['move']}{because}"
        case "source":
            line = f"source {word['source']} {word['way']}{because}"
        case "horizon" | "level" as verb:
            line = f"{verb} {word['number']}"
        case "goto" | "compare" as verb:
            line = f"{verb} {word['to']}"
        case "story":
            line = f'story """{form.get("text", "")}"""'
        case "review":
            line = f'review "{why}"'
        case "line":
            line = form.get("text", "")
        case verb:
            line = verb
    line = line.strip()
    if not line:
        raise InputError("nothing was asked", fix="type a line, or use one of the forms")
    check_line(line)
    return line


def stop(asked: Asked) -> Response:
    tree = own_tree(asked)
    asked.serving.at_work.stop(tree.opened.session)
    return RedirectResponse(f"/session/{tree.opened.session}", 303)


def saved(asked: Asked) -> Response:
    """The version in hand as a scenario file to keep; nobody has approved it."""
    from finllm.sessions.saving import as_yaml
    from finllm.tools.data.scenario import Lineage

    tree = own_tree(asked)
    version = tree.version
    lineage = Lineage(session=tree.opened.session, version=version.number, run=version.run, by=asked.who.name)
    scenario = version.request.scenario.model_copy(update={"lineage": lineage, "approved_by": None})
    return Response(as_yaml(scenario), media_type="application/yaml", headers={
        "content-disposition": f'attachment; filename="{tree.opened.session}-{version.id}.yaml"'})  # fmt: skip


DOORS = (
    Door("GET", "/sessions", WORKING, listed),
    Door("POST", "/sessions", WORKING, begin),
    Door("GET", "/opening/{key}", WORKING, opening),
    Door("GET", "/session/{session}", WORKING, one_session),
    Door("POST", "/session/{session}/do", WORKING, do),
    Door("POST", "/session/{session}/stop", WORKING, stop),
    Door("GET", "/session/{session}/scenario.yaml", WORKING, saved),
)
