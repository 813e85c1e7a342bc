"""Sensitivities of a book to a factor set: regressions shrunk towards their mean, and parametric positions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.books.underlying import MIN_HISTORY
from finllm.tools.data.currencies import currency_of, factor_currency, fx_factor, legs_of
from finllm.tools.data.market import HALTED_DAYS, MarketStore, crosses, halts, span
from finllm.tools.pnl.contract_rows import NO_TIME, Loads, contracts_of, is_contract
from finllm.tools.pnl.factorset import MIN_NAMES, Driver, FactorSet, Levels
from finllm.tools.pnl.history import one_step
from finllm.tools.pnl.kernel import Sensitivities
from finllm.tools.pnl.translation import Translation

STOCKS_AND_FUNDS = ("equity", "index", "fund")
"""Classes that load on the index by betas."""
WINDOW = 504
"""Daily returns behind a regression: two years."""
MIN_CROSS_SECTION = 5
"""Names below which there is no cross-section to shrink towards."""

Shrinkage = Literal["vasicek", "none"]


@dataclass(frozen=True)
class Regression:
    """Betas of one instrument by regressor: as used after shrinkage, as estimated, and their standard errors.

    `residuals`: daily returns beyond the betas used, about their mean, by day. `n` returns in `window`; `notes` name
    what was left out.
    """

    betas: dict[str, float]
    estimated: dict[str, float]
    errors: dict[str, float]
    residuals: pd.Series
    n: int
    window: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class BookSensitivities:
    """The arrays of a book, how each holding got its row, its regressions, and what to know."""

    arrays: Sensitivities
    how: dict[str, str]
    regressions: dict[str, Regression]
    notes: tuple[str, ...]


def book_sensitivities(
    book: Book,
    factors: FactorSet,
    market: MarketStore,
    as_of: dt.date,
    *,
    regressors: Sequence[str] = ("EQUITY_US",),
    window: int = WINDOW,
    shrinkage: Shrinkage = "vasicek",
) -> BookSensitivities:
    """What every holding gains when the factors move.

    Equities and indices: betas to `regressors` (see `regress`); a beta given in the portfolio is that to EQUITY_US and
    wins; their gamma is on the return of EQUITY_US. Commodities load on OIL_WTI, gold on GOLD, fx on the rates of its
    pair (or of the currency that it is named by), else on USD_BROAD, by delta and gamma, but a holding whose id is a
    named factor loads on that. Volatility: VIX. A vega adds VIX to any of them. What has gamma or vega, and a market
    value, loses no more than that. Bonds, and options, futures and forwards with terms, are revalued in full (see
    `contracts_of`). Exchange rates translate all but pairs. Errors: see `regress`.
    """
    names = [_regressed(holding, factors) for holding in book.holdings]
    found = regress([one for one in dict.fromkeys(names) if one], [factors[name] for name in regressors], market, as_of,
                    window=window, shrinkage=shrinkage, sectors=_sectors(book))  # fmt: skip
    ids = tuple(factors.drivers)
    column = {id: at for at, id in enumerate(ids)}
    sectors = tuple(dict.fromkeys(holding.sector for holding in book.holdings))
    shape = (len(book.holdings), len(ids))
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
    contracts, words = contracts_of(book, ids, lambda one: _underlying(one, book.currency, factors, found, held), as_of)
    how |= words
    if any(holding.asset_class == "option" and is_contract(holding) for holding in book.holdings):
        notes.append(NO_TIME)
    arrays = Sensitivities(
        positions=tuple(holding.id for holding in book.holdings), factors=ids, sectors=sectors,
        sector=np.array([sectors.index(holding.sector) for holding in book.holdings]),
        value=np.array([holding.market_value for holding in book.holdings]), linear=linear, direction=direction,
        curvature=curvature, floored=floored, contracts=contracts, fx=_translation(book, column),
    )  # fmt: skip
    return BookSensitivities(arrays, how, found, tuple(notes))


def currencies_of(book: Book) -> list[str]:
    """The currencies whose rates against the dollar move the book's value, without the dollar."""
    found = {book.currency: None}
    for holding in book.holdings:
        found |= dict.fromkeys(_legs(holding, book.currency) or ())
        if underlying := factor_currency((holding.exposure or "").removeprefix("factor:")):
            found[underlying] = None
        if holding.fx_factor and (currency := currency_of(holding.currency, book.as_of)):
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
            if holding.series is None or holding.series not in found:
                raise InputError(f"{holding.id!r} has no history and no beta", fix="give its beta in the portfolio")
            own = found[holding.series]
            words = ", ".join(f"{name} {beta:.2f}" for name, beta in own.betas.items())
            return own.betas, value, value * gamma, f"betas {words} ({own.window})"
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
            return found[name].betas if name in found else {name: 1.0}
        case "position" if name in held:
            loads, scale, _, _ = _loads(held[name], base, factors, found, held)
            value = held[name].market_value
            return {factor: load * scale / value for factor, load in loads.items()} if value else loads
        case _:
            raise InputError(f"{holding.id!r}: nothing moves its underlying {holding.underlying!r}",
                             fix="give its beta in the portfolio")  # fmt: skip


