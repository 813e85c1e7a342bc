"""The book: what a portfolio is worth on a day, what was left out of it and why."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence

from finllm.tools.data.books.position import Frozen, Terms

NAMED_EXCLUSIONS = 10
"""Positions left out that a report names before it counts the rest."""


class Holding(Terms):
    """A position with its value. `market_value` in the book's currency, `fx` of which one unit of `currency` is worth.

    `price` in `currency`, of `price_date`, if it was valued by quantity. `fx_factor` is the factor of that currency
    against the dollar, None for the dollar, and for a position whose value no exchange rate translates.

    `series` names the history that its own returns come from, if it has one that the market store can use;
    `history_days` of it are shared with the index, the last of them `history_end`. `valued_on`: the day that its value
    is of, where that is known. `gross`: what it counts for in coverage, as its market value. `stand_in`: whose
    sensitivity stands in for its own. `look_through`: of a fund, the weights of what it holds, by factor or series.

    Of a contract: `units` of its underlying (negative is short), or of 100 of nominal for a bond, times `fx`, at `spot`
    of `currency` each, discounted at `rate` (decimal a year, continuous); `volatility` and `yield_` are those that give
    its value.
    `exposure` is what the underlying moves with: `factor:ID`, `series:NAME`, `position:ID`, or `beta` to EQUITY_US.
    """

    sector: str
    market_value: float
    fx: float = 1.0
    fx_factor: str | None = None
    quantity: float | None = None
    price: float | None = None
    price_date: dt.date | None = None
    series: str | None = None
    units: float | None = None
    spot: float | None = None
    rate: float = 0.0
    exposure: str | None = None
    valued_on: dt.date | None = None
    history_days: int | None = None
    history_end: dt.date | None = None
    gross: float | None = None
    stand_in: str | None = None
    look_through: dict[str, float] | None = None

    @property
    def notional(self) -> float:
        """Market value, or units at their spot where there is none, in the book's currency."""
        return self.market_value or (self.units or 0.0) * (self.spot or 0.0)

    @property
    def counts_for(self) -> float:
        """What it counts for in coverage, positive, in the book's currency."""
        return abs(self.market_value) if self.gross is None else self.gross


class Exclusion(Frozen):
    """A position left out. `weight`: its share of the gross value of all valued positions, None if it has no value.

    `gross`: what it counts for in coverage, None where that is not known.
    """

    id: str
    reason: str
    weight: float | None
    sector: str | None = None
    underlying: str | None = None
    gross: float | None = None


def first_exclusions(exclusions: Sequence[Exclusion]) -> tuple[Exclusion, ...]:
    """Those that reports name: of unknown value first, then the largest. The rest is only counted."""
    ordered = sorted(exclusions, key=lambda one: -math.inf if one.weight is None else -one.weight)
    return tuple(ordered[:NAMED_EXCLUSIONS])


class Book(Frozen):
    """What a portfolio is worth at `as_of`, in `currency`: what is held, what was left out and why, what to know."""

    name: str
    as_of: dt.date
    currency: str = "USD"
    sha256: str
    holdings: tuple[Holding, ...]
    exclusions: tuple[Exclusion, ...]
    notes: tuple[str, ...]

    @property
    def left_out(self) -> float:
        """What the positions left out count for in coverage; those of unknown value for nothing."""
        return math.fsum(one.gross or 0.0 for one in self.exclusions)

    @property
    def value(self) -> float:
        """Net market value, in the book's currency."""
        return math.fsum(holding.market_value for holding in self.holdings)

    @property
    def gross(self) -> float:
        """What its holdings count for in coverage, in the book's currency: never negative, whatever is sold short."""
        return math.fsum(holding.counts_for for holding in self.holdings)
