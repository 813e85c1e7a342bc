"""What a position counts for in its book: its value, or where it has none its notional or what its greeks move."""

from __future__ import annotations

import datetime as dt

from finllm.tools.data.books.book import Holding
from finllm.tools.data.books.position import Position
from finllm.tools.data.market import MarketStore

VIX_LEVEL = 20.0
"""Points that a vega counts by where there is no VIX: its mean since 1990 is 19.5."""
DERIVATIVES = ("future", "option", "volatility")
_CENT = 0.005


def gross_of(position: Position, holding: Holding | None, market: MarketStore, as_of: dt.date) -> float | None:
    """What the position weighs in coverage, positive, in its currency; None where no value, notional or greek is known.

    A future counts by its notional and a volatility position by its delta at today's VIX, whatever they are worth:
    their value says nothing of what they move. Others do so only where they are worth nothing. What has no `holding`
    counts by its file.
    """
    value = position.market_value if holding is None else holding.market_value
    worth = None if value is None else abs(value)
    if worth is not None and worth >= _CENT and position.asset_class not in ("future", "volatility"):
        return worth
    terms = _notional(position, holding, market, as_of)
    if terms is None:
        terms = _by_greeks(position, market, as_of)
    if terms is not None:
        return max(terms, worth or 0.0)
    return None if position.asset_class in DERIVATIVES and (worth is None or worth < _CENT) else worth


def _notional(position: Position, holding: Holding | None, market: MarketStore, as_of: dt.date) -> float | None:
    """Units times the underlying's price, or the strike where that has none."""
    if holding is not None and holding.units is not None and holding.spot is not None:
        return abs(holding.units * holding.spot)
    if position.asset_class not in ("future", "option") or position.quantity is None:
        return None
    names = (position.underlying, position.id)
    price = next((_last(one, market, as_of) for one in names if one and market.visible(one, as_of)), None)
    price = price if price is not None else position.strike or position.price
    return None if price is None else abs(position.quantity * (position.multiplier or 1.0) * price)


def _by_greeks(position: Position, market: MarketStore, as_of: dt.date) -> float | None:
    """Money per VIX point times its level. A delta of another class is a return per return, so it needs a value."""
    per_point = abs(position.vega or 0.0)
    if position.asset_class == "volatility":
        per_point += abs(position.delta or 0.0)
    if not per_point:
        return None
    return per_point * (_last("VIX", market, as_of) if market.visible("VIX", as_of) else VIX_LEVEL)


def _last(name: str, market: MarketStore, as_of: dt.date) -> float:
    return float(market.read(name, as_of).values.iloc[-1])
