"""Bands by hand: nothing open, one share, readings as a mixture, the market of a non-event, the path, the levels."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.factors import Direction, UserShock
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.own_risk import student
from finllm.tools.pnl.shocks import JudgedShock

AS_OF = dt.date(2018, 6, 29)
MARKET = MarketStore()


def book_of(*holdings: dict[str, object]) -> Book:
    held = tuple(Holding.model_validate({"sector": "x", "market_value": 1e6, **one}) for one in holdings)
    return Book(name="test", as_of=AS_OF, sha256="0" * 64, holdings=held, exclusions=(), notes=())


SHARE = book_of({"id": "XOM", "asset_class": "equity", "series": "XOM"})
INDEX = book_of({"id": "SP500", "asset_class": "index", "series": "SP500"})


def shock(move: float) -> UserShock:
    return UserShock(factor="EQUITY_US", amount=move, in_sigmas=False)


def test_cash_has_no_width() -> None:
    engine = Engine(book_of({"id": "CASH", "asset_class": "cash"}), MARKET, AS_OF)
    found = engine.stress(engine.plan(20, user=[shock(-0.1)]))
    assert found.interval is None or found.interval.lower == found.interval.upper == 0


def season_of(days: pd.DatetimeIndex) -> np.ndarray:
    return np.where([day.month in (1, 4, 7, 10) for day in days], 1.25, 0.875)


def test_one_share_is_a_students_t_at_the_volatility_of_the_day() -> None:
    """Variance by hand: squares of residuals, the season out, by 0.97 a day, half way to their mean a quarter."""
    engine = Engine(SHARE, MARKET, AS_OF)
    found = engine.stress(engine.plan(20, user=[shock(0.0)]), propagate=False)
    rest = 1e6 * engine.sens.regressions["XOM"].residuals
    squares = rest**2 / season_of(pd.DatetimeIndex(rest.index))
    weights = 0.97 ** np.arange(len(squares))[::-1]
    now, mean = np.average(squares, weights=weights), squares.mean()
    coming = pd.bdate_range(AS_OF + dt.timedelta(days=1), periods=20)
    season = season_of(coming)  # July: all of them in the season of results
    variance = float(((mean + (now - mean) * 0.5 ** (np.arange(1, 21) / 63)) * season).sum()) * (1 + 20 / 504)
    far = float(t.ppf(0.95, 504 / 20 - 1)) * math.sqrt(variance)
    assert found.interval is not None
    assert float(found.interval.upper) == pytest.approx(far, rel=0.002)
    assert float(found.interval.lower) == pytest.approx(-far, rel=0.002)


def test_a_wrong_load_counts_by_how_far_the_factor_goes() -> None:
    engine = Engine(SHARE, MARKET, AS_OF)
    bands = [engine.stress(engine.plan(20, user=[shock(move)]), propagate=False).interval for move in (0.0, -0.1, -0.3)]
    shares = [band.parts["errors of loads"] for band in bands if band]
    assert shares[0] == pytest.approx(0.0, abs=1e-9)
    assert shares[0] < shares[1] < shares[2]


def test_a_band_that_is_drawn_out_to_its_point_says_so() -> None:
    """An extreme fall that a text is read to mean: nine in ten of what may come lies above it."""
    engine = Engine(INDEX, MARKET, AS_OF)
    far = engine.stress(engine.plan(20, judged=[JudgedShock("EQUITY_US", "down", "extreme")]))
    plain = engine.stress(engine.plan(20, user=[shock(-0.2)]))
    assert far.interval is not None
    assert plain.interval is not None
    assert far.interval.lower == far.total
    assert far.interval.ends_at(far.total)
    assert not plain.interval.ends_at(plain.total)


@pytest.mark.parametrize("freedom", [4.0, 24.2, 30.0])
def test_quantiles_of_t_are_those_of_scipy(freedom: float) -> None:
    drawn = student(4000, freedom)
    for level, off in ((0.05, 0.002), (0.5, 0.0), (0.95, 0.002), (0.99, 0.012)):  # of four degrees it is 1 % off there
        assert np.quantile(drawn, level) == pytest.approx(t.ppf(level, freedom), rel=off, abs=0.001)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_what_a_text_is_read_to_mean_sets_the_point_and_the_market_the_band(direction: Direction) -> None:
    """The market goes as a text is read no more often than a coin falls: its band is about no move, either way."""
    engine = Engine(INDEX, MARKET, AS_OF)
    plan = engine.plan(20, judged=[JudgedShock("EQUITY_US", direction, "small")])
    found = engine.stress(plan)
    sigma = engine.joint(plan).near({"EQUITY_US": plan.shocks["EQUITY_US"].move})[0].sigma("EQUITY_US")
    assert (found.total > 0) == (direction == "up")
    assert found.interval is not None
    assert float(found.interval.upper) / 1e6 == pytest.approx(1.645 * sigma, rel=0.05)
    assert float(found.interval.lower) / 1e6 == pytest.approx(-1.645 * sigma, rel=0.05)
    assert "whatever is read of EQUITY_US" in found.interval.method


def test_beside_what_a_person_gives_the_market_goes_on_from_there_whatever_is_read() -> None:
    """Shares given, the VIX read: the band of the given shock, and never that of the market at rest."""
    engine = Engine(INDEX, MARKET, AS_OF)
    plan = engine.plan(20, user=[shock(-0.1)], judged=[JudgedShock("VIX", "up", "large")])
    band, alone = engine.stress(plan).interval, engine.stress(engine.plan(20, user=[shock(-0.1)])).interval
    assert band is not None
    assert alone is not None
    assert (band.lower, band.upper) == (alone.lower, alone.upper)


def test_parts_add_to_the_whole_and_given_shocks_are_not_read_otherwise() -> None:
    engine = Engine(SHARE, MARKET, AS_OF)
    band = engine.stress(engine.plan(20, user=[shock(-0.1)])).interval
    assert band is not None
    assert sum(band.parts.values()) == pytest.approx(1.0)
    assert set(band.parts) == {"other factors", "positions' own", "errors of loads"}
    assert "of which no other reading is drawn" in band.method


def test_each_day_of_the_path_has_its_own_rule() -> None:
    engine = Engine(INDEX, MARKET, AS_OF)
    found = engine.stress(engine.plan(60))
    assert [row.horizon for row in found.by_day] == list(range(1, 61))
    assert found.by_day[-1].upper == found.interval.upper  # pyright: ignore[reportOptionalMemberAccess]
    widths = {row.horizon: float(row.upper - row.lower) for row in found.by_day}  # pyright: ignore
    sigma = {days: engine.view.size("EQUITY_US", days).sigma.value for days in (5, 20, 60)}  # pyright: ignore
    for days in (5, 20):
        assert widths[days] / widths[60] == pytest.approx(sigma[days] / sigma[60], rel=0.12)
    assert {row.horizon for row in found.by_horizon} == {1, 5, 10, 20, 60}


@pytest.mark.parametrize(
    ("days", "level", "name"),
    [(20, 0.9, "90% band"), (250, 0.9, "model band of 90%, level not tested"),
     (20, 0.99, "model band of 99%, level not tested")],
)  # fmt: skip
def test_no_band_is_called_by_a_level_that_was_not_tested(days: int, level: float, name: str) -> None:
    engine = Engine(SHARE, MARKET, AS_OF)
    band = engine.stress(engine.plan(days, user=[shock(-0.1)]), level=level).interval
    assert band is not None
    assert band.name == name
    assert bool(band.untested) == ("not tested" in name)


def test_the_band_holds_what_happened_in_most_months() -> None:
    """Two dozen months of a crisis and a calm, given what the index did; docs/numbers.md has all of them."""
    names = ("AAPL", "BAC", "CVX", "GE", "JNJ", "JPM", "KO", "MSFT", "PG", "XOM")
    prices = {name: MARKET.read(name, dt.date(2022, 12, 28)).values for name in (*names, "SP500")}
    days_of = pd.DatetimeIndex(prices["SP500"].index)
    ends = pd.DatetimeIndex(days_of.to_series().groupby(days_of.to_period("M")).max())
    held = 0
    months = [(start, end) for start, end in itertools.pairwise(ends) if end.year in (2008, 2013)]
    for start, end in months:
        rows: list[dict[str, object]] = [{"id": name, "asset_class": "equity", "series": name} for name in names]
        engine = Engine(book_of(*rows), MARKET, start.date())
        days = int(np.busday_count(start.date(), end.date()))
        move = float(prices["SP500"][end] / prices["SP500"][start] - 1)
        band = engine.stress(engine.plan(days, user=[shock(move)])).interval
        truth = sum(1e6 * float(prices[name][end] / prices[name][start] - 1) for name in names)
        assert band is not None
        held += float(band.lower) <= truth <= float(band.upper)
    assert held >= 0.75 * len(months)


def two_rhythms(folder: Path, seed: int, beta: float = 0.0) -> tuple[MarketStore, dt.date]:
    """A random path of 1 % a day, beside `beta` times the index's: as DAYX on all days, and as WEEKX on Fridays."""
    day = dt.date(2022, 6, 30)
    index = MARKET.read("SP500", day).values.tail(2600)
    moves = beta * index.pct_change().fillna(0.0).to_numpy() + np.random.default_rng(seed).normal(0.0, 0.01, len(index))
    daily = pd.Series(100 * np.cumprod(1 + moves), index=index.index)
    weekly = daily[[stamp.weekday() == 4 for stamp in pd.DatetimeIndex(daily.index)]]
    for name, path in (("DAYX", daily), ("WEEKX", pd.Series(weekly))):
        (folder / f"{name}.csv").write_text(path.to_frame(name).to_csv(index_label="date"))
    return MarketStore([folder / "DAYX.csv", folder / "WEEKX.csv"]), day


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_weekly_prices_give_the_band_and_the_var_of_daily_ones(tmp_path: Path, beta: float) -> None:
    """Of six paths each weekly band is that of the known 1 %, by hand, and none is wider or narrower by its rhythm.

    Single pairs differ by more: an average of 0.97 a day is of some 65 squares, and itself up to a third off.
    """
    coming = pd.bdate_range(dt.date(2022, 7, 1), periods=20)
    known = 2 * float(t.ppf(0.95, 30)) * 1e4 * math.sqrt(season_of(coming).sum() * (1 + 20 / 2520))
    bands: dict[str, list[float]] = {"DAYX": [], "WEEKX": []}
    losses: dict[str, list[float]] = {"DAYX": [], "WEEKX": []}
    for seed in range(1, 7):
        market, day = two_rhythms(tmp_path, seed, beta)
        for name in ("DAYX", "WEEKX"):
            engine = Engine(book_of({"id": name, "asset_class": "equity", "series": name}), market, day)
            found = engine.stress(engine.plan(20, user=[shock(-0.01)]), propagate=False)
            assert found.interval is not None
            assert found.var_975_1d is not None
            bands[name].append(float(found.interval.upper - found.interval.lower))
            losses[name].append(float(found.var_975_1d.loss))
            assert ("√(1/5)" in found.interval.method) == (name == "WEEKX")
            assert (name in found.var_975_1d.window) == (name == "WEEKX")
    assert bands["WEEKX"] == pytest.approx([known] * 6, rel=0.25)
    for pair in (bands, losses):
        ratios = np.array(pair["WEEKX"]) / np.array(pair["DAYX"])
        assert np.exp(np.log(ratios).mean()) == pytest.approx(1.0, rel=0.12)
        assert np.median(np.abs(ratios - 1)) < 0.25


