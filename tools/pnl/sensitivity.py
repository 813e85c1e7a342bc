"""Sensitivities of a book to a factor set: loads of shares, and parametric positions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from finllm.errors import InputError
from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.currencies import currency_of, factor_currency, fx_factor, legs_of
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.betas import Regression, default_regressors, regress
from finllm.tools.pnl.contract_rows import NO_TIME, Loads, contracts_of, is_contract
from finllm.tools.pnl.damping import columns, felt_by, load_name
from finllm.tools.pnl.factorset import Driver, FactorSet
from finllm.tools.pnl.kernel import Sensitivities
from finllm.tools.pnl.translation import Translation

STOCKS_AND_FUNDS = ("equity", "index", "fund")
"""Classes that load on the index by betas."""


Regressed = tuple[tuple[str, ...], tuple[Driver, ...], dict[str, str]]
"""What regressions follow from beside the market and the day: the series, the regressors, and the series' sectors."""


@dataclass(frozen=True)
class BookSensitivities:
    """The arrays of a book, how each holding got its row, its regressions, and what to know."""

    arrays: Sensitivities
    how: dict[str, str]
    regressions: dict[str, Regression]
    regressed: Regressed
    notes: tuple[str, ...]


def book_sensitivities(
    book: Book, factors: FactorSet, market: MarketStore, as_of: dt.date, known: BookSensitivities | None = None
) -> BookSensitivities:  # fmt: skip
    """What every holding gains when the factors move.

    Equities, indices and funds: betas to EQUITY_US and further factors (see `default_regressors` and `regress`), that
    to oil on its damped move (see `damping`); a beta given is that to EQUITY_US alone and wins; their gamma is on it.
    Commodities load on OIL_WTI, gold on GOLD, fx on the rates of its pair (or of the currency that it is named by),
    else on USD_BROAD, by delta and gamma, but a holding whose id is a named factor loads on that. Volatility: VIX. A
    vega adds VIX to any of them. What has gamma or vega, and a market value, loses no more than that. Bonds, and
    options, futures and forwards with terms, are revalued in full (see `contracts_of`). Exchange rates translate all
    but pairs. `known`: those of another book on the same market and day, whose regressions serve where they are the
    same. Errors: see `regress`.
    """
    names = [_regressed(holding, factors) for holding in book.holdings]
    within = (one for holding in book.holdings for one in holding.look_through or () if one not in factors)
    wanted = [one for one in dict.fromkeys([*names, *within]) if one]
    found, regressed = _regressions(wanted, book, factors, market, as_of, known)
    ids = tuple(factors.drivers)
    felt = felt_by(ids, {id for one in found.values() for id in one.betas})
    column = columns(ids, felt)
    sectors = tuple(dict.fromkeys(holding.sector for holding in book.holdings))
    shape = (len(book.holdings), len(column))
    linear, direction = np.zeros(shape), np.zeros(shape)
    curvature, floored = np.zeros(shape[0]), np.zeros(shape[0], dtype=bool)
    how: dict[str, str] = {}
    notes: list[str] = []
    held = {holding.id: holding for holding in book.holdings}
    for row, holding in enumerate(book.holdings):
        if holding.series in found and holding.beta is None:
            notes += [f"{holding.id!r}: {note}" for note in found[holding.series].notes]
        if is_contract(holding):
            continue
        loads, scale, second, words = _loads(holding, book.currency, factors, found, held)
        for factor, one in loads.items():
            linear[row, column[factor]] = scale * one
            direction[row, column[factor]] = one
        if holding.asset_class in STOCKS_AND_FUNDS and holding.gamma:
            direction[row] = 0.0
            direction[row, column["EQUITY_US"]] = 1.0
        curvature[row] = second
        floored[row] = _is_floored(holding)
        if holding.vega and holding.asset_class != "volatility":
            linear[row, column["VIX"]] += holding.vega * holding.fx
            words += f", vega {holding.vega:g} {holding.currency} per point"
        how[holding.id] = words
    contracts, words = contracts_of(
        book, column, lambda one: _underlying(one, book.currency, factors, found, held), as_of
    )
    how |= words
    if any(holding.asset_class == "option" and is_contract(holding) for holding in book.holdings):
        notes.append(NO_TIME)
    arrays = Sensitivities(
        positions=tuple(holding.id for holding in book.holdings), factors=ids, sectors=sectors,
        sector=np.array([sectors.index(holding.sector) for holding in book.holdings]),
        value=np.array([holding.market_value for holding in book.holdings]), linear=linear, direction=direction,
        curvature=curvature, floored=floored, contracts=contracts, fx=_translation(book, column), felt=felt,
    )  # fmt: skip
    return BookSensitivities(arrays, how, found, regressed, tuple(notes))


