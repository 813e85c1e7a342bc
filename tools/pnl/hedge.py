"""Hedging: the cheapest trades that bring a loss, a VaR, an ES or a factor's part of a loss under its limit."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal, TypeVar

import numpy as np

from finllm.errors import InputError
from finllm.tools.data.books.book import Book
from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.hedges.instruments import YEAR, Instrument
from finllm.tools.data.limits import VERSION, Limits
from finllm.tools.pnl.ageing import still
from finllm.tools.pnl.components import position_days
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.kernel import Sensitivities, own_terms, position_gains
from finllm.tools.pnl.limits import BOOK, Held, Known, hold
from finllm.tools.pnl.outcome import Cents, EngineResult, ExpectedShortfall, Frozen, ValueAtRisk, usd
from finllm.tools.pnl.programme import Costs, Floor, Solved, TailFloor, cheapest
from finllm.tools.pnl.risk import BookDays, daily_gains
from finllm.tools.pnl.trades import Asked, Trade, traded

Tail = TypeVar("Tail", ValueAtRisk, ExpectedShortfall)
TargetKind = Literal["total_loss", "var_975_1d", "es_975_1d", "loss_by_factor", "loss_by_sector"]
MONTH_DAYS, MONTH_CALENDAR = 20, 28
"""A calm month: trading days, and calendar days by which an option ages in them."""
RETRIES = 4
"""How often the limit is drawn tighter where the book, revalued with its trades, misses it."""
LARGE = 3
"""Trades of so many times the book's gross value are said to be out of proportion."""


@dataclass(frozen=True)
class Target:
    """What is to be at most `limit`, an amount of the book's currency; `subject`: the factor or sector, or the book."""

    kind: TargetKind
    limit: float
    subject: str = BOOK

    @property
    def needs_shocks(self) -> bool:
        return self.kind in ("total_loss", "loss_by_factor", "loss_by_sector")


class HedgeTrade(Frozen):
    """Lots of an instrument, negative sold. `cost`: of a round trip, positive; `calm_month`: what it earns over 20
    trading days in which no factor moves, so that an option's loss of time is negative; `gain`: in the scenario.
    """

    id: str
    name: str
    lots: int
    notional: Cents
    cost: Cents
    calm_month: Cents
    gain: Cents


class HedgeTarget(Frozen):
    """A limit, and the loss that it is on without the trades and, by full revaluation, with them.

    `unchecked`: why a loss within the limit does not say that it is kept, by the rule of `limits.hold`: too much of the
    book is left out of it. None where it does, or where the limit is not met anyhow. `coverage`: share of the book that
    the loss is of, of a VaR and an ES.
    """

    kind: TargetKind
    subject: str
    limit: Cents
    before: Cents
    after: Cents
    unchecked: str | None = None
    coverage: float | None = None

    @property
    def met(self) -> bool:
        return self.after <= self.limit

    @property
    def kept(self) -> bool:
        return self.met and self.unchecked is None


class HedgeResult(Frozen):
    """The cheapest trades of a list that keep the targets, or where none do (`reached` False) those that come nearest.

    `reached` is False too where the targets are met by what is covered, and that is too little to say that they are
    kept: `open` then. `cost` and `calm_month` are sums over the trades. `alone`: what each instrument would cost by
    itself, where it reaches the targets by itself. `left_out`: instruments that cannot be valued here, and why.
    """

    as_of: dt.date
    currency: str
    horizon: int
    reached: bool
    targets: tuple[HedgeTarget, ...]
    trades: tuple[HedgeTrade, ...]
    cost: Cents
    calm_month: Cents
    alone: tuple[tuple[HedgeTrade, bool], ...]
    left_out: dict[str, str]
    total_before: Cents
    total_after: Cents
    var_975_1d_before: Cents | None
    var_975_1d_after: Cents | None
    es_975_1d_before: Cents | None
    es_975_1d_after: Cents | None
    notes: tuple[str, ...]

    @property
    def open(self) -> bool:
        """Whether every limit is met, and of one of them nobody knows whether it is kept."""
        return not self.reached and all(one.met for one in self.targets)


