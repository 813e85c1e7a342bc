"""Values of contracts: options, futures, forwards and bonds by their own terms, or why one cannot be valued."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finllm.errors import InputError
from finllm.tools.data.books.book import Holding
from finllm.tools.data.books.position import Portfolio, Position, Terms
from finllm.tools.data.books.underlying import MAX_PRICE_AGE, Underlying, Underlyings
from finllm.tools.data.factors import factor_table
from finllm.tools.data.market import MarketStore
from finllm.tools.instruments.bonds import FREQUENCIES, Flows, day_count_of, flows
from finllm.tools.instruments.options import american, american_volatilities, implied_spot, implied_volatility, price

RATE = "RATE_US_10Y"
"""The factor whose level, where it has one, discounts contracts in USD; others, and all without it, at a rate of 0."""
NOTIONAL_TOLERANCE = 0.05
"""How near a future's market value must be to its notional to be read as one."""


class Unvalued(Exception):
    """Why a contract has no value; its text is the reason that the book gives."""


@dataclass(frozen=True)
class _Known:
    """Of an American option: the volatility that its price implies, None where none does, or the price at its own."""

    volatility: float | None
    price: float | None


class ContractValuer:
    """Values the contracts of one portfolio at `as_of`, after the close; `notes` says what was taken as given."""

    def __init__(self, portfolio: Portfolio, market: MarketStore, as_of: dt.date) -> None:
        self._underlyings = Underlyings(portfolio.positions, market, as_of)
        self._as_of = as_of
        self._rate = _flat_rate(market, as_of)
        self.notes: list[str] = []
        self._known = self._together(portfolio.positions)

    def value(self, position: Position) -> Holding:
        """The position with its value and what it is revalued by, in its own currency. Errors: Unvalued."""
        match position.asset_class:
            case "option":
                return self._option(position)
            case "future":
                return self._future(position)
            case "fx":
                return self._forward(position)
            case _:
                return self._bond(position)

    def _option(self, position: Position) -> Holding:
        if position.strike is None or position.expiry is None or position.option_type is None:
            return self._by_greeks(position)
        if not position.strike > 0:
            raise Unvalued(f"its strike is {position.strike:g}")
        years = self._years(position)
        under, units = self._under(position), _units(position)
        rate = self._rate if position.currency == "USD" else 0.0
        call, dividend = position.option_type == "call", position.yield_ or 0.0
        terms = {"is_american": position.exercise == "American"}
        premium = _premium(position)
        spot, volatility = under.spot, position.volatility
        if spot is None:
            if premium is None or not volatility:
                raise Unvalued(f"no price of its underlying {position.underlying!r} is known by {self._as_of}, and"
                               " without it an option needs its own price and volatility")  # fmt: skip
            spot = implied_spot(premium, call, position.strike, years, volatility, rate, dividend, **terms)
            if spot is None:
                raise Unvalued(f"no price of its underlying gives a price of {premium:g} at its volatility")
            self.notes.append(f"{position.id!r}: its underlying's price, {spot:,.2f}, follows from its own price")
        elif premium is not None:
            implied = self._implied(position, premium, spot, years, rate)
            if implied is None and not volatility:
                raise Unvalued(f"no volatility gives its price of {premium:g} with its underlying at {spot:,.2f}")
            if implied is None:
                self.notes.append(f"{position.id!r}: no volatility gives its price of {premium:g} with its underlying"
                                  f" at {spot:,.2f}; the given one is used")  # fmt: skip
            volatility = implied or volatility
        if not volatility:
            raise Unvalued("it has neither a volatility nor a price to imply one from")
        each = self._priced(position, spot, years, volatility, rate) if premium is None else premium
        value = position.market_value if position.market_value is not None else (units or 0.0) * each
        if units is None:
            if not each > 1e-9 * spot:
                raise Unvalued("it is worth nothing at its volatility, so its market value does not say how many it is")
            units = value / each
        self._old(position, under)
        return _held(position, value, units=units, spot=spot, rate=rate, volatility=volatility, price=each,
                     exposure=under.exposure, valued_on=under.day or position.priced_on)  # fmt: skip

    def _implied(self, position: Position, premium: float, spot: float, years: float, rate: float) -> float | None:
        """The volatility at which an option is worth what the file says."""
        if position.id in self._known:
            return self._known[position.id].volatility
        call, is_american = position.option_type == "call", position.exercise == "American"
        return implied_volatility(
            premium, call, spot, position.strike or 0.0, years, rate, position.yield_ or 0.0, is_american=is_american
        )

    def _priced(self, position: Position, spot: float, years: float, volatility: float, rate: float) -> float:
        known = self._known.get(position.id)
        if known and known.price is not None:
            return known.price
        call, is_american = position.option_type == "call", position.exercise == "American"
        return price(
            call, spot, position.strike or 0.0, years, volatility, rate, position.yield_ or 0.0, is_american=is_american
        )

    def _together(self, positions: Sequence[Position]) -> dict[str, _Known]:
        """The American options whose underlying has a price: a thousand at once take little longer than ten."""
        rows: list[tuple[str, float | None, list[float]]] = []
        for one in positions:
            if one.asset_class != "option" or one.exercise != "American" or one.option_type is None:
                continue
            if not one.strike or not one.strike > 0 or one.expiry is None or one.expiry <= self._as_of:
                continue
            under, premium = self._underlyings.of(one), _premium(one)
            if isinstance(under, str) or under.spot is None or (premium is None and not one.volatility):
                continue
            rate = self._rate if one.currency == "USD" else 0.0
            rows.append((one.id, premium, [
                float(one.option_type == "call"), under.spot, one.strike, years_to(one.expiry, self._as_of),
                one.volatility or 0.0, rate, one.yield_ or 0.0,
            ]))  # fmt: skip
        priced, unpriced = ([row for row in rows if (row[1] is None) is bare] for bare in (False, True))
        found: dict[str, _Known] = {}
        if priced:
            call, spot, strike, years, _, rate, dividend = np.array([row[2] for row in priced]).T
            premiums = np.array([row[1] for row in priced])
            implied = american_volatilities(premiums, call > 0, spot, strike, years, rate, dividend)
            found |= {row[0]: _Known(one, None) for row, one in zip(priced, implied, strict=True)}
        if unpriced:
            call, *terms = np.array([row[2] for row in unpriced]).T
            prices = american(call > 0, *terms).tolist()
            found |= {row[0]: _Known(None, one) for row, one in zip(unpriced, prices, strict=True)}
        return found

    def _by_greeks(self, position: Position) -> Holding:
        """An option without terms: a row of delta, gamma and vega, whose premium is its market value."""
        if position.delta is None:
            raise Unvalued("an option needs option_type, strike and expiry, or else a delta")
        value = _market_value(position, position.multiplier or 1.0)
        if value is None:
            raise Unvalued("it has neither a market value nor a price")
        return _held(position, value, exposure=self._under(position).exposure)

    def _future(self, position: Position) -> Holding:
        under, units = self._under(position), _units(position)
        each = position.price or self._underlyings.series_price(position.id)[0] or under.spot
        if position.market_value and (units is None or each is None):  # the one size that the file gives
            each = each or (abs(position.market_value / units) if units else abs(position.market_value))
            units = position.market_value / each
            self.notes.append(f"{position.id!r}: its market value is taken as its notional, and as worth nothing")
            return _held(position, 0.0, units=units, spot=each, exposure=under.exposure)
        if units is None or each is None:
            raise Unvalued("a future needs its quantity and multiplier, and its price or that of its underlying")
        value, notional = position.market_value or 0.0, units * each
        if value and abs(value - notional) <= NOTIONAL_TOLERANCE * abs(notional):
            value = 0.0
            self.notes.append(f"{position.id!r}: its market value is its notional, and it is worth nothing by itself")
        if position.price is None:
            self._old(position, under)
        day = position.priced_on if position.price is not None else under.day
        return _held(position, value, units=units, spot=each, exposure=under.exposure, valued_on=day)

    def _forward(self, position: Position) -> Holding:
        under, units = self._under(position), _units(position)
        if under.spot is None or units is None or position.strike is None:
            raise Unvalued("a forward needs its quantity, its strike and the price of what it delivers")
        rate, years = self._rate if position.currency == "USD" else 0.0, self._years(position)
        dividend = position.yield_ or 0.0
        model = under.spot * math.exp(-dividend * years) - position.strike * math.exp(-rate * years)
        value = units * model if position.market_value is None else position.market_value
        self._old(position, under)
        return _held(position, value, units=units, spot=under.spot, rate=rate, exposure=under.exposure,
                     valued_on=under.day or position.priced_on)  # fmt: skip

    def _bond(self, position: Position) -> Holding:
        found = self._flows(position)
        if found is None:
            value = _market_value(position, 0.01)
            if value is None:
                raise Unvalued("it has neither a market value nor a price")
            return _held(position, value)
        dirty = None
        if position.price is not None:
            dirty = position.price + found.accrued
        elif position.market_value is not None and position.quantity:
            dirty = 100.0 * position.market_value / position.quantity
        yield_ = position.yield_ if dirty is None else found.yield_at(dirty)
        if yield_ is None:
            raise Unvalued(
                f"no yield gives its price of {dirty:g}" if dirty is not None else "it has no yield or price"
            )
        dirty = found.dirty(yield_) if dirty is None else dirty
        quantity = position.quantity
        value = position.market_value if position.market_value is not None else (quantity or 0.0) * dirty / 100.0
        units = quantity / 100.0 if quantity is not None else value / dirty
        return _held(position, value, units=units, spot=dirty, yield_=yield_)

    def _flows(self, position: Position) -> Flows | None:
        """The bond's cash flows; None where its duration stands in for them. Errors: Unvalued."""
        if (
            position.maturity is None
            or position.coupon is None
            or (
                position.yield_ is None and position.price is None and not (position.market_value and position.quantity)
            )
        ):
            if position.duration is None:
                raise Unvalued("a bond needs coupon, maturity and a yield or price, or else a duration")
            return None
        if position.maturity <= self._as_of:
            raise Unvalued(f"it was repaid on {position.maturity}")
        return bond_flows(position, self._as_of)

    def _under(self, position: Position) -> Underlying:
        found = self._underlyings.of(position)
        if isinstance(found, str):
            raise Unvalued(found)
        return found

    def _years(self, position: Position) -> float:
        assert position.expiry is not None
        if position.expiry <= self._as_of:
            raise Unvalued(f"it expired on {position.expiry}")
        return years_to(position.expiry, self._as_of)

    def _old(self, position: Position, under: Underlying) -> None:
        if under.day and (age := (self._as_of - under.day).days) > 7:
            self.notes.append(f"{position.id!r}: its underlying's price is of {under.day}, {age} days before"
                              f" {self._as_of}")  # fmt: skip