def _regressions(
    wanted: list[str], book: Book, factors: FactorSet, market: MarketStore, as_of: dt.date,
    known: BookSensitivities | None,
) -> tuple[dict[str, Regression], Regressed]:  # fmt: skip
    """The series' regressions and what they follow from; those that are known, where that is the same."""
    regressors = default_regressors(factors, market, as_of) if wanted else ()
    sectors = {name: one for name, one in _sectors(book).items() if name in wanted}
    regressed: Regressed = tuple(wanted), regressors, sectors
    if known is not None and known.regressed == regressed and all(map(Driver.same, regressors, known.regressed[1])):
        return known.regressions, regressed
    return regress(wanted, regressors, market, as_of, sectors=sectors), regressed


def currencies_of(book: Book) -> list[str]:
    """The currencies whose rates against the dollar move the book's value, without the dollar."""
    found = {book.currency: None}
    told = ((holding.id if holding.asset_class == "fx" else None, holding.exposure,
             holding.currency if holding.fx_factor else None) for holding in book.holdings)  # fmt: skip
    for pair, exposure, held_in in dict.fromkeys(told):  # few differ
        found |= dict.fromkeys((legs_of(pair, book.currency) if pair is not None else None) or ())
        if underlying := factor_currency((exposure or "").removeprefix("factor:")):
            found[underlying] = None
        if held_in is not None and (currency := currency_of(held_in, book.as_of)):
            found[currency.code] = None
    return [code for code in found if code != "USD"]


def _legs(holding: Holding, base: str) -> tuple[str, str] | None:
    return legs_of(holding.id, base) if holding.asset_class == "fx" else None


def _translation(book: Book, column: Mapping[str, int]) -> Translation | None:
    """How exchange rates translate the book's positions; None where all of it is in dollars."""
    base = -1 if book.currency == "USD" else column[fx_factor(book.currency)]
    if base < 0 and not any(one.fx_factor for one in book.holdings):
        return None
    own = [column[one.fx_factor] if one.fx_factor else -1 for one in book.holdings]
    exposed = [0.0 if _legs(one, book.currency) else one.market_value for one in book.holdings]
    return Translation(np.array(own), base, np.array(exposed))


