"""An opened row of evidence in plain text and in Markdown: a line each, which no source can forge or break."""

from __future__ import annotations

from collections.abc import Iterator

from finllm.graphs.markdown import markdown_text
from finllm.plain_text import clean, clean_lines
from finllm.review.opened_rows import OpenedRow, Term
from finllm.review.opened_series import SeriesWindow
from finllm.review.opened_text import WholeText

LATEST = 5
"""Observations of a series that are told, the last ones; all others are counted."""
MOST = 25
"""Rows that use a row which are told."""
_SERIES_UNITS = {"price": "", "percent": " %", "bp": " bp", "points": " points"}


def opened_text(opened: OpenedRow) -> list[str]:
    """The row and all behind it in plain text. A source's text stands behind `read |`, `span |` and `cut |`."""
    row = opened.row
    return [clean(f"{row.id}  {opened.shown}, {row.what}, {row.entity}, {row.period}, as of {row.as_of}"),
            *(f"  {line}" for line in _lines(opened))]  # fmt: skip


def opened_markdown(opened: OpenedRow) -> list[str]:
    """The same as Markdown, each line an item; a source's text is data."""
    head, *lines = opened_text(opened)
    return [f"## {markdown_text(head)}", "", *(f"- {markdown_text(line)}" for line in lines)]


def _lines(opened: OpenedRow) -> Iterator[str]:
    row, found = opened.row, opened.recomputed
    if row.formula:
        yield clean(f"by: {row.formula}")
    if row.source is not None:
        yield clean(f"from: {row.source.uri}, {row.source.pointer}, sha256 {row.source.sha256}")
    if found is None:
        yield "found again: not on the spot: only the tools of the run, done again, find it"
    else:
        whole = f", for {found.of}" if found.of != row.id else ""
        verdict = "equal" if found.equal else "NOT EQUAL"
        yield clean(f"found again: {found.shown}{whole}, {verdict} ({found.way}: {found.how})")
    if opened.given:
        yield clean(f"given: {opened.given}")
    if opened.call:
        yield f"measured at: the model call {opened.call}"
    yield from (f"term: {_term(one)}" for one in opened.terms)
    if opened.text is not None:
        yield from _text(opened.text)
    for series in opened.series:
        yield from _series(series)
    if opened.file is not None:
        state = _state(opened.file.unchanged, opened.file.why)
        yield clean(f"row {opened.file.row} of {opened.file.uri}, {state}")
        yield from (clean(f"  {name}: {value}") for name, value in opened.file.cells.items())
    if opened.past is not None:
        event = opened.past.event
        yield clean(f"past event {event.id}: {event.title}, {event.start} to {event.end}, {event.region}, "
                    f"{event.kind}; {_state(opened.past.unchanged, None)}")  # fmt: skip
        yield clean(f"  {event.summary} (by {event.source})")
    yield from (f"used by: {_term(one)}" for one in opened.used_by[:MOST])
    if (more := len(opened.used_by) - MOST) > 0:
        yield f"used by: and {more} more"
    yield from (clean(f"note: {note}") for note in opened.notes)


def _term(one: Term) -> str:
    return clean(f"{one.id}  {one.shown}, {one.what}, {one.entity}")


def _text(text: WholeText) -> Iterator[str]:
    at = f"characters {text.start}–{text.end}" if text.start is not None else "all of it, or no one place"
    where = {"kept": "kept whole", "on record": "in the run's request", "missing": "MISSING"}[text.kept]
    whose = ", ".join(one for one in (text.id, text.publisher, text.published_at) if one)
    digest = _state(text.unchanged, text.why)
    yield clean(f"text: {whose}; {text.characters} characters, {where}, {digest}; the row stands on {at}")
    if text.cuts_recorded is not None:
        yield "what is cut is " + ("as the run recorded it" if text.cuts_recorded else "NOT what the run recorded")
    for piece in text.pieces:
        name = f"cut ({piece.cut}: {piece.rule})" if piece.cut else "span" if piece.marked else "read"
        for line in piece.text.splitlines() or [""]:
            if shown := clean_lines(line).strip() or (piece.cut and "characters that nobody sees"):
                yield f"  {clean(name)} | {shown}"


def _series(series: SeriesWindow) -> Iterator[str]:
    if series.missing is not None:
        yield clean(f"series {series.name}: {series.missing}")
        return
    unit = _SERIES_UNITS.get(series.unit or "", "")
    file = f"{series.uri}, sha256 {series.sha256[:12]}, {_state(series.unchanged, None)}"
    window = f"{series.first} to {series.last}, {series.observations} observations"
    yield clean(f"series {series.name}, {series.frequency}, {window}; {file}")
    latest = series.points[-LATEST:]
    if (before := series.observations - len(latest)) > 0:
        yield f"  … {before} before"
    yield from (f"  {point.day}  {point.value:g}{unit}" for point in latest)


def _state(unchanged: bool | None, why: str | None) -> str:
    told = {True: "digest checked", False: "DIGEST DIFFERS", None: "not held against a digest"}[unchanged]
    return f"{told} ({why})" if why else told