def years_to(day: dt.date, as_of: dt.date) -> float:
    """Years by ACT/365."""
    return (day - as_of).days / 365.0


def bond_flows(terms: Terms, as_of: dt.date) -> Flows:
    """A bond's flows by its terms: twice a year and 30/360 where these are not given. Errors: Unvalued."""
    assert terms.maturity is not None
    assert terms.coupon is not None
    frequency, named = terms.frequency or 2, terms.day_count or "30/360"
    count = day_count_of(named)
    if frequency not in FREQUENCIES:
        raise Unvalued(f"its frequency is {frequency} coupons a year; it may be {', '.join(map(str, FREQUENCIES))}")
    if count is None:
        raise Unvalued(f"its day count {named!r} is none of 30/360, 30E/360, ACT/ACT, ACT/365, ACT/360")
    return flows(as_of, terms.maturity, terms.coupon, frequency, count)


def is_contract(position: Position) -> bool:
    """Whether a position is valued by its terms here, and not as a plain holding."""
    match position.asset_class:
        case "option" | "future":
            return True
        case "fx":
            return position.expiry is not None
        case "bond":  # by quantity alone it is worth what a price series of its name says
            return not (position.market_value is None and position.price is None and position.yield_ is None)
        case _:
            return False


def holding_of(position: Position, value: float, **known: Any) -> Holding:
    """The position with its value and what else is known of it; what is None is left to its default, for memory."""
    known = {name: one for name, one in known.items() if one is not None}
    return Holding.model_validate({"id": position.id, "asset_class": position.asset_class, "market_value": value,
                                   "sector": position.sector or position.asset_class, **known})  # fmt: skip


