"""A story of a run, the verdict first, and its three forms for people: text, Markdown, and one HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from finllm.graphs.markdown import markdown_text
from finllm.graphs.report import Report, where
from finllm.plain_text import clean, clean_lines
from finllm.review.page import Cell, Page, Part, Tile, linked_citations, render_page, tone_of
from finllm.review.tables import (
    EVIDENCE_HEADER,
    TraceCell,
    TraceTable,
    linked,
    row_of,
    table_markdown,
    table_of,
    table_text,
)
from finllm.tools.evidence import Evidence, show

FOOT = "Told from the record alone. Text that sources wrote is shown as they wrote it, and does nothing here."


@dataclass(frozen=True)
class Chapter:
    """A part of the story: a line each, or `otherwise` where there is none."""

    title: str
    lines: tuple[str, ...]
    otherwise: str = "nothing"


@dataclass(frozen=True)
class Story:
    """A run as it is told, the verdict first, in tables and chapters. `[E7]` in a line names the row it stands on.

    `evidence`: rows as `shown` gives them.
    """

    run_id: str
    title: str
    asked: str
    verdict: tuple[str, ...]
    chapters: tuple[Chapter | TraceTable, ...]
    evidence: tuple[tuple[str, ...], ...]
    report: Report | None


def shown(rows: Iterable[Evidence]) -> tuple[tuple[str, ...], ...]:
    """Evidence rows as a person reads them: id, value, what, entity, period, and source or formula."""
    return tuple((row.id, show(row.value, row.unit), row.what, row.entity, row.period, where(row)) for row in rows)


def as_text(story: Story) -> str:
    lines = [f"Run {story.run_id} — {clean(story.title)}", clean(story.asked), "", *map(clean, story.verdict)]
    for chapter in story.chapters:
        lines += ["", *_text_of(chapter)]
    if story.evidence:
        lines += ["", *table_text(_evidence(story))]
    return "\n".join(lines) + "\n"


def _text_of(chapter: Chapter | TraceTable) -> list[str]:
    if isinstance(chapter, TraceTable):
        return table_text(chapter)
    return [chapter.title, *(f"  {clean(line)}" for line in chapter.lines or (chapter.otherwise,))]


def _evidence(story: Story) -> TraceTable:
    """The rows of the story, in the form in which its doors show them."""
    rows = [row_of(linked([id]), *others, key=id) for id, *others in story.evidence]
    return table_of(name="evidence", title="Evidence", header=EVIDENCE_HEADER, rows=rows)


def as_markdown(story: Story) -> str:
    """The story as Markdown; what sources wrote can open no link, image, table cell or tag of its own."""
    parts = [
        f"# {markdown_text(story.title)}",
        f"Run `{story.run_id}`. {story.asked}",
        *map(markdown_text, story.verdict),
        *(markdown_chapter(chapter) for chapter in story.chapters),
        *(["\n".join(table_markdown(_evidence(story)))] if story.evidence else ()),
    ]
    return clean_lines("\n\n".join(parts)) + "\n"


def markdown_chapter(chapter: Chapter | TraceTable) -> str:
    if isinstance(chapter, TraceTable):
        return "\n".join(table_markdown(chapter))
    lines = [f"- {markdown_text(line)}" for line in chapter.lines] or [f"{chapter.otherwise.capitalize()}."]
    return "\n".join([f"## {chapter.title}", "", *lines])


def as_html(story: Story) -> str:
    """The story as one self-contained page: no script, nothing fetched, all text escaped."""
    known = frozenset(row[0] for row in story.evidence)
    return render_page(Page(
        title=story.title,
        subtitle=f"Run {story.run_id}. {story.asked}",
        badges=_badges(story.report),
        cards=_cards(story.report),
        summary=[linked_citations(line, known) for line in story.verdict],
        charts=(),
        parts=[*html_chapters(story.chapters, known),
               Part("Evidence", header=EVIDENCE_HEADER,
                    rows=[tuple(map(Cell, row)) for row in story.evidence], anchors=True)],
        foot=FOOT,
    ))  # fmt: skip


def html_chapters(chapters: Sequence[Chapter | TraceTable], known: frozenset[str]) -> list[Part]:
    """Chapters as parts of a page; a reference to a row among `known` is a link."""
    return [_part(one, known) for one in chapters]


def _part(one: Chapter | TraceTable, known: frozenset[str]) -> Part:
    if isinstance(one, Chapter):
        lines = [linked_citations(line, known) for line in one.lines]
        return Part(one.title, lines, otherwise=f"{one.otherwise.capitalize()}.")
    return Part(
        one.title, [linked_citations(note, known) for note in one.notes], header=one.header, right=one.right,
        rows=[tuple(_cell(cell, known) for cell in row.cells) for row in one.rows],
        otherwise=f"{one.otherwise.capitalize()}.",
    )  # fmt: skip


def _cell(cell: TraceCell, known: frozenset[str]) -> Cell:
    """A cell that is nothing but ids of rows is their links."""
    if cell.rows and cell.text == ", ".join(cell.rows) and known.issuperset(cell.rows):
        return Cell("", links=cell.rows)
    return Cell(cell.text)


def _badges(report: Report | None) -> Sequence[Cell]:
    if report is None:
        return (Cell("no report yet", tone="warn"),)
    tone = {"pass": "good", "flag": "warn", "block": "bad"}[report.compliance]
    return (Cell(f"compliance: {report.compliance}", tone=tone), Cell(f"text and measurements: {report.verdict}"))


def _cards(report: Report | None) -> Sequence[Tile]:
    if report is None:
        return ()
    moved = (("P&L", report.total), (report.of_what, report.total_share))
    worth = (("book value", report.book_value), ("gross value", report.gross_value))
    return [
        *(Tile(label, Cell(str(one), one.evidence, tone_of(one.value))) for label, one in moved if one),
        *(Tile(label, Cell(str(one), one.evidence)) for label, one in worth if one),
    ]