def regress(
    names: Sequence[str],
    regressors: Sequence[Driver],
    market: MarketStore,
    as_of: dt.date,
    *,
    window: int = WINDOW,
    shrinkage: Shrinkage = "vasicek",
    sectors: Mapping[str, str] | None = None,
) -> dict[str, Regression]:
    """Betas of series to several factors: least squares with intercept on the last `window` shared days.

    A return spans two days that all have observed. Unchanged closes of a halted name are left out. Shrinkage is that
    of Vasicek (1973), factor by factor: β = β̂ + (β̄ − β̂)·s²/(s² + τ²), with β̄ and τ² the mean of the estimates and their
    variance less the mean s², both over `names`; with fewer than five names nothing is shrunk. The S&P 500 itself is
    not shrunk. A name that was halted on too many of its days takes the mean betas of its `sectors` (by name), where
    three others have some, else the first regressor's own, and says so. Errors: InputError for a regressor that is not
    daily, too few shared days, or collinear regressors.
    """
    if not names:
        return {}
    levels: dict[str, Levels] = {}
    for driver in regressors:
        seen = driver.levelled(market, as_of)
        if seen.frequency != "daily":
            raise InputError(f"{driver.id!r} is {seen.frequency}, and betas are regressed on daily moves",
                             fix="leave it to propagation")  # fmt: skip
        levels[driver.id] = seen
    halted = [name for name in names if _always_halted(name, levels, market, as_of, window)]
    names = [name for name in names if name not in halted]
    fits = {name: _fit(name, levels, {one.id: one for one in regressors}, market, as_of, window) for name in names}
    ids = [driver.id for driver in regressors]
    exact = {name for name in names if any(driver.series == name for driver in regressors)}
    free = [name for name in names if name not in exact]
    shrunk = shrinkage == "vasicek" and len(free) >= MIN_CROSS_SECTION
    estimates = np.array([[fits[name].estimate[id] for id in ids] for name in free]).reshape(len(free), len(ids))
    errors = np.array([[fits[name].error[id] for id in ids] for name in free]).reshape(len(free), len(ids))
    mean = estimates.mean(axis=0) if shrunk else np.zeros(len(ids))
    spread = np.maximum(estimates.var(axis=0, ddof=1) - (errors**2).mean(axis=0), 0.0) if shrunk else mean
    found: dict[str, Regression] = {}
    for name, fit in fits.items():
        betas = dict(fit.estimate)
        words = "not shrunk"
        if shrunk and name in free:
            at = free.index(name)
            weight = errors[at] ** 2 / (errors[at] ** 2 + spread)
            betas = dict(zip(ids, (estimates[at] + (mean - estimates[at]) * weight).tolist(), strict=True))
            words = f"shrunk towards the mean of {len(free)} names by {', '.join(f'{one:.0%}' for one in weight)}"
        rest = fit.own - fit.factors @ np.array([betas[id] for id in ids])
        found[name] = Regression(
            betas=betas, estimated=fit.estimate, errors=fit.error,
            residuals=pd.Series(rest - rest.mean(), index=fit.days), n=len(fit.own),
            window=f"{span(fit.days)}, {words}", notes=fit.notes,
        )  # fmt: skip
    return found | {name: _stand_in(name, found, ids, sectors or {}, market, as_of) for name in halted}


def _sectors(book: Book) -> dict[str, str]:
    """The sectors of holdings that name one, by series."""
    return {one.series: one.sector for one in book.holdings if one.series and one.sector != one.asset_class}


def _always_halted(
    name: str, levels: Mapping[str, Levels], market: MarketStore, as_of: dt.date, window: int
) -> bool:  # fmt: skip
    """Whether the days on which a name was halted leave too few returns for a regression that had enough with them."""
    shared = market.read(name, as_of).positive()[0]
    for one in levels.values():
        shared = pd.Series(shared[shared.index.isin(one.values.index)])
    still = _halted(shared.to_numpy())[-window:]
    return len(still) >= MIN_HISTORY - 1 > int((~still).sum())


