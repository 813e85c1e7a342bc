"""P&L explain: the difference of two versions of a book as time, factors, own prices, trades and what is left."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import numpy as np

from finllm.errors import InputError
from finllm.tools.data.books.book import Book, Exclusion, Holding, first_exclusions
from finllm.tools.data.books.contracts import Unvalued, bond_flows, years_to
from finllm.tools.data.books.position import Portfolio
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.currencies import factor_currency
from finllm.tools.data.market import MarketStore
from finllm.tools.instruments.options import price
from finllm.tools.pnl.attribution import CENT, attribute
from finllm.tools.pnl.coverage import Coverage, Thresholds, coverage_of
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.kernel import own_terms
from finllm.tools.pnl.outcome import TIME, Cents, Frozen, usd
from finllm.tools.pnl.shocks import replayed

PartKind = Literal["time", "factor", "own", "trades", "expired", "by value", "one day", "shock", "market", "residual"]
WORDS: dict[PartKind, str] = {
    "time": "carry and time, at the prices of the first day",
    "own": "own prices, beyond the factors",
    "trades": "positions that came, went or changed in size",
    "expired": "contracts that ran out: what they were settled at is in neither book",
    "one day": "positions that have a value on one of the days only (see the notes)",
    "by value": "positions held by their value: a trade or a price, the files do not tell",
    "market": "prices, loads, data and contracts of another day, under the old shocks",
    "residual": "what is left",
}


class ExplainedPart(Frozen):
    """One part of the difference; `name`: the factor, or what the kind is."""

    kind: PartKind
    name: str
    amount: Cents


class Explained(Frozen):
    """The difference `after` − `before` as parts that sum to it exactly, in `currency`.

    `what`: the value of the book, or its P&L under the shocks of two runs. `by_position`: the difference by position,
    exact too, where positions are told. `coverage`: how much of the book the value is of on either day, of books; what
    is left out is in `exclusions_before` and `exclusions_after`.
    """

    what: Literal["value", "stressed P&L"]
    currency: str
    start: dt.date
    end: dt.date
    before: Cents
    after: Cents
    parts: tuple[ExplainedPart, ...]
    by_position: dict[str, Cents]
    notes: tuple[str, ...]
    coverage: tuple[Coverage, Coverage] | None = None
    exclusions_before: tuple[Exclusion, ...] = ()
    exclusions_after: tuple[Exclusion, ...] = ()

    @property
    def difference(self) -> Decimal:
        return self.after - self.before


@dataclass(frozen=True)
class Stressed:
    """One run's book under its shocks: the moves of all factors that it moved, and the P&L that it reported."""

    portfolio: Portfolio
    market: MarketStore
    as_of: dt.date
    factors: FactorSet
    moves: Mapping[str, float]
    total: float
    currency: str
    passed: int = 0
    """Trading days by which its contracts aged."""


def explain_books(
    old: Portfolio, new: Portfolio, market: MarketStore, start: dt.date, end: dt.date, currency: str = "USD",
    factors: FactorSet | None = None, thresholds: Thresholds | None = None,
) -> Explained:  # fmt: skip
    """Why the book `new` at `end` is worth another amount than `old` at `start`.

    What was held at `start` is valued on both days: the difference is time (options age, bonds accrue and roll), the
    factors' moves by the loads of `start` (its currencies' among them), and what is beyond. The rest is trades at the
    prices of `end`. What is held on both days and has a value on one of them only is a part of its own; what is left
    out is named. Errors: InputError for days that do not run forward, or a book that has nothing to value.
    """
    if end < start:
        raise InputError(f"{end} comes before {start}", fix="give the older day with --from, the newer with --to")
    engine = Engine(value_portfolio(old, market, start, currency), market, start, factors)
    kept, after = (value_portfolio(one, market, end, currency) for one in (old, new))
    before = engine.book
    was, still, now = (_values(one) for one in (before, kept, after))
    quoted = _given(old, new, before, kept, after)
    moves, unknown = _moves(engine, market, end) if end > start else ({}, {})
    vector = np.array([moves.get(name, 0.0) for name in engine.arrays.factors])
    terms = own_terms(engine.arrays, vector)
    parts: dict[tuple[PartKind, str], float] = {}
    by_position: dict[str, float] = {}
    names = engine.arrays.positions
    lost, found = ({one.id for one in book.exclusions} for book in (after, before))
    for row, holding in enumerate(before.holdings):
        id = names[row]
        end_value = quoted.get(id, still.get(id, was[id]))
        gone = id not in still and id not in quoted
        change = 0.0 if gone else end_value - was[id]
        time = 0.0 if gone else _aged(holding, start, end)
        by_position[id] = now.get(id, 0.0) - was[id]
        trade = by_position[id] - change
        kind = _kind(holding, end, held=id in now, lost=id in lost, traded=bool(trade))
        _add(parts, (kind, kind), trade)
        if abs(change) < 0.005:
            continue
        _add(parts, ("time", "time"), time)
        if math.isclose(change, time, abs_tol=0.005):
            continue
        given = _by_value(holding) and id not in quoted  # its value stands still, so its currency alone moved it
        moved = [at for at in np.flatnonzero(terms[row])
                 if not given or factor_currency(engine.arrays.factors[at])]  # fmt: skip
        for at in moved:
            _add(parts, ("factor", engine.arrays.factors[at]), float(terms[row, at]))
        _add(parts, ("own", "own"), change - time - float(terms[row, moved].sum()))
    for id in (id for id in now if id not in was):
        by_position[id] = now[id]
        kind = "one day" if id in found else "trades"
        _add(parts, (kind, kind), now[id])
    notes = [f"{name} has no moves between the days: {why}" for name, why in unknown.items()
             if name in engine.arrays.loaded()]  # fmt: skip
    told = _explained("value", currency, start, end, (before.value, after.value), parts, by_position,
                      [*_left_out(before, after), *notes])  # fmt: skip
    known, limits = engine.view.factors, thresholds or Thresholds()
    return told.model_copy(update={
        "coverage": tuple(coverage_of(book, market, known, limits) for book in (before, after)),
        "exclusions_before": before.exclusions, "exclusions_after": after.exclusions,
    })  # fmt: skip


