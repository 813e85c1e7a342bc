"""What each position's P&L was made of, as evidence: quantity, price, exchange rate, value, loads and terms.

The largest contributors have rows of their own; of the others one row says how many they are and what they sum to.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finllm.errors import InputError
from finllm.tools.data.books.book import Holding
from finllm.tools.data.books.position import Portfolio
from finllm.tools.evidence import EvidenceTable, Source, Unit, money
from finllm.tools.pnl.damping import DAMPED
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.outcome import EngineResult

MOST = 25
"""Positions that have rows of their own: those whose P&L is largest, whatever its sign."""


@dataclass(frozen=True)
class Basis:
    """By position the ids of the rows that its P&L rests on; `others`: that of the row on those that have none."""

    rows: dict[str, tuple[str, ...]]
    others: str | None = None

    def of(self, position: str) -> str:
        """What a formula calls the exposure of a position."""
        ids = self.rows.get(position) or ((self.others,) if self.others else ())
        return f"exposure ({', '.join(ids)})" if ids else "exposure"


def basis_of(result: EngineResult, engine: Engine, portfolio: Portfolio, table: EvidenceTable) -> Basis:
    """Add the rows of the largest contributors, and one that says what the others sum to."""
    sizes = sorted(result.by_position, key=lambda name: (-abs(result.by_position[name]), name))
    named = set(sizes[:MOST])
    teller = _Teller(engine, portfolio, table, tuple(row.factor for row in result.shocks if row.move))
    rows = {one.id: tuple(teller.rows(one)) for one in engine.book.holdings if one.id in named}
    rest = sizes[MOST:]
    if not rest:
        return Basis(rows)
    others = table.add(
        float(sum(result.by_position[name] for name in rest)), money(result.currency), entity=f"{len(rest)} positions",
        what="P&L of the positions without rows of their own", period=f"{result.horizon} trading days",
        as_of=result.as_of, formula=f"their P&L added up; the {MOST} largest have rows for price, rate and loads",
    )  # fmt: skip
    return Basis(rows, others)


class _Teller:
    """Tells of one position after the other, into one table."""

    def __init__(self, engine: Engine, portfolio: Portfolio, table: EvidenceTable, moved: Sequence[str]) -> None:
        self._engine, self._table, self._moved = engine, table, moved
        self._file = (portfolio.uri, portfolio.sha256)
        self._as_of = engine.view.as_of

    def rows(self, one: Holding) -> Iterator[str]:
        yield from self._value(one)
        if one.units is not None:
            yield from self._contract(one)
        elif one.asset_class == "bond":
            yield from self._bond(one)
        elif one.asset_class in ("equity", "index", "fund"):
            yield from self._loads(one)
        else:
            yield from self._given(one, (("delta", one.delta, "ratio"), ("gamma", one.gamma, "ratio")))
        if one.vega:
            yield from self._given(one, (("vega", one.vega, money(one.currency)),))

    def _value(self, one: Holding) -> Iterator[str]:
        """The value, and what it is the product of where a price and a quantity make it."""
        if one.price is None or one.price_date is None or one.quantity is None or one.units is not None:
            yield from self._by_value(one)
            return
        quantity = self._add(one, one.quantity, "ratio", "quantity", self._of_file(one))
        pointer = f"close of {one.price_date}"
        price = self._add(
            one, one.price, money(one.currency), "price", self._of_series(one.id, pointer), one.price_date
        )
        product, factors = one.quantity * one.price, [quantity, price]
        if one.fx != 1.0:
            factors.append(self._rate(one))
            product *= one.fx
        formula = " × ".join(factors)
        yield from factors
        if abs(product - one.market_value) <= 1e-9 * max(1.0, abs(product)):
            yield self._add(one, one.market_value, money(self._engine.book.currency), "market value", formula)

    def _by_value(self, one: Holding) -> Iterator[str]:
        code = money(self._engine.book.currency)
        if one.fx == 1.0:
            yield self._add(one, one.market_value, code, "market value", self._of_file(one))
            return
        local = one.market_value / one.fx
        own = self._add(one, local, money(one.currency), "market value in its currency", self._of_file(one))
        rate = self._rate(one)
        yield from (own, rate)
        yield self._add(one, local * one.fx, code, "market value", f"{own} × {rate}")

    def _rate(self, one: Holding) -> str:
        base = self._engine.book.currency
        source = self._of_series(one.fx_factor or "", f"last by {self._as_of}") if base == "USD" else None
        words = source or f"{base} of one {one.currency}, by the rates against the dollar"
        return self._add(one, one.fx, "ratio", f"exchange rate, {base} of one {one.currency}", words)

    def _loads(self, one: Holding) -> Iterator[str]:
        """The betas on the factors that moved; their window and how they were made."""
        if one.beta is not None:
            yield self._add(one, one.beta, "ratio", "load on EQUITY_US", self._of_file(one))
            return
        found = self._engine.sens.regressions.get(one.series or "")
        for factor in self._moved if found else ():
            assert found is not None
            if factor in found.betas:
                felt = "the damped move of " if factor in DAMPED else ""
                how = f"regression on {found.n} daily returns, {found.window}, shrunk towards its peers"
                yield self._add(one, found.betas[factor], "ratio", f"load on {felt}{factor}", how, period=found.window)

    def _bond(self, one: Holding) -> Iterator[str]:
        yield from self._given(
            one, (("duration", one.duration, "years"), ("convexity, years²", one.convexity, "ratio"))
        )

    def _contract(self, one: Holding) -> Iterator[str]:
        """What a contract is revalued by: its size, the price of what it is on, its volatility or yield."""
        yield self._add(one, one.units or 0.0, "ratio", "units of what it is on", "quantity × multiplier of the file")
        if one.spot is not None:
            bond, on = one.asset_class == "bond", (one.exposure or "").partition(":")[2]
            what = "price per 100 of nominal, with accrued interest" if bond else "price of what it is on"
            how = f"as it was valued on {one.valued_on or self._as_of}" + (f", {on}" if on else "")
            yield self._add(one, one.spot, money(one.currency), what, how)
        for what, amount in (("volatility a year", one.volatility), ("yield a year", one.yield_)):
            if amount is not None:
                yield self._add(one, amount, "return", what, "that which gives its value, or the file's")

    def _given(self, one: Holding, terms: Sequence[tuple[str, float | None, Unit]]) -> Iterator[str]:
        for what, amount, unit in terms:
            if amount is not None:
                yield self._add(one, amount, unit, what, self._of_file(one))

    def _add(
        self, one: Holding, value: float, unit: Unit, what: str, origin: Source | str, day: dt.date | None = None, *,
        period: str | None = None,
    ) -> str:  # fmt: skip
        source, formula = (origin, None) if isinstance(origin, Source) else (None, origin)
        about = period or (f"at {day}" if day else f"at {self._as_of}")
        return self._table.add(float(value), unit, entity=one.id, what=what, period=about, as_of=self._as_of,
                               source=source, formula=formula)  # fmt: skip

    def _of_file(self, one: Holding) -> Source:
        uri, sha256 = self._file
        return Source(uri=uri, sha256=sha256, pointer=f"row {one.id}")

    def _of_series(self, name: str, pointer: str) -> Source | str:
        with contextlib.suppress(InputError):
            if name in self._engine.view.market:
                return self._engine.view.market.source(name, pointer)
        return f"{name or 'its rate'}, {pointer}"
