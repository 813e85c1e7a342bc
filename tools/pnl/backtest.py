"""Outcome back-test: what the betas of the day before would have said in eight known windows, against what happened."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from finllm.errors import InputError
from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.books.position import Portfolio
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import Shock
from finllm.tools.data.market import INDEX, MarketStore, day_of
from finllm.tools.pnl.betas import FIRST, regress
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.episodes import EPISODES, Episode
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.outcome import Cents, usd
from finllm.tools.pnl.sensitivity import currencies_of
from finllm.tools.pnl.shocks import Plan, replayed
from finllm.tools.pnl.sizes import FactorView

Method = Literal["engine", "index", "sectors", "components"]
METHODS: tuple[Method, ...] = get_args(Method)
MIN_STOCKS = 3
"""With fewer there is no rank correlation to speak of."""
BETA_DAYS = 504
COMPONENT_DAYS = 252
COMPONENTS = 12


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class StockOutcome(_Frozen):
    """One position: its value on the day before, USD, and its predicted and realised P&L (USD) and return (decimal)."""

    id: str
    sector: str
    market_value: Cents
    predicted: Cents
    realised: Cents
    predicted_return: float
    realised_return: float


class WindowOutcome(_Frozen):
    """One window. `as_of`: the last day that the betas and the values know of, before `window.start`.

    `factors`: the observed moves, in their own units. `bias` (mean of predicted minus realised) and `mae` are of the
    returns, decimal. `rank`: Spearman's correlation of predicted and realised P&L across positions, `rank_returns` that
    of returns, and `rank_naive` that of P&L had every beta been one; None with fewer than three positions or without
    any spread. `spread` is the standard deviation across positions of predicted over that of realised returns.
    """

    window: Episode
    as_of: dt.date
    factors: dict[str, float]
    positions: tuple[StockOutcome, ...]
    predicted: Cents
    realised: Cents
    book_value: Cents
    sign_right: bool
    bias: float
    mae: float
    rank: float | None
    rank_returns: float | None
    rank_naive: float | None
    spread: float | None
    left_out: dict[str, str]


class Backtest(_Frozen):
    """All windows of a portfolio. `rank` and `rank_returns`: averages over the windows that have one."""

    portfolio: str
    method: Method
    how: str
    windows: tuple[WindowOutcome, ...]
    refused: dict[str, str]
    signs_right: int
    rank: float | None
    rank_returns: float | None
    rank_naive: float | None
    bias: float
    mae: float


Predict = Callable[[Book, MarketStore, Episode, dt.date], Mapping[str, float]]
"""P&L in USD by position from what was known at the given day and the observed factor moves of the window alone."""


def backtest(
    portfolio: Portfolio,
    market: MarketStore,
    *,
    method: Method = "engine",
    windows: Sequence[Episode] = tuple(EPISODES.values()),
) -> Backtest:
    """Replay each window with sensitivities estimated up to the day before it and only the observed factor moves.

    Compared are equities and indices with prices of their own over the window; every other position is named in
    `left_out`. Values and betas are of the day before, so quantities are what they are in the portfolio, at the prices
    of then. Windows in which nothing can be compared are in `refused`. Errors: InputError if that is all of them.
    """
    how, predict = _PREDICT[method]
    done: list[WindowOutcome] = []
    refused: dict[str, str] = {}
    for window in windows:
        try:
            done.append(_outcome(portfolio, market, window, predict))
        except InputError as error:
            refused[window.id] = error.message
    if not done:
        reasons = "; ".join(f"{name}: {why}" for name, why in refused.items())
        raise InputError(f"no window can be back-tested with portfolio {portfolio.name!r} ({reasons})",
                         fix="give equities of the packaged data, or add their prices")  # fmt: skip
    return Backtest(
        portfolio=portfolio.name, method=method, how=how, windows=tuple(done), refused=refused,
        signs_right=sum(one.sign_right for one in done),
        rank=_mean([one.rank for one in done]), rank_returns=_mean([one.rank_returns for one in done]),
        rank_naive=_mean([one.rank_naive for one in done]),
        bias=float(np.mean([one.bias for one in done])), mae=float(np.mean([one.mae for one in done])),
    )  # fmt: skip


def _outcome(portfolio: Portfolio, market: MarketStore, window: Episode, predict: Predict) -> WindowOutcome:
    before = window.start - dt.timedelta(days=1)
    whole = value_portfolio(portfolio, market, before)
    left_out = {one.id: one.reason for one in whole.exclusions}
    realised: dict[str, float] = {}
    for holding in whole.holdings:
        reason, own = _own_return(holding, market, window)
        if own is None:
            left_out[holding.id] = reason
        else:
            realised[holding.id] = own
    book = whole.model_copy(update={"holdings": tuple(one for one in whole.holdings if one.id in realised)})
    if not book.holdings:
        raise InputError(f"no position has prices from {before} to {window.end}", fix="add a price file")
    predicted = predict(book, market, window, before)
    rows = tuple(_row(one, predicted[one.id], realised[one.id]) for one in book.holdings)
    gains, truth = _columns(rows, "predicted"), _columns(rows, "realised")
    guesses, returns = _columns(rows, "predicted_return"), _columns(rows, "realised_return")
    total, outcome = sum(one.predicted for one in rows), sum(one.realised for one in rows)
    index = _move(market, INDEX, window)
    return WindowOutcome(
        window=window, as_of=market.read(INDEX, before).last, positions=rows,
        factors={shock.factor: shock.move for shock in _observed(book, market, window)},
        predicted=usd(float(total)), realised=usd(float(outcome)), book_value=usd(book.value),
        sign_right=(total > 0) == (outcome > 0),
        bias=float((guesses - returns).mean()), mae=float(np.abs(guesses - returns).mean()),
        rank=_spearman(gains, truth), rank_returns=_spearman(guesses, returns),
        rank_naive=_spearman(index * _columns(rows, "market_value"), truth),
        spread=float(guesses.std() / returns.std()) if returns.std() > 0 else None, left_out=left_out,
    )  # fmt: skip


def _own_return(holding: Holding, market: MarketStore, window: Episode) -> tuple[str, float | None]:
    """The position's own return over the window in dollars, or why it has none that could be compared."""
    if holding.asset_class not in ("equity", "index") or not holding.series:
        return f"{holding.asset_class} without prices of its own: nothing realised to compare with", None
    try:
        own = _move(market, holding.series, window)
        return "", own if holding.fx_factor is None else (1 + own) * (1 + _move(market, holding.fx_factor, window)) - 1
    except InputError as error:
        return error.message, None


