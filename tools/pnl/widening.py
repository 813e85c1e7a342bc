"""Widens the bands of a result about its P&L, where somebody doubts the shocks that it is given."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from statistics import NormalDist

from finllm.tools.pnl.outcome import EngineResult, HorizonRow, usd

NORMAL = NormalDist()
HALVINGS = 60
"""Steps by which the end of a mixture's band is closed in on: 2⁻⁶⁰ of its width is under a cent."""


def widened(result: EngineResult, by: float, why: str) -> EngineResult:
    """The result with each end of its bands `by` times as far from the P&L; the P&L itself stays.

    The level stays what it was stated as, so that the band holds at least that. A factor of one changes nothing.
    """
    if by == 1.0:
        return result

    def end(at: Decimal, point: Decimal) -> Decimal:
        return point + usd(float(at - point) * by)

    interval = result.interval
    if interval is not None:
        interval = interval.model_copy(update={
            "lower": end(interval.lower, result.total), "upper": end(interval.upper, result.total),
            "method": f"{interval.method}; {by:.2f} times as wide: {why}",
        })  # fmt: skip

    def wider(rows: tuple[HorizonRow, ...]) -> tuple[HorizonRow, ...]:
        return tuple(row if row.lower is None or row.upper is None else _with(row, end(row.lower, row.total),
                     end(row.upper, row.total)) for row in rows)  # fmt: skip

    return result.model_copy(update={"interval": interval, "by_horizon": wider(result.by_horizon),
                                     "by_day": wider(result.by_day)})  # fmt: skip


def as_wide_as(level: float, stated: float) -> float:
    """How many times as wide a normal's band of `level` is as that of the `stated` one."""
    return float(NORMAL.inv_cdf((1 + level) / 2) / NORMAL.inv_cdf((1 + stated) / 2))


def mixed(result: EngineResult, other: Decimal, weight: float, why: str) -> EngineResult:
    """The result with bands of a mixture: with `weight` (0 to 1] the P&L as it is, else `other`; the P&L stays.

    Each part is spread as the band is, on each side normal with its own width; a band only grows. At shorter horizons
    the other P&L is as far from the row's as it is, in proportion, at the last.
    """
    interval = result.interval
    if interval is None or weight >= 1.0 or other == result.total:
        return result
    share = float(other / result.total) if result.total else 0.0
    level = interval.level

    def mix(rows: tuple[HorizonRow, ...]) -> tuple[HorizonRow, ...]:
        return tuple(_mixed(row, row.total * Decimal(share), weight, level) for row in rows[:-1]) + (last,) * bool(rows)

    last = _mixed(_as_row(result), other, weight, interval.level)
    words = f"{interval.method}; mixed at {weight:.0%} to {1 - weight:.0%}: {why}"
    interval = interval.model_copy(update={"lower": last.lower, "upper": last.upper, "method": words})
    return result.model_copy(update={"interval": interval, "by_horizon": mix(result.by_horizon),
                                     "by_day": mix(result.by_day)})  # fmt: skip


def _as_row(result: EngineResult) -> HorizonRow:
    assert result.interval is not None
    return HorizonRow(horizon=result.horizon, total=result.total, lower=result.interval.lower,
                      upper=result.interval.upper)  # fmt: skip


def _mixed(row: HorizonRow, other: Decimal, weight: float, level: float) -> HorizonRow:
    if row.lower is None or row.upper is None:
        return row
    point, apart, tail = float(row.total), float(other), (1 - level) / 2
    spread = float(NORMAL.inv_cdf(1 - tail))
    below, above = (point - float(row.lower)) / spread, (float(row.upper) - point) / spread

    def held(at: float) -> float:
        return weight * _share(at - point, below, above) + (1 - weight) * _share(at - apart, below, above)

    low = min(float(row.lower), float(row.lower) + apart - point)
    high = max(float(row.upper), float(row.upper) + apart - point)
    lower, upper = _crossing(held, tail, low, high), _crossing(held, 1 - tail, low, high)
    return _with(row, min(row.lower, usd(lower)), max(row.upper, usd(upper)))


def _share(apart: float, below: float, above: float) -> float:
    """Share of a split normal below a value that is so far from its middle."""
    spread = below if apart < 0 else above
    return NORMAL.cdf(apart / spread) if spread > 0 else float(apart >= 0)


def _crossing(held: Callable[[float], float], level: float, low: float, high: float) -> float:
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if held(middle) < level else (low, middle)
    return (low + high) / 2


def _with(row: HorizonRow, lower: Decimal, upper: Decimal) -> HorizonRow:
    return row.model_copy(update={"lower": lower, "upper": upper})
