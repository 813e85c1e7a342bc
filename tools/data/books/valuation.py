"""What a portfolio is worth at `as_of`: every position valued, or left out with the reason."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable

from finllm.errors import InputError
from finllm.tools.data.books.book import Book, Exclusion, Holding
from finllm.tools.data.books.contracts import ContractValuer, Unvalued, is_contract
from finllm.tools.data.books.gross import gross_of
from finllm.tools.data.books.position import AssetClass, Portfolio, Position, Refused
from finllm.tools.data.books.underlying import MAX_PRICE_AGE, MIN_HISTORY
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


def value_portfolio(portfolio: Portfolio, market: MarketStore, as_of: dt.date) -> Book:
    """Value every position in USD at `as_of`, after the close, or leave it out with the reason and its weight.

    Errors: InputError if no position is left.
    """
    notes = ["values are in USD; no FX series is given, so positions in other currencies are left out"]
    kept: list[Holding] = []
    dropped = [_of_refused(row) for row in portfolio.refused]
    contracts = ContractValuer(portfolio, market, as_of)
    for position in portfolio.positions:
        holding, reason = _valued(position, market, as_of, contracts)
        gross = gross_of(position, holding, market, as_of)
        if reason := reason or (_unusable(holding, market, as_of) if holding else ""):
            dropped.append(_left_out(position, reason, gross))
        elif holding is not None:
            kept.append(holding.model_copy(update={"gross": gross}))
            notes += _notes(position, holding, as_of)
    held = {holding.id for holding in kept}
    for holding in [one for one in kept if (one.exposure or "").startswith("position:")]:
        if (name := (holding.exposure or "").partition(":")[2]) not in held:
            kept.remove(holding)
            dropped.append(_left_out(holding, f"its underlying {name!r} is left out", holding.gross))
    notes += contracts.notes
    whole = math.fsum(one.gross or 0.0 for one in (*kept, *dropped))
    exclusions = tuple(
        one if one.gross is None else one.model_copy(update={"weight": one.gross / whole if whole else 0.0})
        for one in dropped
    )
    if not kept:
        reasons = "; ".join(f"{one.id}: {one.reason}" for one in exclusions)
        raise InputError(f"nothing of portfolio {portfolio.name!r} can be valued at {as_of} ({reasons})",
                         fix="give market values with betas, a price file, or another 'as_of'")  # fmt: skip
    return Book(name=portfolio.name, as_of=as_of, sha256=portfolio.sha256, holdings=tuple(kept),
                exclusions=exclusions, notes=(*notes, *portfolio.notes))  # fmt: skip


def _of_refused(row: Refused) -> Exclusion:
    known = row.market_value is not None and math.isfinite(row.market_value)
    return Exclusion(id=row.id, reason=f"row {row.row} was refused: {row.reason}", weight=None,
                     gross=abs(row.market_value or 0.0) if known else None)  # fmt: skip


def _left_out(position: Position | Holding, reason: str, gross: float | None) -> Exclusion:
    return Exclusion(id=position.id, reason=reason, weight=None, sector=position.sector or position.asset_class,
                     underlying=position.underlying, gross=gross)  # fmt: skip


def _valued(
    position: Position, market: MarketStore, as_of: dt.date, contracts: ContractValuer
) -> tuple[Holding | None, str]:
    """The position with its value, or why it has none."""
    if position.currency != "USD":
        return None, f"in {position.currency}, and there is no FX series"
    if is_contract(position):
        try:
            return contracts.value(position), ""
        except Unvalued as reason:
            return None, str(reason)
    value, price, price_date = file_value(position), None, None
    if position.quantity is not None:
        seen = last_price(position.id, market, as_of)
        if isinstance(seen, Observed) and (value is None or not seen.stale):
            price, price_date = float(seen.values.iloc[-1]), seen.last
            value = position.quantity * price
        elif value is None:
            return None, str(seen)
    assert value is not None
    days = market.shared_days(position.id, INDEX, as_of) if position.asset_class in ("equity", "index", "fund") else 0
    has_history = days >= MIN_HISTORY
    return Holding(
        id=position.id, asset_class=position.asset_class, sector=position.sector or position.asset_class,
        market_value=value, quantity=position.quantity, price=price, price_date=price_date,
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


def _unusable(holding: Holding, market: MarketStore, as_of: dt.date) -> str:
    """Why a valued holding cannot be stressed, or nothing."""
    if holding.asset_class not in ("equity", "index", "fund") or holding.series or holding.beta is not None:
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
    if holding.price_date and (told := file_value(position)) and abs(holding.market_value - told) > APART * abs(told):
        yield (f"{holding.id!r} is worth {holding.market_value:,.0f} at its price of {holding.price_date}, and "
               f"{told:,.0f} by its file")  # fmt: skip
    if holding.price_date and (age := (as_of - holding.price_date).days) > 7:
        yield f"{holding.id!r} is valued at its last price, of {holding.price_date}, {age} days before {as_of}"
    for field, classes in USED_BY.items():
        if getattr(position, field) is not None and position.asset_class not in classes:
            yield f"{field} of {position.id!r} is not used: only {' and '.join(classes)} positions have one"
