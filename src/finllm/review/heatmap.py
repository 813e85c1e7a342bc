"""The map of a batch: scenario by book, each cell its share of the book, in colour, in words, and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finllm.review.charts import INK, Chart, chart_of, compact, plain
from finllm.review.drawing import Picture, draw
from finllm.review.page import Cell, Page, Part, Tile, render_page, tone_of

COLOURS = ("#b2482f", "#f7f7f7", "#2b6ca3")
"""Loss, nothing, gain: told apart with red-green blindness too, and each cell says its figure."""
CELL_HEIGHT = 34
STRONG = 0.6
"""Share of the deepest colour from which a cell's text is white, for contrast."""


@dataclass(frozen=True)
class HeatCell:
    """One run: its P&L in `currency`, that as a decimal share of the gross value, the limits breached; or why none.

    `incomplete`: too much of the book is not in it.
    """

    scenario: str
    book: str
    share: float | None
    total: float | None
    currency: str
    breaches: int
    incomplete: bool
    run: str
    why: str = ""

    @property
    def words(self) -> str:
        """What the cell says, in a few characters."""
        if self.total is None:
            return "failed"
        said = compact(self.total) if self.share is None else f"{self.share:+.1%}".replace("-", "\u2212")
        return said + (f" !{self.breaches}" if self.breaches else "") + (" ?" if self.incomplete else "")


LEGEND = "P&L as a share of the book's gross value; !n: n limits breached; ?: too much of the book is left out."


def heat_chart(cells: Sequence[HeatCell]) -> Chart:
    """The map: a row for each scenario, the worst on top, a column for each book."""
    import altair as alt

    scenarios, books = _order(cells)
    known = [abs(one.share) for one in cells if one.share is not None]
    end = max(known, default=0.0) or 1.0
    rows: list[dict[str, Any]] = [
        {"scenario": plain(one.scenario), "book": plain(one.book), "share": one.share, "label": one.words,
         "strong": one.share is not None and abs(one.share) >= STRONG * end} for one in cells]  # fmt: skip
    x = alt.X("book:N", title=None, sort=[plain(one) for one in books], axis=alt.Axis(labelAngle=0, orient="top",
              labelLimit=240))  # fmt: skip
    y = alt.Y("scenario:N", title=None, sort=[plain(one) for one in scenarios], axis=alt.Axis(labelLimit=320))
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y)
    scale = alt.Scale(domain=[-end, 0, end], range=list(COLOURS))
    boxes = base.mark_rect(stroke="white", strokeWidth=2).encode(
        color=alt.Color("share:Q", scale=scale, title="share", legend=alt.Legend(format=".0%")))  # fmt: skip
    words = base.mark_text(fontSize=12).encode(
        text="label:N", color=alt.condition("datum.strong", alt.value("white"), alt.value(INK)))  # fmt: skip
    return chart_of("heatmap", "Scenario by book", LEGEND, alt.layer(boxes, words),
                          height=max(60, CELL_HEIGHT * len(scenarios)))  # fmt: skip


def heat_picture(cells: Sequence[HeatCell]) -> Picture:
    return draw((heat_chart(cells),))[0]


def heat_page(cells: Sequence[HeatCell], picture: Picture, batch: str, headline: str) -> str:
    """The map as a self-contained page, with a table of the same figures for whoever does not see the picture."""
    scenarios, books = _order(cells)
    at = {(one.scenario, one.book): one for one in cells}
    rows: list[list[Cell]] = []
    for scenario in scenarios:
        row = [Cell(scenario)]
        for book in books:
            one = at.get((scenario, book))
            row.append(Cell("-") if one is None else Cell(
                one.words + ("" if one.total is None else f" ({compact(one.total)} {one.currency})"),
                tone=tone_of(one.total or 0.0)))  # fmt: skip
        rows.append(row)
    worst = min((one for one in cells if one.share is not None), key=lambda one: one.share or 0.0, default=None)
    tiles = [Tile("scenarios", Cell(str(len(scenarios)))), Tile("books", Cell(str(len(books))))]
    if worst is not None:
        tiles.append(Tile("worst", Cell(worst.words, tone="loss"), f"{worst.scenario} on {worst.book}"))
    failed = [f"{one.scenario} on {one.book}: {one.why}" for one in cells if one.total is None]
    runs = [(Cell(one.scenario), Cell(one.book), Cell(one.run)) for one in cells]
    return render_page(Page(
        title="Scenario by book", subtitle=f"Batch {batch}: {len(cells)} runs", badges=(Cell(headline),), cards=tiles,
        summary=(), charts=(picture,), foot=LEGEND,
        parts=[Part("The same as a table", header=("scenario", *books), rows=rows, right=range(1, len(books) + 1)),
               Part("Runs without a report", bullets=failed, otherwise="None."),
               Part("Runs", header=("scenario", "book", "run"), rows=runs)],
    ))  # fmt: skip


def _order(cells: Sequence[HeatCell]) -> tuple[list[str], list[str]]:
    """Scenarios by their worst share, and books as they were given."""
    worst: dict[str, float] = {}
    for one in cells:
        worst[one.scenario] = min(worst.get(one.scenario, 0.0), one.share or 0.0)
    return sorted(worst, key=lambda name: worst[name]), list(dict.fromkeys(one.book for one in cells))