def _stand_in(
    name: str,
    found: Mapping[str, Regression],
    ids: Sequence[str],
    sectors: Mapping[str, str],
    market: MarketStore,
    as_of: dt.date,
) -> Regression:
    """The betas that stand in for those of a halted name."""
    peers = [one for other, one in found.items() if name in sectors and sectors.get(other) == sectors[name]]
    if len(peers) >= MIN_NAMES:
        betas = {id: float(np.mean([one.betas[id] for one in peers])) for id in ids}
        source = f"the mean of {len(peers)} names of its sector {sectors[name]!r}"
    else:
        betas = {id: 1.0 if at == 0 else 0.0 for at, id in enumerate(ids)}
        source = f"that of {ids[0]} itself"
    since = market.halted_since(name, as_of)
    when = f"halted since {since}" if since else "halted on most of its days"
    words = ", ".join(f"{id} {beta:.2f}" for id, beta in betas.items())
    note = f"{when}: its closes tell no beta, and {source} stands in ({words}); give its beta in the portfolio"
    return Regression(betas, {}, {}, pd.Series(dtype="float64"), 0, f"stand-in, {when}", (note,))


@dataclass(frozen=True)
class _Fit:
    estimate: dict[str, float]
    error: dict[str, float]
    own: np.ndarray  # (n,)
    factors: np.ndarray  # (n, K)
    days: pd.Index
    notes: tuple[str, ...]


def _fit(
    name: str,
    levels: dict[str, Levels],
    drivers: dict[str, Driver],
    market: MarketStore,
    as_of: dt.date,
    window: int,
) -> _Fit:
    seen = market.read(name, as_of)
    prices, breaks = seen.positive()
    columns = {"own": prices} | {f"factor {id}": one.values for id, one in levels.items()}
    table = pd.concat(columns, axis="columns", join="inner")
    halted = _halted(table["own"].to_numpy())
    broken = crosses(table.index, breaks)
    for one in levels.values():
        broken |= crosses(table.index, one.breaks)
    moves = {"own": one_step(table["own"].to_numpy(), "return")}
    moves |= {id: one_step(table[f"factor {id}"].to_numpy(), drivers[id].unit) for id in levels}
    frame = pd.DataFrame(moves, index=table.index[1:]).loc[~halted & ~broken].tail(window)
    if len(frame) < MIN_HISTORY - 1:
        raise InputError(f"{name!r} has {len(frame)} returns on days shared with {', '.join(levels)}, too few",
                         fix="give its beta in the portfolio, or use fewer regressors")  # fmt: skip
    own, factors = pd.Series(frame["own"]).to_numpy(), pd.DataFrame(frame[list(levels)]).to_numpy()
    centred = factors - factors.mean(axis=0)
    scale = centred.std(axis=0)
    if (scale == 0).any() or np.linalg.eigvalsh(np.atleast_2d(np.cov(centred / scale, rowvar=False)))[0] < 1e-8:
        raise InputError(f"the regressors {', '.join(levels)} are collinear on the days of {name!r}",
                         fix="leave one of them out")  # fmt: skip
    inverse = np.linalg.inv(centred.T @ centred)
    betas = inverse @ (centred.T @ (own - own.mean()))
    rest = own - own.mean() - centred @ betas
    variance = float(rest @ rest) / (len(own) - len(levels) - 1)
    errors = np.sqrt(variance * np.diag(inverse))
    notes: list[str] = []
    if seen.stale:
        notes.append(f"its history ended on {seen.last}, {seen.age_days} days before {as_of}")
    if left := int(halted[-window:].sum()):
        notes.append(f"{left} returns of {HALTED_DAYS} or more unchanged closes in a row are left out (halted)")
    ids = list(levels)
    return _Fit(dict(zip(ids, betas.tolist(), strict=True)), dict(zip(ids, errors.tolist(), strict=True)),
                own, factors, frame.index, tuple(notes))  # fmt: skip


def _halted(prices: np.ndarray) -> np.ndarray:
    """Which returns, (n − 1,), lie in a run of `HALTED_DAYS` or more unchanged closes."""
    found = np.zeros(max(0, len(prices) - 1), dtype=bool)
    for start, end in halts(prices):
        found[start:end] = True
    return found
