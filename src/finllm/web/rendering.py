"""Templates: every text is escaped, and control and formatting characters, which could hide a part, are left out."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finllm.plain_text import clean_lines
from finllm.review.page import linked_citations, plain_spaces

if TYPE_CHECKING:
    from jinja2 import Environment

NAMED = (("/queue", "Queue"), ("/runs", "Runs"), ("/sessions", "Sessions"), ("/compare", "Compare"),
         ("/audits", "Audits"), ("/record", "Record"), ("/books", "Books"), ("/scenarios", "Scenarios"),
         ("/cost", "Cost"), ("/search", "Search"))  # fmt: skip
"""The pages of the line at the top."""
_HERE = Path(__file__).parent


def render(template: str, shown: Mapping[str, Any]) -> str:
    """The page. Errors: none for any text; UndefinedError for a name that a template has and nobody gave."""
    return _environment().get_template(template).render(shown) + "\n"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finished(value: object) -> object:
        return value if isinstance(value, (Markup, Kept)) else plain_spaces(value)

    made = Environment(loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined,
                       finalize=finished, trim_blocks=True, lstrip_blocks=True, auto_reload=False)  # fmt: skip
    made.filters |= {"cited": cited, "kept": kept, "short": short, "terms": terms, "polyline": polyline}
    made.globals["pages_for"] = pages_for
    return made


def pages_for(role: str) -> list[tuple[str, str]]:
    """The pages that a role may open from everywhere: those of the doors that are open to it."""
    from finllm.web.pages import all_doors

    open_to = {door.path for door in all_doors() if door.method == "GET" and role in door.roles}
    return [(path, name) for path, name in NAMED if path in open_to]


class Kept(str):
    """Text whose line breaks and blanks are shown as they are."""

    __slots__ = ()


def kept(text: str) -> Kept:
    """Text as it was written, without what could hide a part of it."""
    return Kept(clean_lines(text.replace("\r\n", "\n").replace("\r", "\n")))


def short(digest: str) -> str:
    """A digest's first digits."""
    return digest[:12]


def cited(text: str, known: frozenset[str] | None = None) -> Iterator[dict[str, str]]:
    """A sentence in pieces, each with the row that it names."""
    rows = known if known is not None else frozenset(re.findall(r"\[(E[1-9][0-9]*)\]", text))
    for cell in linked_citations(text, rows):
        yield {"text": cell.text, "evidence": cell.evidence, "tone": cell.tone}


def terms(formula: str) -> Iterator[dict[str, str]]:
    """A formula in pieces, each row that it names one of its own."""
    for piece in re.split(r"\b(E[1-9][0-9]*)\b", formula):
        named = re.fullmatch(r"E[1-9][0-9]*", piece) is not None
        yield {"text": "" if named else piece, "evidence": piece if named else ""}


def polyline(points: Sequence[Any], wide: float = 400.0, high: float = 90.0) -> str:
    """The values of points as the corners of a line in a box of that size, the first at its left."""
    values = [float(one.value) for one in points]
    low, span = min(values), (max(values) - min(values)) or 1.0
    step = wide / max(1, len(values) - 1)
    return " ".join(f"{at * step:.1f},{(high - 4) - (value - low) / span * (high - 8):.1f}"
                    for at, value in enumerate(values))  # fmt: skip


@functools.cache
def static(name: str) -> tuple[bytes, str]:
    """A file that comes with the pages, and its type. Errors: KeyError for any other name."""
    kinds = {"finllm.css": "text/css; charset=utf-8", "finllm.js": "text/javascript; charset=utf-8"}
    return (_HERE / "static" / name).read_bytes() if name in kinds else b"", kinds[name]
