"""What a portfolio is worth at `as_of`: every position valued, or left out with the reason."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable

from finllm.errors import InputError
from finllm.tools.data.books.book import Book, Exclusion, Holding
from finllm.tools.data.books.contracts import ContractValuer, Unvalued, holding_of, is_contract
from finllm.tools.data.books.gross import gross_of
from finllm.tools.data.books.look_through import beyond_the_whole, look_through
from finllm.tools.data.books.position import AssetClass, Portfolio, Position, Refused
from finllm.tools.data.books.underlying import MAX_PRICE_AGE, MIN_HISTORY
from finllm.tools.data.currencies import legs_of
from finllm.tools.data.fx import DOLLAR, Rate, Rates
from finllm.tools.data.market import INDEX, MarketStore, Observed

APART = 0.1
"""Share of its file's value from which the market's value of a position is said beside it."""

USED_BY: dict[str, tuple[AssetClass, ...]] = {
    "duration": ("bond",),
    "convexity": ("bond",),
    "beta": ("equity", "index", "fund", "future", "option"),
    "delta": ("commodity", "fx", "gold", "volatility", "option", "future"),
    "gamma": ("equity", "index", "fund", "commodity", "fx", "gold", "volatility", "option"),
    "vega": ("equity", "index", "fund", "commodity", "fx", "gold", "option"),
}
THROUGH = ("equity", "index", "fund")
"""Classes that a column of look-through weights may stand for."""


def value_portfolio(
    portfolio: Portfolio, market: MarketStore, as_of: dt.date, currency: str = DOLLAR
) -> Book:  # fmt: skip
    """Value every position in `currency` at `as_of`, after the close, or leave it out with the reason and its weight.

    Errors: InputError if no position is left, or for a currency that has no rate.
    """
    rates = Rates(market, as_of, currency)
    notes: list[str] = []
    kept: list[Holding] = []
    grosses: list[float | None] = []
    dropped = [_of_refused(row, rates, portfolio.base_currency or DOLLAR) for row in portfolio.refused]
    contracts = ContractValuer(portfolio, market, as_of)
    for position in portfolio.positions:
        holding, reason = _valued(position, market, as_of, contracts)
        rate = rates.of(position.currency, position.fx, portfolio.base_currency, position.priced_on)
        local = gross_of(position, holding, market, as_of)
        gross = None if local is None or isinstance(rate, str) else local * rate.value
        if isinstance(rate, str):
            reason = reason or f"in {position.currency}: {rate}"
        elif holding is not None:
            holding = _converted(position, holding, rate, rates)
        if reason := reason or (_unusable(holding, market, as_of) if holding else ""):
            dropped.append(_left_out(position, reason, gross))
        elif holding is not None:
            grosses.append(gross)
            # What most count for is their value, which needs no copy to be said.
            kept.append(holding if gross == holding.counts_for else holding.model_copy(update={"gross": gross}))
            notes += _notes(position, holding, as_of)
    held = {holding.id for holding in kept}
    on_positions = [(holding, gross) for holding, gross in zip(kept, grosses, strict=True)
                    if (holding.exposure or "").startswith("position:")]  # fmt: skip
    whole = math.fsum((*(gross or 0.0 for gross in grosses), *(one.gross or 0.0 for one in dropped)))
    for holding, gross in on_positions:
        if (name := (holding.exposure or "").partition(":")[2]) not in held:
            kept.remove(holding)
            dropped.append(_left_out(holding, f"its underlying {name!r} is left out", gross))
    notes += contracts.notes
    exclusions = tuple(
        one if one.gross is None else one.model_copy(update={"weight": one.gross / whole if whole else 0.0})
        for one in dropped
    )
    if not kept:
        reasons = "; ".join(f"{one.id}: {one.reason}" for one in exclusions)
        raise InputError(f"nothing of portfolio {portfolio.name!r} can be valued at {as_of} ({reasons})",
                         fix="give market values with betas, a price file, or another 'as_of'")  # fmt: skip
    return Book(name=portfolio.name, as_of=as_of, currency=currency, sha256=portfolio.sha256, holdings=tuple(kept),
                exclusions=exclusions,
                notes=(f"values are in {currency}", *rates.notes, *notes, *portfolio.notes))  # fmt: skip


def _of_refused(row: Refused, rates: Rates, base: str) -> Exclusion:
    worth = worth_of(row, rates, base)
    return Exclusion(id=row.id, reason=f"row {row.row} was refused: {row.reason}", weight=None,
                     gross=None if worth is None else abs(worth))  # fmt: skip


def worth_of(row: Refused, rates: Rates, base: str) -> float | None:
    """What a refused row is worth in the rates' currency; None where the file does not say it, or there is no rate.

    `base`: the file's own base currency, which what has no currency of its own is in.
    """
    if row.market_value is None or not math.isfinite(row.market_value):
        return None
    rate = rates.of(row.currency or base)
    return None if isinstance(rate, str) else row.market_value * rate.value


def _left_out(position: Position | Holding, reason: str, gross: float | None) -> Exclusion:
    return Exclusion(id=position.id, reason=reason, weight=None, sector=position.sector or position.asset_class,
                     underlying=position.underlying, gross=gross)  # fmt: skip


def _valued(
    position: Position, market: MarketStore, as_of: dt.date, contracts: ContractValuer
) -> tuple[Holding | None, str]:
    """The position with its value in its own currency, or why it has none."""
    if is_contract(position):
        try:
            return contracts.value(position), ""
        except Unvalued as reason:
            return None, str(reason)
    value, price, price_date = file_value(position), None, None
    if position.quantity is not None and position.asset_class == "cash":
        value = position.quantity if value is None else value
    elif position.quantity is not None:
        seen = last_price(position.id, market, as_of)
        if isinstance(seen, Observed) and (value is None or not seen.stale):
            price, price_date = float(seen.values.iloc[-1]), seen.last
            value = position.quantity * price
        elif value is None:
            return None, str(seen)
    assert value is not None
    through = look_through(position.tags, market, as_of) if position.tags and position.asset_class in THROUGH else None
    if isinstance(through, str):
        return None, through
    if through and position.beta is None:  # what is in it goes before what it did
        return holding_of(position, value, quantity=position.quantity, price=price, price_date=price_date,
                          look_through=through, valued_on=price_date or position.priced_on), ""  # fmt: skip
    days = market.shared_days(position.id, INDEX, as_of) if position.asset_class in ("equity", "index", "fund") else 0
    has_history = days >= MIN_HISTORY
    return holding_of(
        position, value, quantity=position.quantity, price=price, price_date=price_date,
        series=position.id if has_history else None, valued_on=price_date or position.priced_on,
        history_days=days if has_history else None,
        history_end=market.read(position.id, as_of).last if has_history else None,
        underlying=position.underlying, duration=position.duration, convexity=position.convexity,
        beta=position.beta, delta=position.delta, gamma=position.gamma, vega=position.vega,
    ), ""  # fmt: skip


def last_price(id: str, market: MarketStore, as_of: dt.date) -> Observed | str:
    """The series that prices an instrument, up to its last price by `as_of`; or why there is none that may."""
    if id not in market:
        return "given by quantity, and there is no price series of that name"
    try:
        seen = market.read(id, as_of)
    except InputError as error:
        return error.message
    if seen.series.unit != "price":
        return f"the series {id!r} is in {seen.series.unit}, which is not a price"
    if seen.age_days > MAX_PRICE_AGE:
        return f"its last price, of {seen.last}, is {seen.age_days} days old"
    if seen.values.iloc[-1] <= 0:
        return f"its last price, of {seen.last}, is {seen.values.iloc[-1]:g}: no return of it is told"
    return seen


def file_value(position: Position) -> float | None:
    """What the file says a position is worth, in its currency: its market value, else quantity × price."""
    if position.market_value is not None or position.quantity is None or position.price is None:
        return position.market_value
    part = 0.01 if position.asset_class == "bond" else 1.0
    return position.quantity * position.price * (position.multiplier or 1.0) * part


def _converted(position: Position, holding: Holding, rate: Rate, rates: Rates) -> Holding:
    """The holding in the book's currency.

    A position in a currency pair loads on the rates of the two, so its own currency does not translate it once more.
    """
    if position.currency == rates.base == holding.currency == DOLLAR and rate.value == holding.fx:
        return holding
    translated = position.asset_class != "fx" or legs_of(position.id, rates.base) is None
    return holding.model_copy(update={
        "currency": position.currency, "market_value": holding.market_value * rate.value, "fx": rate.value,
        "units": None if holding.units is None else holding.units * rate.value,
        "fx_factor": rates.series(position.currency) if translated else None,
    })  # fmt: skip


def _unusable(holding: Holding, market: MarketStore, as_of: dt.date) -> str:
    """Why a valued holding cannot be stressed, or nothing."""
    if holding.asset_class not in ("equity", "index", "fund") or holding.series or holding.beta is not None:
        return ""
    if holding.look_through:
        return ""
    days = market.shared_days(holding.id, INDEX, as_of)
    had = (
        f"{days} days of history shared with the S&P 500 (at least {MIN_HISTORY} are needed)" if days else "no history"
    )
    if not days and holding.id in market and INDEX in market and (index := market.read(INDEX, as_of)).stale:
        had = (f"its prices share no day with the S&P 500, whose own end on {index.last} (add those: 'finllm data add "
               "^GSPC.csv', or --as COLUMN=SP500 for a column of yours)")  # fmt: skip
    return f"{had} and no beta"


def _notes(position: Position, holding: Holding, as_of: dt.date) -> Iterable[str]:
    told, worth = file_value(position), holding.market_value / holding.fx
    if holding.price_date and told and abs(worth - told) > APART * abs(told):
        yield (f"{holding.id!r} is worth {worth:,.0f} {holding.currency} at its price of {holding.price_date}, and "
               f"{told:,.0f} by its file")  # fmt: skip
    if holding.price_date and (age := (as_of - holding.price_date).days) > 7:
        yield f"{holding.id!r} is valued at its last price, of {holding.price_date}, {age} days before {as_of}"
    if holding.look_through and (rest := 1.0 - sum(holding.look_through.values())) > 0.005:
        yield f"{rest:.0%} of {holding.id!r} is in nothing that its look_through names, and is taken as cash"
    if holding.look_through and (beyond := beyond_the_whole(holding.id, holding.look_through)):
        yield beyond
    for field, classes in USED_BY.items():
        if getattr(position, field) is not None and position.asset_class not in classes:
            yield f"{field} of {position.id!r} is not used: only {' and '.join(classes)} positions have one"