def _loads(
    holding: Holding, base: str, factors: FactorSet, found: Mapping[str, Regression], held: Mapping[str, Holding]
) -> tuple[Loads, float, float, str]:
    """The direction of a holding's move in the factors, money per unit of it, its curvature, and how, in words."""
    value, gamma = holding.market_value, holding.gamma or 0.0
    match holding.asset_class:
        case "equity" | "index" | "fund":
            if holding.beta is not None:
                return {"EQUITY_US": holding.beta}, value, value * gamma, f"beta {holding.beta:g} (user)"
            if holding.look_through is not None:
                loads = _through(holding.look_through, found)
                shares = ", ".join(f"{name} {share:.0%}" for name, share in holding.look_through.items())
                return loads, value, value * gamma, f"look-through: {shares}"
            if holding.series is None or holding.series not in found:
                raise InputError(f"{holding.id!r} has no history and no beta", fix="give its beta in the portfolio")
            own = found[holding.series]
            words = ", ".join(f"{name} {beta:.2f}" for name, beta in own.betas.items())
            return _felt(own), value, value * gamma, f"betas {words} ({own.window})"
        case "cash":
            return {}, value, 0.0, "cash"
        case "option":
            delta = holding.delta or 0.0
            loads = _underlying(holding, base, factors, found, held)
            return loads, value * delta, value * gamma, f"delta {delta:g}, gamma {gamma:g} on {holding.underlying}"
        case "bond" | "future":
            raise InputError(f"{holding.id!r}, a {holding.asset_class}, has no terms", fix="value it as a contract")
        case "volatility":
            delta, words = holding.delta or 0.0, f"delta {holding.delta or 0.0:g} {holding.currency} per point"
            return {"VIX": 1.0}, delta * holding.fx, gamma * holding.fx, f"{words}, gamma {gamma:g}"
        case "commodity" | "fx" | "gold":
            known = {"commodity": "OIL_WTI", "fx": "USD_BROAD", "gold": "GOLD"}[holding.asset_class]
            own_factor = holding.id in factors and factors[holding.id].kind == "named"
            delta = 1.0 if holding.delta is None else holding.delta
            loads = {holding.id if own_factor else known: 1.0}
            if not own_factor and (legs := _legs(holding, base)):
                loads = {fx_factor(code): sign for code, sign in zip(legs, (1.0, -1.0), strict=True) if code != "USD"}
            return loads, value * delta, value * gamma, f"delta {delta:g}, gamma {gamma:g}"


def _through(weights: Mapping[str, float], found: Mapping[str, Regression]) -> Loads:
    """What a fund loads on by its weights: a series by its betas, a factor by itself."""
    loads: dict[str, float] = {}
    for name, weight in weights.items():
        for factor, load in (_felt(found[name]) if name in found else {name: 1.0}).items():
            loads[factor] = loads.get(factor, 0.0) + weight * load
    return loads


def _felt(own: Regression) -> Loads:
    """A series' loads, those on a damped factor by what is felt of its move."""
    return {load_name(factor): beta for factor, beta in own.betas.items()}


def _is_floored(holding: Holding) -> bool:
    """Whether what a holding is worth is all that it can lose: a stock, or a premium with greeks."""
    greeks = holding.gamma or (holding.vega and holding.asset_class != "volatility")
    return bool(holding.market_value and (holding.asset_class in (*STOCKS_AND_FUNDS, "option") or greeks))


def _regressed(holding: Holding, factors: FactorSet) -> str | None:
    """The series whose betas a holding or its underlying needs, if it needs any."""
    kind, _, name = (holding.exposure or "").partition(":")
    if kind == "series":
        return None if name in factors and factors[name].kind == "named" else name
    return holding.series if holding.beta is None else None


def _underlying(
    holding: Holding, base: str, factors: FactorSet, found: Mapping[str, Regression], held: Mapping[str, Holding]
) -> Loads:
    """The return of a contract's underlying per unit of each factor. Errors: InputError for one that nothing moves."""
    kind, _, name = (holding.exposure or "").partition(":")
    match kind:
        case "beta":
            return {"EQUITY_US": holding.beta or 0.0}
        case "factor":
            level = holding.spot or 1.0
            return {name: 1.0 / level if factors[name].unit == "points" else 1.0}
        case "series":
            return _felt(found[name]) if name in found else {name: 1.0}
        case "position" if name in held:
            loads, scale, _, _ = _loads(held[name], base, factors, found, held)
            value = held[name].market_value
            return {factor: load * scale / value for factor, load in loads.items()} if value else loads
        case _:
            raise InputError(f"{holding.id!r}: nothing moves its underlying {holding.underlying!r}",
                             fix="give its beta in the portfolio")  # fmt: skip


def _sectors(book: Book) -> dict[str, str]:
    """The sectors of holdings that name one, by series."""
    return {one.series: one.sector for one in book.holdings if one.series and one.sector != one.asset_class}
