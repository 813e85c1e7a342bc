"""Limits on a terminal: what is breached, what was not checked, and the restricted names that a book holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from finllm.cli.display.report import table, text
from finllm.tools.pnl.limits import NO_LIMITS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finllm.tools.pnl.limits import Held


def limit_sections(held: Held, restricted: Sequence[str]) -> Iterator[tuple[str, RenderableType]]:
    """The breaches, and where there are some the limits that were not checked and the restricted names."""
    rows = [(one.kind, one.subject, *one.shown) for one in held.breaches]
    breached = table(("limit", "of", "allowed", "loss"), rows, right=(2, 3))
    yield "Limit breaches", breached if held.limited else text(NO_LIMITS, "yellow")
    if held.unchecked:
        yield "Limits not checked", table(("limit", "of", "why"),
                                          [(one.kind, one.subject, one.why) for one in held.unchecked])  # fmt: skip
    if restricted:
        yield "Restricted names held", text(", ".join(restricted), "bold red")
