"""The outcome back-test: eight windows, nothing known from after the day before but the factors, honest ranks."""

import dataclasses
import datetime as dt

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from finllm.errors import InputError
from finllm.scenarios import PORTFOLIOS_DIR
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.market import MarketStore, Series
from finllm.tools.pnl.backtest import METHODS, Backtest, Method, backtest
from finllm.tools.pnl.episodes import EPISODES, Episode

MARKET = MarketStore()
BOOK = load_portfolio(PORTFOLIOS_DIR / "default.csv")
DOWNGRADE = EPISODES["downgrade-2011"]


def portfolio_of(*positions: Position) -> Portfolio:
    return Portfolio(name="test", uri="file:///test", sha256="0" * 64, positions=positions)


def equity(id: str, value: float = 1e6) -> Position:
    return Position(id=id, currency="USD", asset_class="equity", market_value=value, sector="x")


@pytest.fixture(scope="module")
def plain() -> Backtest:
    return backtest(BOOK, MARKET, method="index")


def test_each_window_knows_nothing_later_than_the_day_before(plain: Backtest) -> None:
    assert [(one.window.start, one.window.end) for one in plain.windows] == [
        (one.start, one.end) for one in EPISODES.values()
    ]
    assert all(one.as_of < one.window.start for one in plain.windows)
    assert plain.windows[0].as_of == dt.date(1998, 7, 16)


def test_the_books_sign_is_right_in_all_eight_windows(plain: Backtest) -> None:
    assert plain.signs_right == len(plain.windows) == 8
    assert all(one.predicted < 0 and one.realised < 0 for one in plain.windows)


def test_ranks_are_as_documented_and_sizes_alone_rank_p_and_l(plain: Backtest) -> None:
    """The bar is 0.5. Of P&L it is met, but not thanks to the betas; of returns it takes more factors than one."""
    assert plain.rank == pytest.approx(0.76, abs=0.01)
    assert plain.rank_naive == pytest.approx(0.77, abs=0.01)
    assert plain.rank_returns == pytest.approx(0.24, abs=0.01)
    engine = backtest(BOOK, MARKET, method="engine")
    assert engine.rank_returns == pytest.approx(0.16, abs=0.01)  # lower: in 2008 oil halved, and energy did not follow
    informed = backtest(BOOK, MARKET, method="components")
    assert informed.rank_returns == pytest.approx(0.51, abs=0.01)
    assert informed.signs_right == 8
    assert informed.mae < plain.mae


def test_measures_are_those_of_scipy_and_numpy(plain: Backtest) -> None:
    for one in plain.windows:
        guess = np.array([row.predicted_return for row in one.positions])
        truth = np.array([row.realised_return for row in one.positions])
        assert one.rank_returns == pytest.approx(spearmanr(guess, truth)[0], abs=1e-12)
        assert one.bias == pytest.approx((guess - truth).mean(), abs=1e-12)
        assert one.mae == pytest.approx(np.abs(guess - truth).mean(), abs=1e-12)
        assert one.predicted == sum(row.predicted for row in one.positions)
        assert one.realised == sum(row.realised for row in one.positions)


def test_a_prediction_is_the_beta_of_before_times_the_indexs_move(plain: Backtest) -> None:
    lehman = plain.windows[1]
    xom = next(row for row in lehman.positions if row.id == "XOM")
    before = dt.date(2008, 9, 11)
    own = MARKET.read("XOM", before).values.pct_change().iloc[-504:]
    index = MARKET.read("SP500", before).values.pct_change().iloc[-504:]
    slope = np.polyfit(index, own, 1)[0]
    assert xom.predicted_return == pytest.approx(slope * -0.398866, abs=1e-5)
    window = MARKET.window("XOM", lehman.window.start, lehman.window.end, as_of=lehman.window.end)
    assert xom.realised_return == pytest.approx(window.iloc[-1] / window.iloc[0] - 1, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_stocks_own_future_changes_no_prediction_of_it(method: Method) -> None:
    """Look-ahead is tried for: the stock's prices from the window's start on are replaced."""
    series = {name: MARKET.read(name, dt.date(2022, 12, 28)).series for name in MARKET.names()}
    prices = series["JPM"].values.copy()
    prices[prices.index >= pd.Timestamp(DOWNGRADE.start)] *= np.linspace(
        1, 3, int((prices.index >= pd.Timestamp(DOWNGRADE.start)).sum())
    )
    other = MarketStore.of([*series.values(), dataclasses.replace(series["JPM"], values=prices)])
    true, altered = (
        next(row for row in backtest(BOOK, market, method=method, windows=[DOWNGRADE]).windows[0].positions
             if row.id == "JPM")
        for market in (MARKET, other)
    )  # fmt: skip
    assert altered.predicted == true.predicted
    assert altered.realised > true.realised


@pytest.mark.parametrize("method", METHODS)
def test_the_index_predicts_itself(method: Method) -> None:
    index = Position(id="SP500", currency="USD", asset_class="index", market_value=1e6)
    result = backtest(portfolio_of(index, equity("AAPL"), equity("XOM")), MARKET, method=method, windows=[DOWNGRADE])
    row = next(row for row in result.windows[0].positions if row.id == "SP500")
    assert float(row.predicted) == pytest.approx(float(row.realised), abs=0.02)


def test_a_short_position_gains_when_the_market_falls() -> None:
    result = backtest(portfolio_of(equity("AAPL", -1e6)), MARKET, windows=[DOWNGRADE])
    one = result.windows[0]
    assert one.predicted > 0
    assert one.realised > 0
    assert one.rank is None


def test_what_has_no_prices_is_named_and_not_compared(plain: Backtest) -> None:
    for one in plain.windows:
        assert set(one.left_out) == {"WTI_FRONT", "BAA_CORP_7Y"}
        assert len(one.positions) == 20


def late(name: str, start: str) -> Series:
    days = pd.date_range(start, "2022-12-28", freq="B")
    values = pd.Series(np.linspace(10, 20, len(days)), index=days, name=name)
    return Series(name, values, "price", "daily", "file:///late", "0" * 64)


def test_a_stock_listed_later_is_left_out_of_earlier_windows() -> None:
    market = MarketStore((), [late("NEW", "2016-01-04")])
    result = backtest(portfolio_of(equity("NEW")), market)
    assert set(result.refused) == {"russia-ltcm-1998", "lehman-2008", "downgrade-2011", "taper-2013", "renminbi-2015"}
    assert len(result.windows) == 3


def test_nothing_to_compare_at_all_is_refused_with_the_mend() -> None:
    bond = Position(id="B", currency="USD", asset_class="bond", market_value=1e6, duration=5.0)
    with pytest.raises(InputError, match="no window can be back-tested") as caught:
        backtest(portfolio_of(bond), MARKET)
    assert caught.value.fix


def test_a_window_outside_the_data_is_refused() -> None:
    future = Episode("future", "Later", dt.date(2023, 1, 3), dt.date(2023, 2, 3))
    result = backtest(BOOK, MARKET, windows=[DOWNGRADE, future])
    assert list(result.refused) == ["future"]


def test_it_survives_json(plain: Backtest) -> None:
    assert Backtest.model_validate_json(plain.model_dump_json()) == plain