@dataclass(frozen=True)
class Lots:
    """One lot of each of n usable instruments: what it costs, earns and is worth, and what it adds to each measure."""

    instruments: tuple[Instrument, ...]
    notional: np.ndarray
    cost: np.ndarray
    calm: np.ndarray
    gains: np.ndarray
    terms: np.ndarray
    days: np.ndarray
    sectors: tuple[str, ...]

    def costs(self) -> Costs:
        """What is earned in a calm month pays for nothing: a hedge is no carry trade."""
        most = np.array([float(one.most) for one in self.instruments])
        side = np.array([one.side for one in self.instruments])
        tie = 1e-9 * np.abs(self.notional)
        return Costs(self.cost + np.maximum(0.0, -self.calm) + tie, self.cost + np.maximum(0.0, self.calm) + tie,
                     np.where(side == "sell", 0.0, most), np.where(side == "buy", 0.0, most))  # fmt: skip

    def trade(self, at: int, lots: float) -> HedgeTrade:
        one = self.instruments[at]
        return HedgeTrade(
            id=one.position.id, name=one.position.name or one.position.id, lots=round(lots),
            notional=usd(lots * self.notional[at] + 0.0), cost=usd(abs(lots) * self.cost[at] + 0.0),
            calm_month=usd(lots * self.calm[at] + 0.0), gain=usd(lots * self.gains[at] + 0.0),
        )  # fmt: skip


