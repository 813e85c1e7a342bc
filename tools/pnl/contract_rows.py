"""The contracts of a book as arrays: what each is worth by its terms, and the factors that its channels answer to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.books.contracts import RATE, bond_flows, years_to
from finllm.tools.data.books.fields import is_government
from finllm.tools.instruments.bonds import Flows
from finllm.tools.pnl.contracts import CHANNELS, Contracts, DurationBonds, FlowBonds, Forwards, Kind, Options

Loads = Mapping[str, float]
"""Return of an underlying, or move of a yield or a volatility (decimals), per unit of each factor."""
VIX_TAG = "vix_ratio"
"""Column of a portfolio with the points of volatility that an option gains when the VIX gains one; 1 without it."""
NO_TIME = (
    "contracts: no time passes, so options keep their days to expiry; an option's volatility moves by the VIX's points"
    " over 100, times its vix_ratio if it has one"
)


def is_contract(holding: Holding) -> bool:
    """Whether a holding is revalued by its terms, and not by slopes."""
    return holding.asset_class == "bond" or holding.units is not None


@dataclass
class _Rows:
    """Rows of one kind as they are gathered: places in the book, loads of the three channels, and terms."""

    places: list[int] = field(default_factory=list[int])
    channels: list[tuple[Loads, Loads, Loads]] = field(default_factory=list[tuple[Loads, Loads, Loads]])
    terms: list[tuple[float, ...]] = field(default_factory=list[tuple[float, ...]])
    flows: list[Flows] = field(default_factory=list[Flows])

    def add(self, place: int, channels: tuple[Loads, Loads, Loads], *terms: float) -> None:
        self.places.append(place)
        self.channels.append(channels)
        self.terms.append(terms)

    def columns(self) -> list[np.ndarray]:
        return list(np.array(self.terms, dtype=float).T)


def contracts_of(
    book: Book, column: Mapping[str, int], underlying: Callable[[Holding], Loads], as_of: dt.date
) -> tuple[Contracts | None, dict[str, str]]:
    """The contracts of a book, if it has any, and how each is revalued, in words, by its id.

    `column`: where a load stands; `underlying` gives the loads of a contract's underlying. A bond's yield moves with
    RATE_US_10Y, and with CREDIT_BAA_AAA unless its sector `is_government`; an option's volatility with VIX, its rate
    with RATE_US_10Y.
    """
    options, forwards, flows, durations = _Rows(), _Rows(), _Rows(), _Rows()
    how: dict[str, str] = {}
    for place, holding in enumerate(book.holdings):
        if not is_contract(holding):
            continue
        if holding.asset_class == "bond":
            how[holding.id] = _add_bond(place, holding, flows, durations, as_of)
        else:
            how[holding.id] = _add_derivative(place, holding, underlying(holding), options, forwards, as_of)
    kinds: list[Kind] = []
    if options.places:
        *numbers, american = options.columns()
        units, value, call, spot, strike, years, volatility, rate, dividend = numbers
        kinds.append(Options(units, value, call > 0, spot, strike, years, volatility, rate, dividend, american > 0))
    if forwards.places:
        kinds.append(Forwards(*forwards.columns()))
    if flows.places:
        held, yields = flows.columns()
        kinds.append(FlowBonds.of(held, yields, flows.flows))
    if durations.places:
        kinds.append(DurationBonds(*durations.columns()))
    parts = (options, forwards, flows, durations)
    if not kinds:
        return None, how
    loads = np.zeros((CHANNELS, sum(len(one.places) for one in parts), len(column)))
    for row, channels in enumerate(one for part in parts for one in part.channels):
        for channel, own in enumerate(channels):
            for factor, load in own.items():
                loads[channel, row, column[factor]] = load
    return Contracts(np.array([place for part in parts for place in part.places]), loads, tuple(kinds)), how


def _add_derivative(
    place: int, holding: Holding, moves: Loads, options: _Rows, forwards: _Rows, as_of: dt.date
) -> str:  # fmt: skip
    units, spot, rate = holding.units or 0.0, holding.spot or 0.0, holding.rate
    rates: Loads = {RATE: 1e-4} if holding.currency == "USD" else {}
    years = years_to(holding.expiry, as_of) if holding.expiry else 0.0
    words = ", ".join(f"{name} {load:.2f}" for name, load in moves.items())
    dividend, strike = holding.yield_ or 0.0, holding.strike or spot
    if holding.asset_class == "option":
        ratio = float(holding.tags.get(VIX_TAG, 1.0))
        volatility = holding.volatility or 0.0
        call, american = float(holding.option_type == "call"), float(holding.exercise == "American")
        nervous: Loads = {} if "VIX" in moves else {"VIX": ratio / 100.0}
        options.add(place, (moves, nervous, rates), units, holding.market_value, call, spot, strike, years, volatility,
                    rate, dividend, american)  # fmt: skip
        return f"{holding.exercise or 'European'} option at {volatility:.1%} for {years:.2f} years on {words}"
    if holding.asset_class == "future":
        forwards.add(place, (moves, {}, {}), units, spot, spot, 0.0, 0.0, 0.0)
        return f"future, notional {units * spot:,.0f} on {words}"
    forwards.add(place, (moves, {}, rates), units, spot, strike, years, rate, dividend)
    return f"forward for {years:.2f} years on {words}"


def _add_bond(place: int, holding: Holding, flows: _Rows, durations: _Rows, as_of: dt.date) -> str:
    yields = {RATE: 1e-4, "CREDIT_BAA_AAA": 1e-4}
    if is_government(holding.sector):
        del yields["CREDIT_BAA_AAA"]
    if holding.units is not None and holding.yield_ is not None:
        flows.add(place, (yields, {}, {}), holding.units, holding.yield_)
        flows.flows.append(bond_flows(holding, as_of))
        return f"cash flows to {holding.maturity} at a yield of {holding.yield_:.2%}"
    years, convexity = holding.duration or 0.0, holding.convexity or 0.0
    durations.add(place, (yields, {}, {}), holding.market_value, years, convexity, 0.0)
    return f"duration {years:g}, convexity {convexity:g}"
