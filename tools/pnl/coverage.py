"""Coverage: how much of a book a result is about, what stands in for the rest, and what is missing."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, computed_field

from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.books.underlying import MIN_HISTORY
from finllm.tools.data.currencies import legs_of
from finllm.tools.data.market import INDEX, MarketStore
from finllm.tools.pnl.factorset import FactorSet

NAMED = 3
"""Positions that are named before the rest is counted."""
_BY_BETA = ("equity", "index", "fund")
_PROXIED = {"commodity": "OIL_WTI", "fx": "USD_BROAD"}
"""Classes whose positions move with one factor for all of them, unless they name their own or say how much of it."""
_HOLIDAY = 4
"""Calendar days without a close up to which a day may be a weekend or a holiday and not past the data."""


class Thresholds(BaseModel):
    """From when on a result counts as being about the whole book.

    `least`: share of the book that must be stressed. `history_days`: days shared with the index behind a beta of its
    own. `age_days`: calendar days that a price, a valuation or the end of a history may lie back. `stand_ins`: the most
    that stand-ins may count for. `block`: a result under `least` is blocked by compliance, not only flagged.
    """

    model_config = ConfigDict(frozen=True)

    least: float = 0.95
    history_days: int = MIN_HISTORY
    age_days: int = 30
    stand_ins: float = 0.10
    block: bool = False


class Gap(BaseModel):
    """A position that is not covered: why, and its share of the book, None where its value is not known."""

    model_config = ConfigDict(frozen=True)

    id: str
    reason: str
    share: float | None


class Coverage(BaseModel):
    """Shares of the gross value of all positions whose value is known; the first three add up to 1.

    `covered`: stressed by data or terms of its own that are fresh. `stand_in`: stressed by somebody else's (a sector's
    or an index's) or by its own that are short or old. `missing`: not stressed. `counted`: `covered` and what stand-ins
    may count for. `unknown`: positions that no value is known of; with one of them a result is never `complete`.
    `first_…` name the largest. `data_end`: the last day of the data used; `day` says where `as_of` is another.
    """

    model_config = ConfigDict(frozen=True)

    covered: float
    stand_in: float
    missing: float
    counted: float
    complete: bool
    positions: int
    stand_ins: int
    left_out: int
    unknown: int
    first_stand_ins: tuple[Gap, ...] = ()
    first_missing: tuple[Gap, ...] = ()
    first_unknown: tuple[Gap, ...] = ()
    thresholds: Thresholds
    data_end: dt.date | None = None
    day: str | None = None

    @computed_field
    @property
    def headline(self) -> str:
        """What a reader must know before any figure: what the result is about, and of what day."""
        return "; ".join([self.gap or self.words, *([self.day] if self.day else [])])

    @property
    def words(self) -> str:
        """The shares in words, rounded so that nothing looks better than it is."""
        said = [f"{down(self.covered)} % of {'what is known' if self.unknown else 'the book'} is covered"]
        if self.stand_in:
            said.append(f"{up(self.stand_in)} % is by stand-ins ({_named(self.first_stand_ins, self.stand_ins)})")
        return ", ".join([*said, *self._absent()])

    @property
    def gap(self) -> str | None:
        """What keeps the result from being about the whole book; None where it is."""
        if self.complete:
            return None
        said = self._absent()
        if self.stand_in > self.thresholds.stand_ins:
            said.append(f"{up(self.stand_in)} % is only by stand-ins ({_named(self.first_stand_ins, self.stand_ins)})")
        of = " of what is known" if self.unknown else ""
        words = ", ".join([*said, f"{down(self.covered)} %{of} is covered"])
        return words[0].upper() + words[1:]

    def _absent(self) -> list[str]:
        said: list[str] = []
        if self.missing:
            known = self.left_out - self.unknown
            said.append(f"{up(self.missing)} % of the book is not stressed ({_named(self.first_missing, known)})")
        if self.unknown:
            said.append(f"positions of unknown value: {self.unknown} ({_named(self.first_unknown, self.unknown)})")
        return said


class _Weighed(NamedTuple):
    """A position and what it counts for; `share` only once all are known."""

    id: str
    reason: str
    weight: float | None


def coverage_of(
    book: Book, market: MarketStore, factors: FactorSet, thresholds: Thresholds | None = None, *, future: bool = False
) -> Coverage:
    """How much of the book is stressed by data of its own. `future`: `as_of` has not come yet.

    A position counts by its `gross`. Where all that is known is worth nothing, each position counts the same.
    """
    limits = thresholds or Thresholds()
    held = [
        _Weighed(one.id, why_not_its_own(one, factors, book.as_of, limits), one.counts_for) for one in book.holdings
    ]
    dropped = [_Weighed(one.id, one.reason, one.gross) for one in book.exclusions]
    whole = math.fsum(one.weight or 0.0 for one in (*held, *dropped))
    if not whole:
        held, dropped = _alike(held), _alike(dropped)
        whole = math.fsum(one.weight or 0.0 for one in (*held, *dropped))
    stand_ins = [one for one in held if one.reason]
    unknown = [one for one in dropped if one.weight is None]
    known = [one for one in dropped if one.weight is not None]
    missing = math.fsum(one.weight or 0.0 for one in known) / whole
    stand_in = math.fsum(one.weight or 0.0 for one in stand_ins) / whole
    covered = max(0.0, 1.0 - missing - stand_in)
    counted = covered + min(stand_in, limits.stand_ins)
    end = data_end(book, market)
    return Coverage(
        covered=covered, stand_in=stand_in, missing=missing, counted=counted,
        complete=counted >= limits.least - 1e-12 and not unknown, positions=len(held) + len(dropped),
        stand_ins=len(stand_ins), left_out=len(dropped), unknown=len(unknown),
        first_stand_ins=_first(stand_ins, whole), first_missing=_first(known, whole),
        first_unknown=_first(unknown, whole), thresholds=limits, data_end=end,
        day=day_words(book.as_of, end, future=future),
    )  # fmt: skip


def why_not_its_own(holding: Holding, factors: FactorSet, as_of: dt.date, limits: Thresholds) -> str:
    """Why a holding's stress rests on a stand-in; empty where it rests on fresh data, terms or betas of its own."""
    if holding.stand_in:
        return holding.stand_in
    if holding.valued_on and (age := (as_of - holding.valued_on).days) > limits.age_days:
        return f"its last price, of {holding.valued_on}, is {age} days old"
    if holding.asset_class in _BY_BETA and holding.beta is None and not holding.look_through:
        if holding.history_end and (age := (as_of - holding.history_end).days) > limits.age_days:
            return f"its beta is of a history that ended on {holding.history_end}, {age} days before"
        if holding.history_days is not None and holding.history_days < limits.history_days:
            return f"its beta is of {holding.history_days} days, fewer than {limits.history_days}"
    proxy = _PROXIED.get(holding.asset_class)
    named = holding.exposure or (holding.id in factors and factors[holding.id].kind == "named")
    if not proxy or named or holding.delta is not None or (proxy == "USD_BROAD" and legs_of(holding.id, "USD")):
        return ""
    return f"moved as {proxy}, with no delta of its own"


