"""The sections of a page on tail risk: what each position and factor adds to VaR and ES, and what trades change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from finllm.review.page import Cell, Part, tone_of
from finllm.tools.pnl.outcome import EngineResult
from finllm.tools.pnl.paths import Walked
from finllm.tools.pnl.trades import Increment


def risk_parts(
    result: EngineResult, increments: Sequence[Increment] = (), walked: Walked | None = None
) -> list[Part]:  # fmt: skip
    """The steps of a path, the components and the trades of a stress result, each where there is one."""
    parts: list[Part] = []
    if walked is not None:
        header = ("step", "trading days", "P&L of the step", "P&L from today", "")
        steps = [
            (Cell(one.label), Cell(str(one.days)), _amount(one.step), _amount(one.total),
             Cell("worst", tone="loss") if at == walked.worst else Cell("")) for at, one in enumerate(walked.rows)
        ]  # fmt: skip
        parts.append(Part("P&L along the path", header=header, right=(1, 2, 3), rows=steps))
    if (found := result.components) is not None:
        for what, var, shortfall in (("position", found.var_by_position, found.es_by_position),
                                     ("factor", found.var_by_factor, found.es_by_factor)):  # fmt: skip
            rows = [(Cell(name), _amount(a, loss=True), _amount(b, loss=True)) for name, a, b in paired(var, shortfall)]
            header = (what, f"of the VaR, {result.currency}", f"of the ES, {result.currency}")
            parts.append(Part(f"VaR and ES by {what}", [[Cell(found.words)]], header=header, right=(1, 2), rows=rows))
    if increments:
        header = ("trade", "value", "P&L", "one-day VaR", "one-day ES")
        parts.append(Part("What trades would change", header=header, right=(1, 2, 3, 4), rows=[
            (Cell(one.trade), _amount(one.value), _amount(one.total), _amount(one.var_975_1d, loss=True),
             _amount(one.es_975_1d, loss=True)) for one in increments]))  # fmt: skip
    return parts


def paired(var: Mapping[str, Decimal], shortfall: Mapping[str, Decimal]) -> Iterator[tuple[str, Decimal, Decimal]]:
    """The rows of both, what adds most to the ES first; where a row is of one alone, the other is zero."""
    names = sorted({**var, **shortfall}, key=lambda name: -shortfall.get(name, Decimal(0)))
    for name in names:
        yield name, var.get(name, Decimal(0)), shortfall.get(name, Decimal(0))


def _amount(amount: Decimal | None, *, loss: bool = False) -> Cell:
    """An amount in the colour of what it means: of a loss, what adds to it is bad."""
    if amount is None:
        return Cell("-")
    return Cell(f"{amount:+,.0f}".replace("-", "\u2212"), tone=tone_of(float(-amount if loss else amount)))