def _held(position: Position, value: float, **more: Any) -> Holding:
    """A contract keeps all of its terms."""
    terms = {name: getattr(position, name) for name in Terms.model_fields if name in position.model_fields_set}
    own = {"quantity": position.quantity, "valued_on": position.priced_on}
    return holding_of(position, value, **(terms | own | more))


def _units(position: Position) -> float | None:
    return None if position.quantity is None else position.quantity * (position.multiplier or 1.0)


def _premium(position: Position) -> float | None:
    """The price of one unit that the file gives: its own, or its market value over quantity and multiplier."""
    if position.price is not None:
        return position.price
    units = _units(position)
    return position.market_value / units if position.market_value is not None and units else None


def _market_value(position: Position, scale: float) -> float | None:
    """The market value, or quantity × price × scale."""
    if position.market_value is not None or position.quantity is None or position.price is None:
        return position.market_value
    return position.quantity * position.price * scale


def _flat_rate(market: MarketStore, as_of: dt.date) -> float:
    """The level of `RATE`, continuously compounded from a semi-annual yield, a decimal a year; 0 where it has none."""
    row = factor_table()[RATE]
    series = next((one for one in (row.imported, row.series) if one and one in market), None)
    if series is None:
        return 0.0
    try:
        seen = market.read(series, as_of)
    except InputError:
        return 0.0
    if seen.age_days > MAX_PRICE_AGE or seen.series.unit != "percent":
        return 0.0
    return 2.0 * math.log1p(float(seen.values.iloc[-1]) / 200.0)
