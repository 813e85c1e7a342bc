"""Ageing: a book some trading days on, its contracts revalued at that day's terms, and what the time alone gains."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.books.contracts import bond_flows
from finllm.tools.instruments.bonds import Flows
from finllm.tools.pnl.contracts import CHANNELS, Contracts, FlowBonds, Forwards, Kind, Options
from finllm.tools.pnl.kernel import Sensitivities

NAMED = 3
"""Contracts that a note names before it counts the others."""
PAID = Flows(np.zeros(1), np.zeros(1), 0.0, 1)
"""What a bond still pays that was repaid: nothing."""


@dataclass(frozen=True)
class Aged:
    """A book's arrays once time has passed, and what each position gains by that alone, (P,), at the rates of today.

    P&L is `time` and what `arrays` gain. `until`: the day reached; None where no time passes.
    """

    arrays: Sensitivities
    time: np.ndarray
    until: dt.date | None = None
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """What the time alone gains."""
        return float(self.time.sum())


def still(arrays: Sensitivities) -> Aged:
    """The book as it is: no time passes."""
    return Aged(arrays, np.zeros(len(arrays.positions)))


def day_after(as_of: dt.date, days: int) -> dt.date:
    """The day so many trading days after `as_of`, counting Monday to Friday."""
    day = np.busday_offset(np.datetime64(as_of, "D"), days, roll="backward")
    return dt.date.fromisoformat(str(day))


def days_to(as_of: dt.date, until: dt.date) -> int:
    """The trading days after which `day_after` reaches `until`."""
    return int(np.busday_count(np.busday_offset(np.datetime64(as_of, "D"), 0, roll="backward"), until))


def aged(arrays: Sensitivities, book: Book, as_of: dt.date, days: int) -> Aged:
    """The book `days` trading days after `as_of`.

    Prices, volatilities, yields and rates stand where they were: shocks move them from there. An option or forward has
    so much less time; one that expires pays out what it is worth at the shocked price of what it is on. A bond rolls
    down to its shorter flows at its yield; what it pays until then is counted, and not reinvested. Futures, and rows by
    duration or greeks, have no terms that time changes.
    """
    until = day_after(as_of, days)
    contracts = arrays.contracts
    if contracts is None:
        return Aged(arrays, np.zeros(len(arrays.positions)), until, (f"time passes to {until}: {NO_TERMS}",))
    time, kinds, first = np.zeros(len(arrays.positions)), list[Kind](), 0
    for kind in contracts.kinds:
        rows = contracts.rows[first : first + len(kind)]
        later, gained = _later(kind, [book.holdings[row] for row in rows], as_of, until)
        kinds.append(later)
        time[rows] = gained
        first += len(kind)
    fx = arrays.fx and replace(arrays.fx, exposed=arrays.fx.exposed + time)
    moved = replace(arrays, value=arrays.value + time, fx=fx,
                    contracts=Contracts(contracts.rows, contracts.loads, tuple(kinds)))  # fmt: skip
    return Aged(moved, time, until, tuple(_notes(book.holdings, until, days)))


def _later(kind: Kind, holdings: Sequence[Holding], as_of: dt.date, until: dt.date) -> tuple[Kind, np.ndarray]:
    """Contracts of one kind at `until`, and what each gains by the time alone."""
    years = (until - as_of).days / 365.0
    if isinstance(kind, Options):
        left = np.maximum(kind.years - years, 0.0)
        found = replace(kind, years=left, american=kind.american & (left > 0), source=None)
        gains = kind.units * (_now(found) - _now(kind))
        gains = np.where(kind.value > 0, np.maximum(gains, -kind.value),
                         np.where(kind.value < 0, np.minimum(gains, -kind.value), gains))  # fmt: skip
        return replace(found, value=kind.value + gains), gains
    if isinstance(kind, Forwards):
        later = replace(kind, years=np.maximum(kind.years - years, 0.0))
        return later, kind.units * (later.worth() - kind.worth())
    if isinstance(kind, FlowBonds):
        return _rolled(kind, holdings, as_of, until)
    return kind, np.zeros(len(kind))


def _now(options: Options) -> np.ndarray:
    """Prices of one unit where nothing moves, (n,)."""
    return options.price(np.zeros((CHANNELS, len(options), 1)))[:, 0]


def _rolled(kind: FlowBonds, holdings: Sequence[Holding], as_of: dt.date, until: dt.date) -> tuple[Kind, np.ndarray]:
    """Bonds at `until`, at their yields: what they are worth then and have paid, less what they are worth now."""
    units, gains, left = kind.units.copy(), np.zeros(len(kind)), list[Flows]()
    for at, one in enumerate(holdings):
        now, yield_ = bond_flows(one, as_of), float(kind.yield_[at])
        assert one.maturity is not None
        if one.maturity <= until:
            gains[at] = units[at] * (float(now.amounts.sum()) - now.dirty(yield_))
            units[at] = 0.0
            left.append(PAID)
            continue
        later = bond_flows(one, until)
        paid = float(now.amounts[: len(now.amounts) - len(later.amounts)].sum())
        gains[at] = units[at] * (later.dirty(yield_) + paid - now.dirty(yield_))
        left.append(later)
    return FlowBonds.of(units, kind.yield_, left), gains


NO_TERMS = "nothing in the book has terms that time changes"


def _notes(holdings: Sequence[Holding], until: dt.date, days: int) -> list[str]:
    ageing = [one for one in holdings if _terms_of(one) is not None]
    if not ageing:
        return [f"time passes to {until}: {NO_TERMS}"]
    notes = [
        f"contracts: time passes to {until}, {days} trading days; options, forwards and bonds are revalued there at"
        " today's prices, volatilities, yields and rates with the shocks, and coupons paid until then are not"
        " reinvested; an option's volatility moves by the VIX's points over 100, times its vix_ratio if it has one"
    ]
    gone = [one for one in ageing if (last := _terms_of(one)) is not None and last <= until]
    if expired := [one.id for one in gone if one.asset_class != "bond"]:
        notes.append(f"expire by {until}, and pay out what they are worth at the shocked price: {_named(expired)}")
    if repaid := [one.id for one in gone if one.asset_class == "bond"]:
        notes.append(f"repaid by {until}: {_named(repaid)}")
    stand = [one.id for one in holdings if one.units is None and one.asset_class in ("bond", "option")]
    if stand:
        notes.append(f"do not age, as they have no terms: {_named(stand)}")
    return notes


def _terms_of(one: Holding) -> dt.date | None:
    """The last day of a contract that time changes; None of any other holding."""
    if one.units is None or one.asset_class == "future":
        return None
    return one.maturity if one.asset_class == "bond" else one.expiry


def _named(ids: Sequence[str]) -> str:
    more = len(ids) - NAMED
    return ", ".join(ids[:NAMED]) + (f" and {more} more" if more > 0 else "")
