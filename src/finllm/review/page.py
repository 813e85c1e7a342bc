"""The HTML page that every report is shown on: self-contained, without script, all of its text escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finllm.review.charts import plain
from finllm.review.drawing import Picture

_CITED = re.compile(r"\s?\[(E[1-9][0-9]*)\]")


@dataclass(frozen=True)
class Cell:
    """A piece of text. `evidence` names the row that it stands on, `tone` is `loss`, `gain` or `warn`; `links` are rows
    that follow it."""

    text: str
    evidence: str = ""
    tone: str = ""
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tile:
    """One of the figures at the top."""

    label: str
    value: Cell
    note: str = ""


@dataclass(frozen=True)
class Part:
    """A section: sentences, bullets, a table, or `otherwise` where there is none of these.

    `right` are the columns flush right. With `anchors`, a row can be linked to by its first cell.
    """

    title: str
    lines: Sequence[Sequence[Cell]] = ()
    bullets: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    right: Sequence[int] = ()
    anchors: bool = False
    otherwise: str = "None."


@dataclass(frozen=True)
class Page:
    title: str
    subtitle: str
    badges: Sequence[Cell]
    cards: Sequence[Tile]
    summary: Sequence[Sequence[Cell]]
    charts: Sequence[Picture]
    parts: Sequence[Part]
    foot: str


def render_page(page: Page) -> str:
    """The page as one HTML file: inline style and SVG, no script, nothing fetched. Errors: none for any text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finished(value: object) -> object:
        return value if isinstance(value, Markup) else plain_spaces(value)

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined,
        finalize=finished,
    )  # fmt: skip
    drawn = [{"title": one.chart.title, "caption": one.chart.caption, "svg": Markup(one.svg), "why": one.why}
             for one in page.charts]  # fmt: skip
    shown: dict[str, Any] = {name: getattr(page, name) for name in page.__dataclass_fields__} | {"charts": drawn}
    return environment.get_template("report.html.j2").render(page=shown) + "\n"


def plain_spaces(value: object) -> object:
    """Like `plain`, with a blank kept at either end, which stands between two pieces of one sentence."""
    if not isinstance(value, str):
        return value
    text = plain(value)
    before, after = value[:1].isspace() and text, value[-1:].isspace() and text
    return f"{' ' if before else ''}{text}{' ' if after else ''}"


def linked_citations(sentence: str, known: frozenset[str]) -> list[Cell]:
    """A sentence cut at its references such as `[E7]`, each a link to the evidence row if that is among `known`."""
    cells: list[Cell] = []
    at = 0
    for match in _CITED.finditer(sentence):
        if match[1] in known:
            cells.append(Cell(sentence[at : match.start()], match[1]))
            at = match.end()
    return [*cells, Cell(sentence[at:])]


def usd(amount: float, evidence: str = "") -> Cell:
    """An amount of money, coloured by its sign."""
    text = f"{amount:+,.0f}".replace("-", "−") if round(amount) else "0"
    return Cell(text, evidence, tone_of(amount))


def tone_of(amount: float) -> str:
    return "loss" if amount < 0 else "gain" if amount > 0 else ""
