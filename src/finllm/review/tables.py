"""Tables of a trace, typed: what every door shows of a run, each cell with the rows of evidence that it stands on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from textwrap import wrap

from pydantic import BaseModel, ConfigDict

from finllm.graphs.markdown import markdown_table, markdown_text
from finllm.graphs.report import where
from finllm.guardrails.formula import cited_by
from finllm.plain_text import clean
from finllm.tools.evidence import Evidence, show

WIDTH = 120
"""Columns of a table in plain text."""
LEAST, WORD = 8, 20
"""Columns that a cell is never narrower than: as many as its longest word, up to `WORD`."""
EVIDENCE_HEADER = ("id", "value", "what", "entity", "period", "source or formula")


class TraceCell(BaseModel):
    """A piece of text, as it was said: whoever shows it escapes it. `rows`: the evidence that it stands on: links."""

    model_config = ConfigDict(frozen=True)

    text: str
    rows: tuple[str, ...] = ()


class TraceRow(BaseModel):
    """A row. `key`: the id of an evidence row or the key of a call that this row is, to be linked to."""

    model_config = ConfigDict(frozen=True)

    cells: tuple[TraceCell, ...]
    key: str | None = None


class TraceTable(BaseModel):
    """A table with its title. `name` is stable, for links; `notes` are said above it; `otherwise` where it is empty.

    `right`: columns flush right.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[TraceRow, ...]
    notes: tuple[str, ...] = ()
    right: tuple[int, ...] = ()
    otherwise: str = "none"


def table_of(
    *, name: str, title: str, header: tuple[str, ...], rows: Sequence[TraceRow], notes: tuple[str, ...] = (),
    right: tuple[int, ...] = (), otherwise: str = "none",
) -> TraceTable:  # fmt: skip
    """A table whose rows all have a cell for each name of the header."""
    empty = TraceCell(text="")
    whole = (one.model_copy(update={"cells": (*one.cells, *[empty] * (len(header) - len(one.cells)))}) for one in rows)
    return TraceTable(name=name, title=title, header=header, rows=tuple(whole), notes=notes, right=right,
                      otherwise=otherwise)  # fmt: skip


def row_of(*cells: str | TraceCell | None, key: str | None = None) -> TraceRow:
    """A row of texts; None is an empty cell."""
    return TraceRow(cells=tuple(one if isinstance(one, TraceCell) else TraceCell(text=one or "") for one in cells),
                    key=key)  # fmt: skip


def linked(ids: Iterable[str]) -> TraceCell:
    """Ids of evidence rows, each a link."""
    found = tuple(dict.fromkeys(ids))
    return TraceCell(text=", ".join(found), rows=found)


def evidence_table(rows: Iterable[Evidence]) -> TraceTable:
    """Rows of evidence as a table, each under its id."""
    return table_of(name="evidence", title="Evidence", header=EVIDENCE_HEADER, rows=[
        row_of(linked([one.id]), show(one.value, one.unit), one.what, one.entity, one.period,
               TraceCell(text=where(one), rows=tuple(dict.fromkeys(cited_by(one)))), key=one.id)
        for one in rows
    ])  # fmt: skip


def table_text(table: TraceTable, width: int = WIDTH) -> list[str]:
    """A table in plain text: aligned columns, long cells folded; no cell can break a line or steer a terminal."""
    lines = [table.title, *(f"  {clean(note)}" for note in table.notes)]
    if not table.rows:
        return [*lines, f"  {table.otherwise}"]
    cells = [[clean(one.text) for one in row.cells] for row in table.rows]
    kept = [at for at in range(len(table.header)) if any(row[at] for row in cells)]
    header, cells = [table.header[at] for at in kept], [[row[at] for at in kept] for row in cells]
    widths = _widths([header, *cells], width - 2)
    right = {kept.index(at) for at in table.right if at in kept}
    body = chain.from_iterable(_folded(row, widths, right) for row in (header, *cells))
    return [*lines, *(f"  {line}" for line in body)]


def table_markdown(table: TraceTable) -> list[str]:
    """A table as Markdown; what sources wrote can open no cell, link, image or tag of its own."""
    rows = [tuple(clean(one.text) or "-" for one in row.cells) for row in table.rows]
    told = [markdown_text(clean(note)) for note in table.notes]
    body = markdown_table(table.header, rows) if rows else [f"{table.otherwise.capitalize()}."]
    return [f"## {table.title}", "", *(line for note in told for line in (note, "")), *body]


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The width of each column, so that all fit where they can: the widest give way."""
    columns = [[row[at] for row in rows] for at in range(len(rows[0]))]
    found = [max(map(len, column)) for column in columns]
    words = [max((len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    least = [min(max(LEAST, min(word, WORD)), has) for word, has in zip(words, found, strict=True)]
    room = width - 2 * (len(found) - 1)
    while sum(found) > room and (wide := [at for at, one in enumerate(found) if one > least[at]]):
        at = max(wide, key=lambda one: found[one])
        others = [found[one] for one in wide if one != at]
        found[at] = max(least[at], min(found[at] - 1, max(max(others, default=0), found[at] - (sum(found) - room))))
    return found


def _folded(cells: Sequence[str], widths: Sequence[int], right: set[int]) -> list[str]:
    """A row in as many lines as its longest cell needs."""
    parts = [wrap(cell, max(widths[at], 1)) or [""] for at, cell in enumerate(cells)]
    lines: list[str] = []
    for line in range(max(len(part) for part in parts)):
        shown = [part[line] if line < len(part) else "" for part in parts]
        padded = [one.rjust(widths[at]) if at in right else one.ljust(widths[at]) for at, one in enumerate(shown)]
        lines.append("  ".join(padded).rstrip())
    return lines