def test_beside_weekly_prices_daily_ones_are_taken_by_week(tmp_path: Path) -> None:
    """Long the daily and short the weekly prices of one path: little is left, as days beside weeks would not show."""
    market, day = two_rhythms(tmp_path, 1)
    both: list[dict[str, object]] = [{"id": "DAYX", "asset_class": "equity", "series": "DAYX"},
            {"id": "WEEKX", "asset_class": "equity", "series": "WEEKX", "market_value": -1e6}]  # fmt: skip
    own = [Engine(book_of(*rows), market, day).own.variance[19] for rows in (both, both[1:])]
    assert own[0] < 0.05 * own[1]


def test_few_days_beside_weekly_prices_do_not_thin_them_out(tmp_path: Path) -> None:
    """A share listed for 100 days has 20 weeks: it and weekly prices add up as two of 1 % a day that know no other."""
    two_rhythms(tmp_path, 1)
    daily = pd.read_csv(tmp_path / "DAYX.csv", index_col="date", parse_dates=True)["DAYX"]
    other = 100 * np.cumprod(1 + np.random.default_rng(9).normal(0.0, 0.01, 100))
    pd.Series(other, index=daily.index[-100:], name="NEWX").to_csv(tmp_path / "NEWX.csv", index_label="date")
    market, day = MarketStore([tmp_path / "NEWX.csv", tmp_path / "WEEKX.csv"]), dt.date(2022, 6, 30)
    rows: list[dict[str, object]] = [
        {"id": name, "asset_class": "equity", "series": name} for name in ("NEWX", "WEEKX")
    ]
    alone = [Engine(book_of(one), market, day).own.variance[19] for one in rows]
    assert Engine(book_of(*rows), market, day).own.variance[19] == pytest.approx(sum(alone), rel=0.4)


def test_a_factor_that_is_held_still_has_no_width_but_by_being_read_to_move() -> None:
    """A bond under a shock of shares: held, its rate has no width; one that is read moves as the market may."""
    bond = book_of({"id": "B", "asset_class": "bond", "duration": 7.0, "convexity": 60.0})
    engine = Engine(bond, MARKET, AS_OF)
    read = JudgedShock("RATE_US_10Y", "up", "small")
    held = engine.stress(engine.plan(20, user=[shock(-0.1)]), propagate=False).interval
    free, moved = (engine.stress(engine.plan(20, user=[shock(-0.1)], judged=judged), propagate=on).interval
                   for judged, on in (((), None), ([read], False)))  # fmt: skip
    assert held is None or held.upper == held.lower
    assert free is not None
    assert moved is not None
    assert free.upper - free.lower > 0
    assert float(moved.upper - moved.lower) == pytest.approx(float(free.upper - free.lower), rel=0.5)
    shares = engine.stress(engine.plan(20, user=[UserShock(factor="RATE_US_10Y", amount=50, in_sigmas=False)],
                                       judged=[read]), propagate=False).interval  # fmt: skip
    assert shares is None or shares.upper == shares.lower, "what a person gives stays"
