"""What a portfolio's file was understood to hold: its columns, every row with value and status, and the share read."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Mapping
from typing import Literal

from finllm.tools.data.books.amounts import DEFAULT_BASE
from finllm.tools.data.books.contracts import ContractValuer, Unvalued, is_contract
from finllm.tools.data.books.load import ReadBook
from finllm.tools.data.books.look_through import beyond_the_whole, look_through
from finllm.tools.data.books.position import Frozen, Portfolio, Position, ReadColumn
from finllm.tools.data.books.valuation import THROUGH, file_value, last_price, worth_of
from finllm.tools.data.fx import Rate, Rates
from finllm.tools.data.market import MarketStore

Status = Literal["read", "doubtful", "unvalued", "refused"]


class CheckedRow(Frozen):
    """A row of the file. `market_value` in `currency`, `value_base` in the book's base currency; None where unknown.

    `status`: `read`; `doubtful`, where its figures do not quite agree; `unvalued`, where neither the file nor a price
    series says what it is worth; `refused`, and then no part of the book, also for a `look_through` that
    cannot be used. `reason` says why, and how it was valued.
    """

    id: str
    name: str | None
    asset_class: str | None
    currency: str | None
    quantity: float | None
    market_value: float | None
    value_base: float | None
    status: Status
    reason: str
    row: int


class ReadShare(Frozen):
    """How much of the file is in the book: rows by status, and the share of the gross value that is known."""

    share: float | None
    rows: int
    read: int
    doubtful: int
    unvalued: int
    refused: int


class CheckedBook(Frozen):
    """What `finllm portfolio check` shows.

    `value_base` is the sum of what is read, but for futures, which are listed by their notional and not worth it.
    """

    name: str
    sha256: str
    as_of: dt.date
    base_currency: str
    value_base: float
    columns: tuple[ReadColumn, ...]
    positions: tuple[CheckedRow, ...]
    coverage: ReadShare
    notes: tuple[str, ...]

    @property
    def why_nothing(self) -> str | None:
        """Why nothing of the file is read and valued, by its first row; None where something is."""
        if self.coverage.read or self.coverage.doubtful:
            return None
        first = next(iter(self.positions), None)
        why = f"row {first.row}: {first.reason}" if first else "there is none"
        return f"{self.name}: no row is read and valued; {why}"


def check_book(read: ReadBook, market: MarketStore, as_of: dt.date) -> CheckedBook:
    """Value what can be valued by the file itself, its own rates too, else by the market's last price and rate.

    Errors: InputError for a base currency that has no rate.
    """
    portfolio = read.portfolio
    base = portfolio.base_currency or DEFAULT_BASE
    rates = Rates(market, as_of, base)
    terms = ContractValuer(portfolio, market, as_of)
    through = {one.id: look_through(one.tags, market, as_of) for one in portfolio.positions
               if one.tags and one.asset_class in THROUGH}  # fmt: skip
    rows = [_row(one, read, market, as_of, rates, terms) for one in portfolio.positions]
    rows = [one.model_copy(update={"status": "refused", "reason": why})
            if isinstance(why := through.get(one.id), str) else one for one in rows]  # fmt: skip
    rows += [
        CheckedRow(id=one.id, name=one.name, asset_class=None, currency=None, quantity=None, market_value=None,
                   value_base=worth_of(one, rates, base), status="refused", reason=one.reason, row=one.row)
        for one in portfolio.refused
    ]  # fmt: skip
    rows.sort(key=lambda one: one.row)
    return CheckedBook(
        name=portfolio.name, sha256=portfolio.sha256, as_of=as_of, base_currency=base,
        value_base=math.fsum(one.value_base or 0.0 for one in rows
                            if one.status != "refused" and one.asset_class != "future"),
        columns=portfolio.columns, positions=tuple(rows), coverage=_share(rows),
        notes=(*portfolio.notes, *rates.notes, *_beyond(portfolio, through)),
    )  # fmt: skip


def _beyond(portfolio: Portfolio, through: Mapping[str, dict[str, float] | str | None]) -> Iterator[str]:
    """Of look-through weights that are used, those that add up to more than the whole."""
    for position in portfolio.positions:
        weights = through.get(position.id)
        if isinstance(weights, dict) and position.beta is None and (said := beyond_the_whole(position.id, weights)):
            yield said


def last_priced(read: ReadBook) -> dt.date | None:
    """The last day of which the file's own prices are, if it says so."""
    return max((one.priced_on for one in read.portfolio.positions if one.priced_on), default=None)


def _row(
    position: Position, read: ReadBook, market: MarketStore, as_of: dt.date, rates: Rates, terms: ContractValuer
) -> CheckedRow:
    value, reason = file_value(position), read.doubts.get(position.id, "")
    status: Status = "doubtful" if reason else "read"
    if value is None:
        value, reason = _by_terms(position, terms) if is_contract(position) else _by_market(position, market, as_of)
        status = "read" if value is not None else "unvalued"
    worth = None
    if value is not None:
        found = position.fx if position.fx is not None else rates.of(position.currency)
        rate = found.value if isinstance(found, Rate) else found
        if isinstance(rate, str):
            status, reason = "unvalued", reason or rate
        else:
            worth = value * rate
    return CheckedRow(
        id=position.id, name=position.name, asset_class=position.asset_class, currency=position.currency,
        quantity=position.quantity, market_value=value, value_base=worth, status=status, reason=reason,
        row=read.rows[position.id],
    )  # fmt: skip


def _by_terms(position: Position, terms: ContractValuer) -> tuple[float | None, str]:
    """A contract as every other command values it; a future at its notional."""
    try:
        held = terms.value(position)
    except Unvalued as why:
        return None, str(why)
    if position.asset_class == "future":
        return (held.units or 0.0) * (held.spot or 0.0), f"its notional at a price of {held.spot or 0.0:,.2f}"
    return held.market_value, f"by its terms, at {held.price or held.spot or 0.0:,.2f} a unit"


def _by_market(position: Position, market: MarketStore, as_of: dt.date) -> tuple[float | None, str]:
    seen = last_price(position.id, market, as_of)
    if isinstance(seen, str):
        return None, seen
    price = float(seen.values.iloc[-1])
    return (position.quantity or 0.0) * price, f"at its last price, {price:,.2f} of {seen.last}"


def _share(rows: list[CheckedRow]) -> ReadShare:
    gross = {status: math.fsum(abs(one.value_base or 0.0) for one in rows if one.status == status)
             for status in ("read", "doubtful", "unvalued", "refused")}  # fmt: skip
    whole = sum(gross.values())
    count = {status: sum(one.status == status for one in rows) for status in gross}
    share = None if not whole else (gross["read"] + gross["doubtful"]) / whole
    return ReadShare(share=share, rows=len(rows), **count)