def data_end(book: Book, market: MarketStore) -> dt.date | None:
    """The last day on which anything that the book was valued or regressed by was observed; never after `as_of`."""
    days = [day for one in book.holdings for day in (one.price_date, one.history_end) if day]
    if market.visible(INDEX, book.as_of):
        days.append(market.read(INDEX, book.as_of).last)
    return max(days, default=None)


def day_words(as_of: dt.date, end: dt.date | None, *, future: bool) -> str | None:
    """What `as_of` is where it is no day of the data: in the future, without a close, or past their end."""
    if end is None or (age := (as_of - end).days) <= 0:
        return f"as of {as_of}, which is in the future" if future else None
    if future:
        return f"as of {as_of}, which is in the future: the data end on {end}"
    if age <= _HOLIDAY:
        day = f"{as_of}, a {as_of:%A}" if as_of.weekday() > 4 else str(as_of)
        return f"no close on {day}: the last is of {end}"
    return f"as of {as_of}, past the data: they end on {end}, {age} days before"


def down(share: float) -> int:
    """A share in whole per cents, never more than it is."""
    return math.floor(share * 100 + 1e-9)


def up(share: float) -> int:
    """A share in whole per cents, never less than it is."""
    return math.ceil(share * 100 - 1e-9)


def named(ids: Sequence[str], count: int) -> str:
    """The first names, and how many more there are."""
    first = ", ".join(ids[:NAMED])
    return first if count <= NAMED else f"{first} and {count - NAMED} more"


def of_the_book(what: str, share: float) -> str:
    """A figure's name, with the share of the book that it is of where that is not the whole."""
    return what if share >= 1 - 1e-9 else f"{what}, of {down(share)} % of the book"


def part_of_the_book(coverage: Coverage | None, *, net: bool = True) -> str:
    """What a result's P&L is a share of: the book, or as much of it as is stressed.

    `net`: whether its net value is its gross value too. If not, as where something is sold short, the gross is named.
    """
    whole = coverage is None or not coverage.left_out
    if net:
        return "of the book" if whole else "of what is stressed"
    return "of the book's gross value" if whole else "of the gross value of what is stressed"


def _named(gaps: Sequence[Gap], count: int) -> str:
    return named([one.id for one in gaps], count)


def _alike(rows: Sequence[_Weighed]) -> list[_Weighed]:
    return [_Weighed(one.id, one.reason, None if one.weight is None else 1.0) for one in rows]


def _first(rows: Sequence[_Weighed], whole: float) -> tuple[Gap, ...]:
    ordered = sorted(rows, key=lambda one: -(one.weight or 0.0))[:NAMED]
    return tuple(Gap(id=one.id, reason=one.reason, share=None if one.weight is None else one.weight / whole)
                 for one in ordered)  # fmt: skip
