"""Widens the bands of a result about its P&L, where somebody doubts the shocks that it is given."""

from __future__ import annotations

from decimal import Decimal

from finllm.tools.pnl.outcome import EngineResult, HorizonRow, usd


def widened(result: EngineResult, by: float, why: str) -> EngineResult:
    """The result with each end of its bands `by` times as far from the P&L; the P&L itself stays.

    The level stays what it was stated as, so that the band holds at least that. A factor of one changes nothing.
    """
    if by == 1.0:
        return result
    interval = result.interval
    if interval is not None:
        interval = interval.model_copy(update={
            "lower": _end(interval.lower, result.total, by), "upper": _end(interval.upper, result.total, by),
            "method": f"{interval.method}; {by:g} times as wide: {why}",
        })  # fmt: skip
    rows = tuple(_row(row, by) for row in result.by_horizon)
    return result.model_copy(update={"interval": interval, "by_horizon": rows})


def _row(row: HorizonRow, by: float) -> HorizonRow:
    if row.lower is None or row.upper is None:
        return row
    ends = {"lower": _end(row.lower, row.total, by), "upper": _end(row.upper, row.total, by)}
    return row.model_copy(update=ends)


def _end(end: Decimal, point: Decimal, by: float) -> Decimal:
    return point + usd(float(end - point) * by)