class Hedger:
    """A book under a scenario, and a list of instruments; asked for the cheapest trades that keep targets."""

    def __init__(self, portfolio: Portfolio, asked: Asked, instruments: Sequence[Instrument]) -> None:
        """Errors: InputError for an instrument with the id of a position, or where none can be valued."""
        held = {one.id for one in portfolio.positions}
        if clash := [one.position.id for one in instruments if one.position.id in held]:
            fix = "give the instrument an id of its own, and the position as its underlying"
            raise InputError(f"{clash[0]!r} is a position of the book and an instrument to hedge with", fix=fix)
        self._portfolio = portfolio
        self._engine = asked.engine(asked.book(portfolio))
        self._asked = replace(asked, at_hand=self._engine)
        self.left_out: dict[str, str] = {}
        self.before = self.after = self._stressed(())
        self.lots = self._of_one(instruments)
        self._base_days = self._days_before()

    def _stressed(self, trades: Sequence[Trade], more: Sequence[Position] = ()) -> EngineResult:
        asked = self._asked
        engine = asked.engine(traded(self._portfolio, trades, asked, more)) if trades else self._engine
        return stressed(engine, asked)

    def _of_one(self, instruments: Sequence[Instrument]) -> Lots:
        asked = self._asked
        names = {one.position.id for one in instruments}
        whole = self._portfolio.model_copy(
            update={"positions": (*self._portfolio.positions, *(one.position for one in instruments))}
        )
        book = asked.book(whole)
        self.left_out = {one.id: one.reason for one in book.exclusions if one.id in names}
        usable = tuple(one for one in instruments if one.position.id not in self.left_out)
        if not usable:
            raise InputError(f"no instrument can be valued: {'; '.join(f'{k}: {v}' for k, v in self.left_out.items())}",
                             fix="give prices or other terms, or another list by --with")  # fmt: skip
        engine = asked.engine(book)
        at = np.array([engine.arrays.positions.index(one.position.id) for one in usable])
        arrays = engine.arrays.rows(at)
        moves, after = np.zeros(len(arrays.factors)), still(engine.arrays)
        if asked.shocked:
            plan = asked.plan(engine)
            after = engine.after(plan.passed)
            found = engine.moves(plan, propagate=asked.propagate)
            moves = np.array([found.get(name, 0.0) for name in arrays.factors])
        self._factors, self._drivers = arrays.factors, engine.view.factors.drivers
        days = engine.days
        daily = np.zeros((0, len(at))) if days is None else _lot_days(book, arrays, days, at)
        held = [book.holdings[row] for row in at]
        notional = np.array([(one.units or 0.0) * (one.spot or 0.0) or one.market_value for one in held])
        basis = np.array([one.market_value if one.asset_class == "option" else size
                          for one, size in zip(held, notional, strict=True)])  # fmt: skip
        cost = np.array([one.cost * holding.fx + one.cost_share * abs(size)
                         for one, holding, size in zip(usable, held, basis, strict=True)])  # fmt: skip
        hit = after.arrays.rows(at)
        return Lots(
            usable, notional, cost, self._calm(usable, notional),
            after.time[at] + position_gains(hit, moves[None, :])[:, 0], own_terms(hit, moves), daily,
            tuple(one.sector for one in held),
        )  # fmt: skip

    def _calm(self, usable: Sequence[Instrument], notional: np.ndarray) -> np.ndarray:
        """What a lot earns while no factor moves for a month: its carry, and of an option what it ages by."""
        asked = self._asked
        carry = np.array([one.carry for one in usable]) * notional * MONTH_DAYS / YEAR
        for at, position in enumerate(one.position for one in usable):
            if position.asset_class == "option" and position.expiry is not None:
                carry[at] += _worth(self._portfolio, _aged(position), asked) - _worth(self._portfolio, position, asked)
        return carry

    def solve(self, targets: Sequence[Target]) -> HedgeResult:
        """The cheapest trades that keep all of the targets, revalued in full; the limits are drawn tighter until the
        book with its trades keeps them. Errors: InputError for a target on what is not in the result."""
        costs, more = self.lots.costs(), [one.position for one in self.lots.instruments]
        before = [_measured(self.before, one) for one in targets]
        limits = [one.limit for one in targets]
        solved, after = Solved(np.zeros(len(more)), 0.0), self.before
        for _ in range(RETRIES):
            solved = cheapest(costs, *self._floors(targets, limits))
            trades = [Trade(one.id, float(lots)) for one, lots in zip(more, solved.lots, strict=True) if lots]
            after = self._stressed(trades, more)
            over = [max(0.0, _measured(after, one) - one.limit) for one in targets]
            if solved.missing > 0.01 or not any(one > 0.01 for one in over):
                break
            limits = [limit - 1.05 * one for limit, one in zip(limits, over, strict=True)]
        self.after = after
        held = tuple(self._target(one, was) for one, was in zip(targets, before, strict=True))
        rows = [self.lots.trade(at, lots) for at, lots in enumerate(solved.lots) if lots]
        return HedgeResult(
            as_of=self._asked.as_of, currency=self._asked.currency, horizon=self._asked.horizon,
            reached=all(one.kept for one in held), targets=held, trades=tuple(rows),
            cost=sum((one.cost for one in rows), usd(0)), calm_month=sum((one.calm_month for one in rows), usd(0)),
            alone=tuple(self._alone(targets)), left_out=self.left_out,
            total_before=self.before.total, total_after=after.total,
            var_975_1d_before=_loss(self.before.var_975_1d), var_975_1d_after=_loss(after.var_975_1d),
            es_975_1d_before=_loss(self.before.es_975_1d), es_975_1d_after=_loss(after.es_975_1d),
            notes=(*self._notes(targets), *self._out_of_proportion(rows)),
        )  # fmt: skip

    def held(self, limits: Limits) -> Held:
        """How the book with its trades stands to limits. The coverage is that of the book without them: what is left
        out of it is no better known by what is added."""
        was, now = self.before, self.after
        assert was.coverage is not None
        known = Known(
            was.coverage, now.exclusions, self._drivers, _no_better(now.var_975_1d, was.var_975_1d),
            _no_better(now.es_975_1d, was.es_975_1d),
        )  # fmt: skip
        return hold(now, known, limits)

    def _target(self, one: Target, was: float) -> HedgeTarget:
        limit: object = one.limit if one.subject == BOOK else {one.subject: one.limit}
        found = self.held(Limits.model_validate({"version": VERSION, one.kind: limit})) if one.limit > 0 else Held()
        tail = self.before.var_975_1d if one.kind == "var_975_1d" else self.before.es_975_1d
        return HedgeTarget(
            kind=one.kind, subject=one.subject, limit=usd(one.limit), before=usd(was),
            after=usd(_measured(self.after, one)), unchecked=found.unchecked[0].why if found.unchecked else None,
            coverage=tail.coverage if tail and one.kind in ("var_975_1d", "es_975_1d") else None,
        )  # fmt: skip

    def _out_of_proportion(self, rows: Sequence[HedgeTrade]) -> list[str]:
        notional = float(sum(abs(one.notional) for one in rows))
        gross = float(self.before.gross_value or self.before.book_value)
        if notional <= LARGE * gross:
            return []
        return [f"the trades come to {notional / gross:,.0f} times the book: a limit this tight is not for hedging; "
                "raise it, or sell what breaches it"]  # fmt: skip

    def _alone(self, targets: Sequence[Target]) -> list[tuple[HedgeTrade, bool]]:
        """The fewest lots of each instrument by itself, and whether they reach the targets."""
        costs, limits = self.lots.costs(), [one.limit for one in targets]
        found: list[tuple[HedgeTrade, bool]] = []
        for at in range(len(self.lots.instruments)):
            mine = np.arange(len(costs.bought)) == at
            only = Costs(costs.bought, costs.sold, np.where(mine, costs.most_bought, 0.0),
                         np.where(mine, costs.most_sold, 0.0))  # fmt: skip
            solved = cheapest(only, *self._floors(targets, limits))
            found.append((self.lots.trade(at, float(solved.lots[at])), solved.missing <= 0.01))
        return found

    def _floors(self, targets: Sequence[Target], limits: Sequence[float]) -> tuple[list[Floor], list[TailFloor]]:
        floors: list[Floor] = []
        tails: list[TailFloor] = []
        for one, limit in zip(targets, limits, strict=True):
            if one.kind in ("var_975_1d", "es_975_1d"):
                if self._base_days is None:
                    raise InputError(
                        "there is no history to take a VaR from", fix="give daily prices, or another limit"
                    )
                tails.append(TailFloor(self._base_days, self.lots.days, limit, one.kind == "es_975_1d"))
            else:
                floors.append(Floor(-_measured(self.before, one), self._adds(one), limit))
        return floors, tails

    def _adds(self, one: Target) -> np.ndarray:
        """What a lot of each instrument adds to the P&L that a target is on."""
        if one.kind == "total_loss":
            return self.lots.gains
        if one.kind == "loss_by_sector":
            return np.where([sector == one.subject for sector in self.lots.sectors], self.lots.gains, 0.0)
        if one.subject not in self._factors:
            return np.zeros(len(self.lots.gains))
        return self.lots.terms[:, self._factors.index(one.subject)]

    def _days_before(self) -> np.ndarray | None:
        """One-day P&L of the book without trades, (d,)."""
        asked, engine = self._asked, self._engine
        still = np.zeros(len(engine.arrays.factors))
        found = daily_gains(engine.book, engine.arrays, still, engine.view.factors, asked.market, asked.as_of,
                            found=engine.days)  # fmt: skip
        return None if found is None else found.before

    def _notes(self, targets: Sequence[Target]) -> list[str]:
        notes = [f"{one.position.id}: {one.note}" for one in self.lots.instruments if one.note]
        notes += [f"{id} is left out: {why}" for id, why in self.left_out.items()]
        if any(one.kind == "var_975_1d" for one in targets):
            notes.append("a VaR leaves days out, so the answer is a local one: cheaper trades may exist")
        return notes


