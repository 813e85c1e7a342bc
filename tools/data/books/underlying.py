"""What an option or a future is on: the factor, series or position that it moves with, and its price today."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from finllm.errors import InputError
from finllm.tools.data.books.position import Position
from finllm.tools.data.currencies import fx_factor, pair_of
from finllm.tools.data.factors import factor_table
from finllm.tools.data.market import MarketStore

MIN_HISTORY = 61
"""Days shared with the S&P 500 (60 returns) below which a position's beta is not estimated."""
MAX_PRICE_AGE = 400
"""Calendar days after which a price no longer values a position."""

_KNOWN: dict[str, tuple[str, bool]] = {
    name: (factor, level)
    for names, factor, level in (
        ("SPX SPXW GSPC SP500 S&P500 XSP ES MES", "EQUITY_US", True),
        ("SPY VOO IVV", "EQUITY_US", False),
        ("CL MCL QM WTI", "OIL_WTI", True),
        ("GC MGC XAU XAUUSD", "GOLD", True),
        ("GLD IAU", "GOLD", False),
        ("VIX VX VXM", "VIX", True),
        ("DX DXY", "USD_BROAD", False),
    )
    for name in names.split()
}
"""Indices, funds and roots of futures by name: the factor that each moves with, and whether its level is the price."""
_FUTURE = re.compile(r"([A-Z]{1,3})[FGHJKMNQUVXZ]\d{1,2}(?: .*)?")
"""A future's symbol: root, month and year, such as CLF7 or ESZ26."""
_SPOT_TAGS = ("underlying_price", "underlying price", "spot", "spot_price")
_CARRIERS = ("equity", "index", "fund", "commodity", "fx", "gold")


@dataclass(frozen=True)
class Underlying:
    """`exposure` as a holding has it; `spot` in the underlying's own price, None where nothing says it; `day` of it."""

    exposure: str
    spot: float | None
    day: dt.date | None = None


class Underlyings:
    """The underlyings of one portfolio at one day; each is looked up once."""

    def __init__(self, positions: Sequence[Position], market: MarketStore, as_of: dt.date) -> None:
        self._positions = {one.id: one for one in positions}
        self._market, self._as_of = market, as_of
        self._found: dict[str, Underlying | None] = {}

    def of(self, position: Position) -> Underlying | str:
        """The underlying of a contract, or why there is none that can be moved."""
        name = position.underlying or _root(position.id)
        if not name:
            return "it names no underlying"
        if name not in self._found:
            self._found[name] = self._look(name, position.id)
        found = self._found[name]
        if position.beta is not None:
            found = replace(found, exposure="beta") if found else Underlying("beta", None)
        if found is None:
            return (
                f"its underlying {name!r} is no position, series or factor, and no beta is given"
                if name not in self._positions and name not in self._market
                else f"its underlying {name!r} has too little history, and no beta is given"
            )
        given = next((position.tags[tag] for tag in _SPOT_TAGS if tag in position.tags), None)
        return replace(found, spot=_number(given)) if given and _number(given) else found

    def _look(self, name: str, own: str) -> Underlying | None:
        target = self._positions.get(name) if name != own else None
        if target is not None and target.asset_class in _CARRIERS:
            spot, day = self._price(target)
            stock = target.asset_class in ("equity", "index", "fund")
            if not stock or target.beta is not None or self._has_history(target.id):
                return Underlying(f"position:{name}", spot, day)
        if target is not None and target.asset_class == "future":
            known = self._look(target.underlying or _root(target.id) or "", target.id)
            return replace(known, spot=target.price or known.spot) if known else None
        plain = name.upper().lstrip("^").removesuffix(" INDEX").removesuffix(" US").replace(" ", "")
        if plain in _KNOWN:
            factor, level = _KNOWN[plain]
            return self._factor(factor) if level else Underlying(f"factor:{factor}", *self.series_price(name))
        table = factor_table()
        for id, row in table.items():
            if name == id or name in (row.series, row.imported):
                return self._factor(id) if row.unit != "bp" else None
        pair = pair_of(name.upper().removeprefix("FX_"))
        if pair and pair[1] == "USD":  # before a series of that name, which would be moved by its beta to the index
            return Underlying(f"factor:{fx_factor(pair[0])}", *self.series_price(fx_factor(pair[0])))
        if self._has_history(name):
            return Underlying(f"series:{name}", *self.series_price(name))
        return None

    def _factor(self, id: str) -> Underlying:
        row = factor_table()[id]
        series = next((one for one in (row.imported, row.series) if one and one in self._market), None)
        return Underlying(f"factor:{id}", *(self.series_price(series) if series else (None, None)))

    def _has_history(self, name: str) -> bool:
        return self._market.shared_days(name, "SP500", self._as_of) >= MIN_HISTORY

    def _price(self, target: Position) -> tuple[float | None, dt.date | None]:
        if target.price:
            return target.price, target.priced_on
        if target.market_value and target.quantity:
            return target.market_value / target.quantity / (target.multiplier or 1.0), target.priced_on
        pair = pair_of(target.id) if target.asset_class == "fx" else None
        return self.series_price(fx_factor(pair[0]) if pair and pair[1] == "USD" else target.id)

    def series_price(self, name: str) -> tuple[float | None, dt.date | None]:
        """The last price or level of a series of the market and its day; None where it has none, or only an old one."""
        try:
            seen = self._market.read(name, self._as_of)
        except InputError:
            return None, None
        if seen.series.unit not in ("price", "points") or seen.age_days > MAX_PRICE_AGE:
            return None, None
        return float(seen.values.iloc[-1]), seen.last


def _root(id: str) -> str | None:
    """The root of a future's symbol, where it is one that is known."""
    found = _FUTURE.fullmatch(id.upper())
    return found.group(1) if found and found.group(1) in _KNOWN else None


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None
