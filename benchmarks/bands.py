"""How often bands held what happened: months given the index's move, and VaR after the shocks of known windows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from finllm.scenarios import PORTFOLIOS_DIR
from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import UserShock
from finllm.tools.data.market import INDEX, MarketStore, day_of
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.episodes import EPISODES
from finllm.tools.pnl.history import days_between
from finllm.tools.pnl.shocks import Plan, replayed
from finllm.tools.pnl.sizes import FactorView

MARKET = MarketStore()
BOOK = load_portfolio(PORTFOLIOS_DIR / "default.csv")
LATEST = dt.date(2022, 12, 28)
FIRST_YEAR = 1994
CRISIS = (2007, 2008, 2009)
LEVEL = 0.9


@dataclass(frozen=True)
class Month:
    """A band made at the close before, given what the index did, and what the book did, in USD."""

    start: dt.date
    end: dt.date
    lower: float
    upper: float
    point: float
    truth: float
    value: float

    @property
    def held(self) -> bool:
        return self.lower <= self.truth <= self.upper


def months(kinds: Sequence[str], steps: int = 1, *, reporting: bool = False) -> list[Month]:
    """Every month from 1994 to 2022, close to close (`steps` months each), of the positions of these asset classes.

    `reporting`: those alone that begin a quarter, in which most companies report: 116 of them. What was held: shares at
    their prices; oil at the packaged price while it lasts; a bond by duration and convexity on the packaged yield of
    BAA bonds, which is a mean of each month.
    """
    index = MARKET.read(INDEX, LATEST).values
    last = [group.index[-1] for _month, group in index.groupby(pd.DatetimeIndex(index.index).to_period("M"))]
    found: list[Month] = []
    for start, end in zip(last[:-steps], last[steps:], strict=True):
        first = last[last.index(start) + 1]
        if day_of(first).year < FIRST_YEAR or (reporting and first.month % 3 != 1):
            continue
        one = _month(kinds, day_of(start), day_of(end), index)
        if one is not None:
            found.append(one)
    return found


def _month(kinds: Sequence[str], start: dt.date, end: dt.date, index: pd.Series) -> Month | None:
    whole = value_portfolio(BOOK, MARKET, start)
    truth = {one.id: _gain(one, start, end) for one in whole.holdings if one.asset_class in kinds}
    if any(gain is None for gain in truth.values()):
        return None
    book = whole.model_copy(update={"holdings": tuple(one for one in whole.holdings if one.id in truth)})
    days = int(index.index.get_loc(pd.Timestamp(end)) - index.index.get_loc(pd.Timestamp(start)))
    move = float(index[pd.Timestamp(end)] / index[pd.Timestamp(start)] - 1)
    band, point = band_of(book, start, days, move)
    return Month(start, end, *band, point, sum(gain or 0.0 for gain in truth.values()), book.value)


def band_of(book: Book, as_of: dt.date, days: int, move: float) -> tuple[tuple[float, float], float]:
    engine = Engine(book, MARKET, as_of)
    plan = engine.plan(days, user=[UserShock(factor="EQUITY_US", amount=move, in_sigmas=False)])
    found = engine.stress(plan, level=LEVEL)
    assert found.interval is not None
    return (float(found.interval.lower), float(found.interval.upper)), float(found.total)


def _gain(one: Holding, start: dt.date, end: dt.date) -> float | None:
    """What a position gained, USD; None where nothing tells."""
    if one.asset_class == "equity":
        prices = MARKET.read(one.series or one.id, end).values
        return one.market_value * float(prices[pd.Timestamp(end)] / prices[pd.Timestamp(start)] - 1)
    series = "WTI" if one.asset_class == "commodity" else "BAA"
    levels = MARKET.read(series, LATEST).values
    before, after = levels[levels.index <= pd.Timestamp(start)], levels[levels.index <= pd.Timestamp(end)]
    if (end - day_of(after.index[-1])).days > 35:
        return None
    if series == "WTI":
        return one.market_value * float(after.iloc[-1] / before.iloc[-1] - 1)
    change = float(after.iloc[-1] - before.iloc[-1]) / 100
    years, convexity = one.duration or 0.0, one.convexity or 0.0
    return one.market_value * float(np.expm1(-years * change + 0.5 * (convexity - years**2) * change**2))


def share(found: Sequence[Month]) -> float:
    return float(np.mean([one.held for one in found]))


AFTERWARDS = 60
"""Trading days after a window on which its VaR after the shock is tried."""


def exceedances() -> tuple[int, int]:
    """Days on which shares lost more than the one-day VaR after the shock, and days tried, after the eight windows.

    The VaR is that of the day before a window, after what the factors then did over it.
    """
    beyond = tried = 0
    for window in EPISODES.values():
        before = window.start - dt.timedelta(days=1)
        whole = value_portfolio(BOOK, MARKET, before)
        book = whole.model_copy(update={"holdings": tuple(h for h in whole.holdings if h.asset_class == "equity")})
        engine = Engine(book, MARKET, before)
        shocks = {shock.factor: shock for shock in replayed(FactorView(engine.view.factors, MARKET, window.end),
                                                            (window.start, window.end))[0]}  # fmt: skip
        after = engine.stress(Plan(shocks, horizon=days_between(window.start, window.end))).var_975_1d_after
        assert after is not None
        index = MARKET.read(INDEX, LATEST).values
        coming = index.index[index.index >= pd.Timestamp(window.end)][: AFTERWARDS + 1]
        held = {one.id: one.market_value / float(MARKET.read(one.series or one.id, before).values.iloc[-1])
                for one in book.holdings}  # fmt: skip
        prices = pd.DataFrame({name: MARKET.read(name, LATEST).values.reindex(coming) for name in held})
        gains = (prices.diff().iloc[1:] * pd.Series(held)).sum(axis="columns")
        beyond += int((gains < -float(after.loss)).sum())
        tried += len(gains)
    return beyond, tried
