"""Trades on a book: the portfolio with them, and what each adds to the stressed P&L, the VaR and the ES."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from finllm.errors import InputError
from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.books.position import Portfolio, Position, Terms
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import UserShock
from finllm.tools.data.fx import DOLLAR
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.coverage import Thresholds
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.outcome import Cents, Frozen, usd
from finllm.tools.pnl.risk import daily_gains
from finllm.tools.pnl.shocks import Plan, Window

ALL = "all together"


@dataclass(frozen=True)
class Trade:
    """`quantity` of an instrument bought, negative sold: units, or money of a position that is held by its value."""

    id: str
    quantity: float

    def __str__(self) -> str:
        return f"{self.id}={self.quantity:+,.10g}"


class Increment(Frozen):
    """What a trade changes, with it less without it: the book's value, the stressed P&L, one-day VaR and ES (losses,
    so that what lowers them is negative). None where there is no history to take them from."""

    trade: str
    value: Cents
    total: Cents
    var_975_1d: Cents | None
    es_975_1d: Cents | None


@dataclass(frozen=True)
class Asked:
    """The scenario that trades are held against, and on what, and whether time passes; see `run_engine`.

    `stressed`: by the covariance of stress at any size of shock, as in a run whose market is judged stressed.
    """

    market: MarketStore
    as_of: dt.date
    horizon: int
    shocks: Sequence[UserShock] = ()
    replay: Window | str | None = None
    propagate: bool | None = None
    factors: FactorSet | None = None
    currency: str = DOLLAR
    thresholds: Thresholds | None = None
    age: bool = False
    passing: int | None = None
    stressed: bool = False
    given: Plan | None = None
    """The plan of a run, whole: it goes before shocks, replay, horizon and passing."""
    at_hand: Engine | None = None
    """An engine on the same market and day, which others are made like; see `Engine`."""

    @property
    def shocked(self) -> bool:
        """Whether anything moves."""
        return bool(self.given.shocks if self.given is not None else self.shocks or self.replay is not None)

    def book(self, portfolio: Portfolio) -> Book:
        return value_portfolio(portfolio, self.market, self.as_of, self.currency)

    def engine(self, book: Book) -> Engine:
        hand = self.at_hand
        if hand is not None and hand.serves(book, self.market, self.as_of, self.factors, age=self.age):
            return hand
        return Engine(book, self.market, self.as_of, self.factors, thresholds=self.thresholds, age=self.age, like=hand)

    def plan(self, engine: Engine) -> Plan:
        if self.given is not None:
            return self.given
        return engine.plan(self.horizon, user=self.shocks, replay=self.replay, passing=self.passing)


def parse_trades(texts: Sequence[str]) -> tuple[Trade, ...]:
    """Trades written as ID=QUANTITY. Errors: InputError for one that cannot be read, or two of one instrument."""
    found: dict[str, Trade] = {}
    for text in texts:
        id, sign, amount = text.rpartition("=")
        try:
            quantity = float(amount.replace(",", "").replace("_", ""))
        except ValueError:
            quantity = math.nan
        if not sign or not id.strip() or not math.isfinite(quantity) or not quantity:
            raise InputError(f"trade {text!r} is not ID=QUANTITY", fix="write it as AAPL=-2000, negative to sell")
        if id.strip() in found:
            raise InputError(f"{id.strip()!r} is traded twice", fix="give one quantity for each instrument")
        found[id.strip()] = Trade(id.strip(), quantity)
    return tuple(found.values())


def scaled(one: Position, by: float) -> Position:
    """So many of a position; its price and terms are as they were."""
    return one.model_copy(update=_sizes(one, by, ("quantity", "market_value")))


def traded(
    portfolio: Portfolio, trades: Sequence[Trade], asked: Asked, more: Sequence[Position] = ()
) -> Book:  # fmt: skip
    """The book with the trades: what is held already gets a row of the trade beside its own, so that the loads of all
    positions are as they were; what is not is added.

    `more`: instruments that may be traded besides those held and shares of the market, each as one lot. Errors:
    InputError for one that is none of these, or that is left out of the book.
    """
    known = {one.id for one in portfolio.positions}
    others = {one.id: one for one in more}
    added: list[Position] = []
    for trade in (one for one in trades if one.id not in known):
        if trade.id in others:
            added.append(scaled(others[trade.id], trade.quantity))
        elif trade.id in asked.market and asked.market.unit_of(trade.id) == "price":
            added.append(Position(id=trade.id, asset_class="equity", quantity=trade.quantity))
        else:
            raise _untradable(trade.id, portfolio)
    whole = portfolio.model_copy(update={"positions": (*portfolio.positions, *added)})
    book = value_portfolio(whole, asked.market, asked.as_of, asked.currency)
    held = {one.id: one for one in book.holdings}
    if out := [one for one in trades if one.id not in held]:
        why = next((one.reason for one in book.exclusions if one.id == out[0].id), "it is left out")
        raise InputError(f"{out[0].id!r} cannot be traded: {why}", fix="correct it, or trade another instrument")
    rows = [_beside(held[one.id], one.quantity) for one in trades if one.id in known]
    return book.model_copy(update={"holdings": (*book.holdings, *rows)})


def _beside(one: Holding, quantity: float) -> Holding:
    size = one.quantity if one.quantity is not None else one.market_value
    if not size:
        raise InputError(f"{one.id!r} is held at zero, so a trade has nothing to scale", fix="trade another instrument")
    names = ("quantity", "market_value", "units")
    update = _sizes(one, quantity / size, names)
    return one.model_copy(update={**update, "id": f"{one.id} (trade)", "gross": None})


def _sizes(one: Terms, by: float, names: Sequence[str]) -> dict[str, float]:
    """The fields that say how much of it there is, times `by`; greeks in money are such fields too."""
    greeks = ("vega", "delta", "gamma") if one.asset_class == "volatility" else ("vega",)
    return {name: amount * by for name in (*names, *greeks) if (amount := getattr(one, name)) is not None}


def after_trades(portfolio: Portfolio, trades: Sequence[Trade], market: MarketStore) -> Portfolio:
    """The portfolio with the trades done: what is held changes its size, what is sold whole leaves, what is not held
    and is a share of the market is added. Errors: InputError for anything else, and for a position held at zero.
    """
    found = {one.id: one for one in portfolio.positions}
    for trade in trades:
        held = found.get(trade.id)
        if held is None:
            if trade.id not in market or market.unit_of(trade.id) != "price":
                raise _untradable(trade.id, portfolio)
            found[trade.id] = Position(id=trade.id, asset_class="equity", quantity=trade.quantity)
            continue
        size = held.quantity if held.quantity is not None else held.market_value
        if not size:
            raise InputError(f"{trade.id!r} is held at zero, so a trade has nothing to scale",
                             fix="trade another instrument")  # fmt: skip
        if abs(size + trade.quantity) < 1e-12 * abs(size):
            del found[trade.id]
        else:
            found[trade.id] = scaled(held, 1 + trade.quantity / size)
    if not found:
        raise InputError("the trades leave nothing in the book", fix="keep a position")
    done = (f"with the trade {one}" for one in trades)
    return portfolio.model_copy(update={"positions": tuple(found.values()), "notes": (*portfolio.notes, *done)})


def _untradable(id: str, portfolio: Portfolio) -> InputError:
    return InputError(f"{id!r} cannot be traded: it is no position of {portfolio.name!r} and no price series",
                      fix="name one of the book's ids, or add its prices with --prices")  # fmt: skip


def increments(
    portfolio: Portfolio, trades: Sequence[Trade], asked: Asked, more: Sequence[Position] = ()
) -> tuple[Increment, ...]:
    """What each trade changes alone, and all of them together where there are several, by full revaluation."""
    before = _measured(asked.book(portfolio), asked)
    rows: list[tuple[str, tuple[Trade, ...]]] = [(str(one), (one,)) for one in trades]
    if len(trades) > 1:
        rows.append((ALL, tuple(trades)))
    found: list[Increment] = []
    for name, some in rows:
        after = _measured(traded(portfolio, some, asked, more), asked)
        var, shortfall = (None if a is None or b is None else a - b for a, b in zip(after[2:], before[2:], strict=True))
        found.append(Increment(trade=name, value=_less(after[0], before[0]), total=_less(after[1], before[1]),
                               var_975_1d=var, es_975_1d=shortfall))  # fmt: skip
    return tuple(found)


def _less(after: Decimal | None, before: Decimal | None) -> Decimal:
    assert after is not None
    assert before is not None
    return after - before


def _measured(book: Book, asked: Asked) -> tuple[Decimal | None, ...]:
    """Value, stressed P&L, VaR and ES."""
    engine = asked.engine(book)
    plan = asked.plan(engine)
    total = engine.revalue(plan, propagate=asked.propagate, stressed=asked.stressed).total
    view, arrays = engine.view, engine.arrays
    gains = daily_gains(engine.book, arrays, np.zeros(len(arrays.factors)), view.factors, view.market, view.as_of)
    var, _, shortfall, _ = gains.measures() if gains else (None, None, None, None)
    return usd(engine.book.value), total, var and var.loss, shortfall and shortfall.loss
