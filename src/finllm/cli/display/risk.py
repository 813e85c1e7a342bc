"""Tail risk on a terminal: what adds most to VaR and ES, and what trades would change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from finllm.cli.book_options import dollars
from finllm.cli.display.report import table
from finllm.review.risk_parts import paired

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finllm.tools.pnl.outcome import EngineResult
    from finllm.tools.pnl.paths import Walked
    from finllm.tools.pnl.trades import Increment

SHOWN = 10
"""Positions that are shown; JSON and files have all."""


def risk_sections(
    result: EngineResult, increments: Sequence[Increment], walked: Walked | None = None
) -> Iterator[tuple[str, RenderableType]]:
    """The steps of a path, the components by position and by factor, and the trades, each where there is one."""
    if walked is not None:
        rows = [(one.label, str(one.days), dollars(one.step), dollars(one.total), "worst" if at == walked.worst else "")
                for at, one in enumerate(walked.rows)]  # fmt: skip
        yield "P&L along the path; all else is of its worst step", table(
            ("step", "trading days", "P&L of the step", "P&L from today", ""), rows, right=(1, 2, 3))  # fmt: skip
    if (found := result.components) is not None:
        for what, var, shortfall in (("position", found.var_by_position, found.es_by_position),
                                     ("factor", found.var_by_factor, found.es_by_factor)):  # fmt: skip
            rows = [(name, dollars(a), dollars(b)) for name, a, b in paired(var, shortfall)]
            more = f", the first {SHOWN} of {len(rows)}" if len(rows) > SHOWN else ""
            yield (f"VaR and ES before by {what}{more}",
                   table((what, "of the VaR", "of the ES"), rows[:SHOWN], right=(1, 2)))  # fmt: skip
    if increments:
        rows = [(one.trade, *map(dollars, (one.value, one.total, one.var_975_1d, one.es_975_1d))) for one in increments]
        yield "What trades would change", table(("trade", "value", "P&L", "one-day VaR", "one-day ES"), rows,
                                                right=(1, 2, 3, 4))  # fmt: skip