def _left_out(before: Book, after: Book) -> list[str]:
    """What has no value on one of the days or on both, and why; the first of each, and how many more."""
    was, now = ({one.id: one.reason for one in book.exclusions} for book in (before, after))
    notes: list[str] = []
    for day, book, other in ((before.as_of, before, now), (after.as_of, after, was)):
        first = first_exclusions(book.exclusions)
        for one in first:
            both = one.id in other
            if both and book is after:
                continue
            notes.append(f"left out {'on both days' if both else f'on {day}'}: {one.id}: {one.reason}")
        if more := len(book.exclusions) - len(first):
            notes.append(f"and {more} more are left out on {day}")
    return notes


def explain_runs(old: Stressed, new: Stressed) -> Explained:
    """Why two runs report another P&L: the book (at the old run's day, under its shocks), the day, each shock.

    A shock's part is what its factor explains alone under the new moves less under the old, so that the parts do not
    hang on an order. What is left: own returns of a replay, and what another version of the engine computed.
    """
    if old.currency != new.currency:
        raise InputError(f"one run is in {old.currency}, the other in {new.currency}",
                         fix="run one of them again with --currency")  # fmt: skip
    first, swapped = _stress(old, old.portfolio, old.moves), _stress(old, new.portfolio, old.moves)
    moved, last = _stress(new, new.portfolio, old.moves), _stress(new, new.portfolio, new.moves)
    parts: dict[tuple[PartKind, str], float] = {}
    _add(parts, ("trades", "trades"), sum(swapped.values()) - sum(first.values()))
    time = moved.get(TIME, 0.0) - swapped.get(TIME, 0.0)
    _add(parts, ("time", "time"), time)
    _add(parts, ("market", "market"), sum(moved.values()) - sum(swapped.values()) - time)
    for name in dict.fromkeys((*moved, *last)):
        _add(parts, ("shock", name), last.get(name, 0.0) - moved.get(name, 0.0))
    return _explained("stressed P&L", new.currency, old.as_of, new.as_of, (old.total, new.total), parts, {}, [])


def _stress(run: Stressed, portfolio: Portfolio, moves: Mapping[str, float]) -> dict[str, float]:
    """P&L by factor of a portfolio at a run's day under moves, in the run's currency."""
    book = value_portfolio(portfolio, run.market, run.as_of, run.currency)
    engine = Engine(book, run.market, run.as_of, run.factors, age=run.passed > 0)
    after = engine.after(run.passed)
    vector = np.array([moves.get(name, 0.0) for name in engine.arrays.factors])
    cuts = attribute(after.arrays, book.holdings, vector, tuple(moves), time=after.time if run.passed else None)
    return {name: float(amount) for name, amount in cuts.by_factor.items()}


