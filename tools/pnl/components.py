"""What each position and each factor adds to VaR and expected shortfall: parts that sum to the whole, to the cent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from finllm.tools.data.books.book import Book
from finllm.tools.pnl.attribution import CENT
from finllm.tools.pnl.kernel import Sensitivities, local_gains, own_terms
from finllm.tools.pnl.outcome import IDIOSYNCRATIC, INTERACTION, Components, usd
from finllm.tools.pnl.risk import VAR_LEVEL, BookDays, daily_gains
from finllm.tools.pnl.sizes import FactorView

NEAR = 5
"""Days on either side of the VaR's in the order of losses that its parts are the mean of: one day alone is chance."""
MOST_POSITIONS = 100
"""Positions that are named, those that add or take most; the others are one row."""
OTHERS = "other positions"


@dataclass(frozen=True)
class PositionDays:
    """One-day P&L of today's holdings on d past days: (P, d) of each position.

    `terms` (d, K): what each factor explains alone; `specific` (d,): own returns beyond their factors.
    """

    gains: np.ndarray
    terms: np.ndarray
    specific: np.ndarray


def position_days(book: Book, arrays: Sensitivities, found: BookDays, at: np.ndarray) -> PositionDays:
    """The days of the historical simulation behind VaR and ES, before any shock, by position.

    `at` (d,): which days are wanted, as numbers of them. A holding that the VaR misses counts for nothing.
    """
    daily = found.daily[at]
    local = local_gains(arrays, daily)
    for row, returns in found.own.items():
        value = book.holdings[row].market_value * returns[at]
        local[row] = np.where(np.isnan(value), local[row], value)
    gains = local if arrays.fx is None else arrays.fx.translated(local, daily)
    gains[found.missing] = 0.0
    terms, specific = np.zeros((len(at), len(arrays.factors))), np.zeros(len(at))
    owned = np.array(sorted(found.own), dtype=int)
    for day in range(len(at)):
        alone = own_terms(arrays, daily[day])
        alone[found.missing] = 0.0
        terms[day] = alone.sum(axis=0)
        specific[day] = gains[owned, day].sum() - alone[owned].sum()
    return PositionDays(gains, terms, specific)


def components(
    book: Book, arrays: Sensitivities, view: FactorView, found: BookDays | None, level: float = VAR_LEVEL
) -> Components | None:  # fmt: skip
    """Euler's parts of one-day VaR and ES at `level` by position and by factor; None where there is no history.
    `found`: the days of the historical simulation.

    A position's part is what it lost, on average, on the days that the measure is made of (Tasche 2000: the derivative
    of VaR and ES by the size of a position is its mean loss given that the book is at, or beyond, the VaR). For ES that
    is the tail, a fraction of a day counted as such; for VaR the days within `NEAR` of it in the order of losses,
    scaled to the VaR. What is positive adds to the loss, what is negative hedges it. Sums are exact in cents.
    """
    still = np.zeros(len(arrays.factors))
    gains = daily_gains(book, arrays, still, view.factors, view.market, view.as_of, found=found)
    if found is None or gains is None:
        return None
    total = gains.before
    order = np.argsort(total, kind="stable")
    beyond = (1 - level) * len(total)
    at = min(len(total) - 1, math.floor(beyond + 4 * np.finfo(float).eps * len(total)))
    whole = max(0, math.ceil(beyond) - 1)
    tail = np.append(np.full(whole, 1.0), beyond - whole) / beyond
    low, high = max(0, at - NEAR), min(len(total), at + NEAR + 1)
    days = order[: max(high, whole + 1)]
    seen = position_days(book, arrays, found, days)
    near = np.zeros(len(days))
    near[low:high] = 1.0 / (high - low)
    reached = float(near @ total[days])
    var = -float(total[order[at]])
    if -reached * var > 0.5 * var**2:  # the days around it lose about as much
        near *= -var / reached
    else:
        near[:] = 0.0
        near[at] = 1.0
    worst = np.zeros(len(days))
    worst[: len(tail)] = tail
    day = found.days[order[at]]
    return Components(
        level=level,
        var_by_position=_positions(arrays, seen, near, found), es_by_position=_positions(arrays, seen, worst, found),
        var_by_factor=_factors(arrays, seen, near), es_by_factor=_factors(arrays, seen, worst),
        words=f"mean losses on the days of the measure: ES on the worst {beyond:.1f} of {len(total)}, VaR on the "
              f"{high - low} around {day:%Y-%m-%d} in the order of losses, scaled to it; {found.words}",
    )  # fmt: skip


def _positions(arrays: Sensitivities, seen: PositionDays, weights: np.ndarray, found: BookDays) -> dict[str, Decimal]:
    losses = -(seen.gains @ weights)
    rows = np.flatnonzero(~found.missing)
    named = {arrays.positions[row]: float(losses[row]) for row in rows}
    largest = sorted(named, key=lambda name: -abs(named[name]))[:MOST_POSITIONS]
    if len(largest) < len(named):
        rest = math.fsum(named.values()) - math.fsum(named[name] for name in largest)
        return _in_cents({**{name: named[name] for name in largest}, OTHERS: rest})
    return _in_cents(named)


def _factors(arrays: Sensitivities, seen: PositionDays, weights: np.ndarray) -> dict[str, Decimal]:
    terms = -(weights @ seen.terms)
    parts = {name: float(one) for name, one in zip(arrays.factors, terms, strict=True) if one}
    parts[IDIOSYNCRATIC] = -float(weights @ seen.specific)
    whole = -float(weights @ seen.gains.sum(axis=0))
    parts[INTERACTION] = whole - math.fsum(parts.values())
    return _in_cents({name: one for name, one in parts.items() if name != INTERACTION or abs(one) >= 0.005})


def _in_cents(parts: Mapping[str, float]) -> dict[str, Decimal]:
    """Parts in cents that sum to their sum in cents: what rounding leaves goes to the largest."""
    rounded = {name: usd(one + 0.0) for name, one in parts.items()}
    left = usd(math.fsum(parts.values())) - sum(rounded.values(), Decimal(0))
    if left and abs(left) <= CENT * len(parts):
        rounded[max(parts, key=lambda name: abs(parts[name]))] += left
    return dict(sorted(rounded.items(), key=lambda item: -item[1]))