def stressed(engine: Engine, asked: Asked) -> EngineResult:
    """The book under the scenario; where there is none, as it is, for VaR and ES alone."""
    plan = asked.plan(engine)
    return engine.stress(plan, propagate=asked.propagate if plan.shocks else False, stressed=asked.stressed)


def _lot_days(book: Book, arrays: Sensitivities, found: BookDays, at: np.ndarray) -> np.ndarray:
    """One-day P&L (d, n) of the rows `at` (n,) on the days of the historical simulation."""
    own = {place: found.own[row] for place, row in enumerate(at.tolist()) if row in found.own}
    few = book.model_copy(update={"holdings": tuple(book.holdings[row] for row in at)})
    mine = BookDays(found.days, found.daily, own, found.missing[at])
    return position_days(few, arrays, mine, np.arange(len(found.days))).gains.T


def _measured(result: EngineResult, target: Target) -> float:
    """The loss that a target is on. Errors: InputError for one that the result does not have."""
    match target.kind:
        case "total_loss":
            return -float(result.total)
        case "var_975_1d" | "es_975_1d":
            found = result.var_975_1d if target.kind == "var_975_1d" else result.es_975_1d
            if found is None:
                raise InputError("there is no history to take a VaR from", fix="give daily prices, or another limit")
            return float(found.loss)
        case _:
            cut = result.by_factor if target.kind == "loss_by_factor" else result.by_sector
            if target.subject not in cut:
                raise InputError(f"{target.subject!r} is in no part of the result", fix=f"use one of {', '.join(cut)}")
            return -float(cut[target.subject])


def _worth(portfolio: Portfolio, position: Position, asked: Asked) -> float:
    """What one position is worth; nothing where its time has run out."""
    if position.expiry is not None and position.expiry <= asked.as_of:
        return 0.0
    return asked.book(portfolio.model_copy(update={"positions": (position,), "refused": ()})).value


def _aged(position: Position) -> Position:
    assert position.expiry is not None
    return position.model_copy(update={"expiry": position.expiry - dt.timedelta(days=MONTH_CALENDAR)})


def _loss(found: ValueAtRisk | ExpectedShortfall | None) -> Decimal | None:
    return None if found is None else found.loss


def _no_better(now: Tail | None, was: Tail | None) -> Tail | None:
    """A measure of the book with trades, with the coverage that it has without them where that is less."""
    if now is None or was is None or was.coverage >= now.coverage:
        return now
    return now.model_copy(update={"coverage": was.coverage, "missing": was.missing})
