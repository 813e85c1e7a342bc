"""What a number opens beside the page: its formula done again, its terms, the window of a series, the text whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from finllm.errors import InputError
from finllm.web.refusals import not_found

FOUND = 50
"""Hits on a page."""

if TYPE_CHECKING:
    from finllm.review.opened import Opener
    from finllm.review.opened_rows import OpenedRow
    from finllm.review.search import Found
    from finllm.review.tables import TraceTable
    from finllm.web.doors import Asked
    from finllm.web.serving import Serving


def opened_beside(asked: Asked, run_id: str, row: str = "") -> dict[str, Any]:
    """The row that the address asks to open, if it asks for one that there is."""
    wanted = row or asked.query.get("open", "")
    if not wanted or asked.serving.reports.get(run_id).report is None:
        return {"opened": None}
    made, at = asked.serving.reports.made, _explained(asked.serving, run_id)
    return {"opened": made.get(("row", run_id, wanted, at), lambda: _opened(asked.serving, run_id, wanted))}


def _opened(serving: Serving, run_id: str, wanted: str) -> OpenedRow | None:
    try:
        return opener_of(serving, run_id).open(wanted)
    except InputError:
        return None


def opener_of(serving: Serving, run_id: str) -> Opener:
    """What opens the rows of a run: it reads the market once. Errors: NotFound."""
    from finllm.review.opened import Opener

    def made() -> Opener:
        row = serving.ledger.run(run_id)
        if row is None:
            raise not_found("run")
        return Opener(row, serving.ledger, serving.settings)

    return serving.reports.made.get(("opener", run_id, _explained(serving, run_id)), made)


def _explained(serving: Serving, run_id: str) -> int:
    """How many explanations of a run are on record, by whatever door: each gives it more rows to open."""
    from finllm.review.explanation import EXPLANATION

    written = serving.ledger.count_uses(run_id, EXPLANATION)  # a row comes before its record, and counts with it
    return serving.reports.made.get(("explanations", run_id, written),
                                    lambda: len(serving.ledger.uses(run_id, EXPLANATION)),
                                    keep=lambda found: found == written)  # fmt: skip


def source_whole(serving: Serving, run_id: str, source_id: str) -> dict[str, Any]:
    """A source as it was published, with what was cut from it before anybody read it. Errors: NotFound."""
    from finllm.review.opened_text import pieces_of, read_by_agents

    run = serving.reports.get(run_id)
    source = next((one for one in run.request.scenario.sources if one.id == source_id), None)
    if source is None:
        raise not_found("source")
    told = next((one for one in run.report.sources if one.id == source_id), None) if run.report else None
    _, cuts = read_by_agents(source.text, run.request.as_of, told.removed if told else ())
    return {"source": source, "told": told, "pieces": pieces_of(source.text, None, cuts)}


def tables_of(serving: Serving, run_id: str) -> list[TraceTable]:
    """The tables of a run's trace, without those that its report has anyhow."""
    from finllm.review.trace_tables import trace_tables

    return [one for one in trace_tables(run_id, serving.ledger) if one.name not in ("evidence", "sources")]


def found_in(serving: Serving, text: str) -> dict[str, Any]:
    """Where words stand in traces and sources: each hit with the address of its place, and what was not looked at."""
    from finllm.review.search import search

    try:
        told = search(text, serving.ledger, serving.settings, FOUND, at_once=0)
        if told.unsearched:
            serving.indexer.begin(wait=not told.found)
        if told.unsearched and not told.found:
            told = search(text, serving.ledger, serving.settings, FOUND, at_once=0)
    except InputError as error:
        return {"found": [], "refused": f"{error.message}: {error.fix}"}
    return {"found": [(one, _address(one)) for one in told.found], "more": told.more, "unsearched": told.unsearched}


def _address(one: Found) -> str:
    run = f"/run/{quote(one.run, safe='')}"
    if one.kind == "source":
        return f"{run}/source/{quote(one.place.removeprefix('source '), safe='')}"
    return f"{run}?open={one.row}#opened" if one.row and one.row.startswith("E") else run
