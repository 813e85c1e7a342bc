"""The book: what a portfolio is worth on a day, what was left out of it and why."""

from __future__ import annotations

import datetime as dt
import math

from finllm.tools.data.books.position import Frozen, Terms


class Holding(Terms):
    """A position with its value. `market_value` in USD; `price` in USD of `price_date`, if it was valued by quantity.

    `series` names the history that its own returns come from, if it has one that the market store can use.

    Of a contract: `units` of its underlying (negative is short), or of 100 of nominal for a bond, at `spot` USD each,
    discounted at `rate` (decimal a year, continuous); `volatility` and `yield_` are those that give its value.
    `exposure` is what the underlying moves with: `factor:ID`, `series:NAME`, `position:ID`, or `beta` to EQUITY_US.
    """

    sector: str
    market_value: float
    quantity: float | None = None
    price: float | None = None
    price_date: dt.date | None = None
    series: str | None = None
    units: float | None = None
    spot: float | None = None
    rate: float = 0.0
    exposure: str | None = None

    @property
    def notional(self) -> float:
        """What a position without a market value is measured by: units at their spot, USD; else its market value."""
        return self.market_value or (self.units or 0.0) * (self.spot or 0.0)


class Exclusion(Frozen):
    """A position left out. `weight`: its share of the gross value of all valued positions, None if it has no value."""

    id: str
    reason: str
    weight: float | None


class Book(Frozen):
    """What a portfolio is worth at `as_of`, in USD: what is held, what was left out and why, what to know about it."""

    name: str
    as_of: dt.date
    sha256: str
    holdings: tuple[Holding, ...]
    exclusions: tuple[Exclusion, ...]
    notes: tuple[str, ...]

    @property
    def value(self) -> float:
        """Net market value, USD."""
        return math.fsum(holding.market_value for holding in self.holdings)
