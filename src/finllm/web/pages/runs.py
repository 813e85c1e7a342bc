"""Runs: the list, one run with the row that a number opens beside it, its charts, and two beside each other."""

from __future__ import annotations

import datetime as dt

from starlette.responses import Response

from finllm.web.doors import SIGNED_IN, Asked, Door
from finllm.web.flips import flips_of
from finllm.web.opening import opened_beside, source_whole, tables_of
from finllm.web.refusals import not_found

LISTED = 50


def listed(asked: Asked) -> Response:
    """The newest runs, or those with each word of a search in their id, title or status."""
    words = asked.query.get("search", "").casefold().split()
    heads = asked.serving.ledger.runs(None if words else LISTED)
    found = [one for one in heads if all(word in f"{one.id} {one.title} {one.status}".casefold() for word in words)]
    rows = [{"id": one.id, "title": one.title, "status": one.status, "when": when(one.created_ns)}
            for one in found[:LISTED]]  # fmt: skip
    return asked.page("runs.html.j2", rows=rows, search=asked.query.get("search", ""), more=len(found) - len(rows))


def one_run(asked: Asked) -> Response:
    """A run; with `?open=E7` that row beside it."""
    run = asked.serving.reports.get(asked.path["run"])
    return asked.page("run.html.j2", run=run, when=when(run.created_ns), base=f"/run/{run.id}",
                      flips=flips_of(asked, run.id), body=body_of(asked, run.id, f"/run/{run.id}"),
                      **opened_beside(asked, run.id))  # fmt: skip


def body_of(asked: Asked, run_id: str, base: str) -> str:
    """What the page of a run holds below its first lines; empty where it has no report."""
    if asked.serving.reports.get(run_id).report is None:
        return ""
    return asked.serving.reports.body(run_id, base, lambda: tables_of(asked.serving, run_id))


def evidence(asked: Asked) -> Response:
    """A row on a page of its own."""
    run = asked.serving.reports.get(asked.path["run"])
    beside = opened_beside(asked, run.id, asked.path["row"])
    if beside["opened"] is None:
        raise not_found("row")
    return asked.page("evidence.html.j2", run=run, base=f"/run/{run.id}", **beside)


def source(asked: Asked) -> Response:
    """A source whole: as it was published, with what was cut before anybody read it."""
    run = asked.serving.reports.get(asked.path["run"])
    return asked.page("source.html.j2", run=run, **source_whole(asked.serving, run.id, asked.path["source"]))


def chart(asked: Asked) -> Response:
    """A chart as an image: it runs no script and fetches nothing, wherever it is opened."""
    svg = asked.serving.reports.chart(asked.path["run"], asked.path["name"])
    return Response(svg, media_type="image/svg+xml", headers={"cache-control": "private, max-age=3600"})


def compared(asked: Asked) -> Response:
    """Two runs beside each other: the result first, then what differs behind it."""
    first, second = asked.query.get("first", "").strip(), asked.query.get("second", "").strip()
    diff = None
    if first and second:
        diff = asked.serving.reports.diff(first, second)
    known = asked.serving.ledger.runs(LISTED)
    return asked.page("compare.html.j2", first=first, second=second, known=known, diff=diff)


def when(nanoseconds: int) -> str:
    """A moment, UTC."""
    return dt.datetime.fromtimestamp(nanoseconds / 1e9, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


DOORS = (
    Door("GET", "/runs", SIGNED_IN, listed),
    Door("GET", "/run/{run}", SIGNED_IN, one_run),
    Door("GET", "/run/{run}/evidence/{row}", SIGNED_IN, evidence),
    Door("GET", "/run/{run}/source/{source}", SIGNED_IN, source),
    Door("GET", "/run/{run}/chart/{name}", SIGNED_IN, chart, slow=True),
    Door("GET", "/compare", SIGNED_IN, compared),
)