def _explained(
    what: Literal["value", "stressed P&L"], currency: str, start: dt.date, end: dt.date, ends: tuple[float, float],
    parts: Mapping[tuple[PartKind, str], float], by_position: Mapping[str, float], notes: Sequence[str],
) -> Explained:  # fmt: skip
    """The parts in cents, with what is left so that they sum to the difference exactly."""
    before, after = usd(ends[0]), usd(ends[1])
    rows = [ExplainedPart(kind=kind, name=WORDS.get(kind, name), amount=usd(amount + 0.0))
            for (kind, name), amount in parts.items() if abs(amount) >= 0.005]  # fmt: skip
    left = after - before - sum((one.amount for one in rows), Decimal(0))
    if rows and left and abs(left) <= CENT * (len(rows) + 2):  # what rounding leaves is of the largest part
        at = max(range(len(rows)), key=lambda row: abs(rows[row].amount))
        rows[at], left = rows[at].model_copy(update={"amount": rows[at].amount + left}), Decimal(0)
    order: list[PartKind] = [
        "time",
        "factor",
        "own",
        "market",
        "shock",
        "by value",
        "one day",
        "expired",
        "trades",
        "residual",
    ]
    rows.sort(key=lambda one: (order.index(one.kind), -abs(one.amount)))
    rows.append(ExplainedPart(kind="residual", name=WORDS["residual"], amount=left))
    positions = {id: usd(amount + 0.0) for id, amount in by_position.items()}
    return Explained(what=what, currency=currency, start=start, end=end, before=before, after=after, parts=tuple(rows),
                     by_position=positions, notes=tuple(notes))  # fmt: skip


def _add(parts: dict[tuple[PartKind, str], float], key: tuple[PartKind, str], amount: float) -> None:
    parts[key] = parts.get(key, 0.0) + amount


def _values(book: Book) -> dict[str, float]:
    return {one.id: one.market_value for one in book.holdings}


def _kind(holding: Holding, end: dt.date, *, held: bool, lost: bool, traded: bool) -> PartKind:
    """What a change of size is called: `held` at the end, or there without a value (`lost`)."""
    if held:
        return "by value" if traded and _by_value(holding) else "trades"
    return "expired" if _ran_out(holding, end) else "one day" if lost else "trades"


def _ran_out(holding: Holding, end: dt.date) -> bool:
    """Whether an option or future expired, or a bond matured, by the end."""
    last = holding.expiry or holding.maturity
    return last is not None and last <= end


def _by_value(holding: Holding) -> bool:
    return holding.quantity is None


def _given(old: Portfolio, new: Portfolio, before: Book, kept: Book, after: Book) -> dict[str, float]:
    """What the old size of a position is worth at the end by the new file, where that gives its price or value, and the
    old file's stands still: the same quantity in both, so that the change is a price."""
    was = {one.id: one for one in old.positions}
    held, worth = {one.id: one for one in before.holdings}, {one.id: one for one in kept.holdings}
    found: dict[str, float] = {}
    for position in new.positions:
        first = was.get(position.id)
        now = next((one for one in after.holdings if one.id == position.id), None)
        if first is None or now is None or position.id not in held or not now.quantity:
            continue
        if held[position.id].quantity and (position.market_value is not None or position.price is not None):
            still = worth.get(position.id)
            if still is None or still.price_date is None:
                found[position.id] = now.market_value / now.quantity * (held[position.id].quantity or 0.0)
    return found


def _moves(engine: Engine, market: MarketStore, end: dt.date) -> tuple[dict[str, float], dict[str, str]]:
    """What every factor did between the days, and which have no data for that."""
    from finllm.tools.pnl.sizes import FactorView

    view = FactorView(engine.view.factors, market, end)
    found, missing = replayed(view, (engine.view.as_of, end))
    return {one.factor: one.move for one in found}, missing


def _aged(one: Holding, start: dt.date, end: dt.date) -> float:
    """What a contract gains from `start` to `end` at the prices of `start`: an option's time, a bond's yield."""
    if one.units is None or end <= start:
        return 0.0
    if one.asset_class == "option" and one.expiry and one.strike and one.spot and one.volatility:
        call, terms = one.option_type == "call", {"is_american": one.exercise == "American"}
        worth = [
            price(call, one.spot, one.strike, max(years_to(one.expiry, day), 1e-9), one.volatility, one.rate,
                  one.yield_ or 0.0, **terms) for day in (start, end)
        ]  # fmt: skip
        return one.units * one.fx * float(worth[1] - worth[0])
    if one.asset_class == "bond" and one.maturity and one.yield_ is not None and one.coupon is not None:
        if one.maturity <= end:
            return 0.0
        try:
            worth = [bond_flows(one, day).dirty(one.yield_) for day in (start, end)]
        except Unvalued:
            return 0.0
        return one.units * one.fx * (worth[1] - worth[0])
    return 0.0