def _move(market: MarketStore, name: str, window: Episode) -> float:
    values = market.window(name, window.start, window.end, as_of=window.end)
    return float(values.iloc[-1] / values.iloc[0] - 1)


def _observed(book: Book, market: MarketStore, window: Episode) -> list[Shock]:
    """The factors' moves over the window, as they were seen at its end."""
    view = FactorView(FactorSet.default(market).with_currencies(market, currencies_of(book)), market, window.end)
    return replayed(view, (window.start, window.end))[0]


def _row(holding: Holding, predicted: float, realised: float) -> StockOutcome:
    value = holding.market_value
    return StockOutcome(
        id=holding.id, sector=holding.sector, market_value=usd(value), predicted=usd(predicted),
        realised=usd(value * realised), predicted_return=predicted / value if value else 0.0,
        realised_return=realised,
    )  # fmt: skip


def _by_engine(book: Book, market: MarketStore, window: Episode, before: dt.date) -> Mapping[str, float]:
    """The engine's own P&L under the observed factor moves, the others completed; no own return of the window."""
    plan = Plan({shock.factor: shock for shock in _observed(book, market, window)}, horizon=1)
    cuts = Engine(book, market, before).revalue(plan)
    return {name: float(gain) for name, gain in cuts.by_position.items()}


def _by_index(book: Book, market: MarketStore, window: Episode, before: dt.date) -> Mapping[str, float]:
    """Betas to the S&P 500 alone, not shrunk."""
    index = FactorSet.default(market)[FIRST]
    names = [one.series for one in book.holdings if one.series]
    betas = regress(names, [index], market, before, shrinkage="none")
    move = _move(market, INDEX, window)
    return {one.id: one.market_value * max(-1.0, betas[one.series].betas[FIRST] * move)
            for one in book.holdings if one.series}  # fmt: skip


def _by_sectors(book: Book, market: MarketStore, window: Episode, before: dt.date) -> Mapping[str, float]:
    """Two-factor least squares: the index, and the mean return of the *other* stocks of the position's sector."""
    returns = _returns(book, market, before, BETA_DAYS)
    moves = {name: _move(market, name, window) for name in returns.columns}
    gains: dict[str, float] = {}
    for one in book.holdings:
        peers = [other.id for other in book.holdings if other.sector == one.sector and other.id != one.id]
        columns, observed = [returns[INDEX].to_numpy()], [moves[INDEX]]
        if peers and one.id != INDEX:
            columns.append(returns[peers].to_numpy().mean(axis=1))
            observed.append(float(np.mean([moves[peer] for peer in peers])))
        loads = _slopes(np.column_stack(columns), returns[one.id].to_numpy())
        gains[one.id] = one.market_value * max(-1.0, float(loads @ observed))
    return gains


def _by_components(book: Book, market: MarketStore, window: Episode, before: dt.date) -> Mapping[str, float]:
    """The index, and the twelve principal components of what the *other* positions do beside it (252 days).

    A component's move in the window is read from the other positions alone, so that no stock predicts itself.
    """
    returns = _returns(book, market, before, COMPONENT_DAYS)
    index = returns[INDEX].to_numpy()
    stocks = [one.id for one in book.holdings if one.id != INDEX]
    own = returns[stocks].to_numpy()  # (days, stocks)
    market_move = _move(market, INDEX, window)
    moves = np.array([_move(market, name, window) for name in stocks])
    betas = np.array([_slopes(index[:, None], own[:, at])[0] for at in range(len(stocks))])
    rest = own - own.mean(axis=0) - np.outer(index - index.mean(), betas)
    surprise = moves - betas * market_move
    gains = {one.id: one.market_value * market_move for one in book.holdings if one.id == INDEX}
    for at, one in enumerate(holding for holding in book.holdings if holding.id != INDEX):
        others = [other for other in range(len(stocks)) if other != at]
        beside = _component_move(rest[:, others], surprise[others], rest[:, at]) if len(others) > 1 else 0.0
        gains[one.id] = one.market_value * max(-1.0, betas[at] * market_move + beside)
    return gains


def _component_move(others: np.ndarray, surprise: np.ndarray, own: np.ndarray) -> float:
    """What `own` (days,) loads on the leading components of `others` (days, n), times their move from `surprise`.

    Scores are Thomson's, f = Λᵀ(ΛΛᵀ + Ψ)⁻¹z, on standardised residuals.
    """
    size = others.std(axis=0)
    values, vectors = np.linalg.eigh(np.corrcoef(others, rowvar=False))
    kept = min(COMPONENTS, len(values) - 1)
    loadings = vectors[:, -kept:] * np.sqrt(np.maximum(values[-kept:], 0.0))
    modelled = loadings @ loadings.T
    np.fill_diagonal(modelled, 1.0)
    weights = np.linalg.solve(modelled, loadings) / size[:, None]
    return float(_slopes(others @ weights, own) @ (surprise @ weights))


def _returns(book: Book, market: MarketStore, before: dt.date, days: int) -> pd.DataFrame:
    """Daily returns of the index and of every position on the last `days` days that all have, up to `before`."""
    names = dict.fromkeys([INDEX, *(one.id for one in book.holdings)])
    prices = pd.DataFrame({name: market.read(name, before).values for name in names}).dropna()
    returns = prices.pct_change().iloc[1:].tail(days)
    if len(returns) < days // 4:
        raise InputError(f"{len(returns)} days before {before} are shared by all positions, too few for their factors",
                         fix="leave out the youngest positions")  # fmt: skip
    assert day_of(returns.index[-1]) <= before
    return returns


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares with intercept: slopes of y (days,) on x (days, factors)."""
    return np.linalg.lstsq(x - x.mean(axis=0), y - y.mean(), rcond=None)[0]


def _spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    """Rank correlation with ties at their mean rank; None for fewer than three values or where one side is constant."""
    if len(a) < MIN_STOCKS or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    value = pd.Series(a).rank().corr(pd.Series(b).rank())
    return None if math.isnan(value) else float(value)


def _columns(rows: Sequence[StockOutcome], name: str) -> np.ndarray:
    return np.array([float(getattr(row, name)) for row in rows])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


_PREDICT: dict[Method, tuple[str, Predict]] = {
    "engine": ("loads on the S&P 500, oil and the dollar, shrunk, as the engine uses them", _by_engine),
    "index": (f"beta to the S&P 500 by least squares over {BETA_DAYS} days, not shrunk", _by_index),
    "sectors": (f"least squares over {BETA_DAYS} days on the S&P 500 and the mean of the sector's other stocks",
                _by_sectors),
    "components": (f"beta to the S&P 500 and up to {COMPONENTS} principal components of the other positions' residuals,"
                   f" over {COMPONENT_DAYS} days", _by_components),
}  # fmt: skip
