"""A valued book on the engine: history replayed to its own figures, sums exact to the cent, a band, VaR, breaches."""

import datetime as dt
import itertools
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skfolio.measures import value_at_risk

from finllm.errors import InputError, LookAheadError
from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.factors import FACTOR_IDS, UserShock
from finllm.tools.data.limits import Limits
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.limits import Known, hold
from finllm.tools.pnl.outcome import IDIOSYNCRATIC, INTERACTION, EngineResult
from finllm.tools.pnl.shocks import JudgedShock

D = dt.date
AS_OF = D(2022, 12, 28)
MARKET = MarketStore()


def held(id: str, asset_class: str, value: float, **more: object) -> Holding:
    sector = str(more.pop("sector", asset_class))
    return Holding.model_validate(
        {"id": id, "asset_class": asset_class, "sector": sector, "market_value": value, **more}
    )


def book_of(*holdings: Holding) -> Book:
    return Book(name="test", as_of=AS_OF, sha256="0" * 64, holdings=holdings, exclusions=(), notes=())


def shock(factor: str, move: float) -> UserShock:
    return UserShock(factor=factor, amount=move, in_sigmas=False)


def stressed(
    book: Book, *shocks: UserShock, replay: tuple[dt.date, dt.date] | None = None, as_of: dt.date = AS_OF,
    horizon: int = 20, judged: tuple[JudgedShock, ...] = (),
) -> EngineResult:  # fmt: skip
    engine = Engine(book, MARKET, as_of)
    return engine.stress(engine.plan(horizon, user=shocks, replay=replay, judged=judged), propagate=False)


def sums_are_exact(result: EngineResult) -> bool:
    cuts = (result.by_position, result.by_factor, result.by_sector, result.by_direction)
    return all(sum(cut.values(), Decimal(0)) == result.total for cut in cuts)


INDEX_BOOK = book_of(held("SP500", "index", 1e6, series="SP500"))


@pytest.mark.parametrize(
    ("start", "end", "percent"),
    [
        (D(1998, 7, 17), D(1998, 8, 31), -19.34),
        (D(2008, 9, 12), D(2008, 11, 20), -39.89),
        (D(2011, 7, 22), D(2011, 8, 8), -16.77),
        (D(2013, 5, 21), D(2013, 6, 24), -5.76),
        (D(2015, 8, 17), D(2015, 8, 25), -11.17),
        (D(2018, 1, 26), D(2018, 2, 8), -10.16),
        (D(2020, 2, 19), D(2020, 3, 23), -33.92),
        (D(2022, 1, 3), D(2022, 10, 12), -25.43),
    ],
)
def test_an_index_book_replays_the_indexs_own_move(start: dt.date, end: dt.date, percent: float) -> None:
    for as_of in (end, AS_OF):
        result = stressed(INDEX_BOOK, replay=(start, end), as_of=as_of)
        assert float(result.total) / 1e6 * 100 == pytest.approx(percent, abs=0.01)
        assert result.by_factor["EQUITY_US"] == result.total


def test_a_replayed_stock_takes_its_own_return() -> None:
    replay = (D(2020, 2, 19), D(2020, 3, 23))
    result = stressed(book_of(held("XOM", "equity", 1e6, series="XOM")), replay=replay)
    window = MARKET.window("XOM", *replay, as_of=AS_OF)
    assert float(result.total) == pytest.approx(1e6 * (window.iloc[-1] / window.iloc[0] - 1), abs=0.02)
    assert result.by_factor[IDIOSYNCRATIC] != 0
    assert sums_are_exact(result)


def test_an_equity_without_history_is_replayed_by_beta() -> None:
    result = stressed(book_of(held("PRIVATE", "equity", 1e6, beta=0.5)), replay=(D(2008, 9, 12), D(2008, 11, 20)))
    assert float(result.total) == pytest.approx(1e6 * 0.5 * -0.39887, abs=10)
    assert IDIOSYNCRATIC not in result.by_factor


def test_a_users_shock_wins_over_the_replay_and_that_is_said() -> None:
    result = stressed(INDEX_BOOK, shock("EQUITY_US", -0.10), replay=(D(2008, 9, 12), D(2008, 11, 20)))
    assert result.total == Decimal("-100000.00")
    assert "EQUITY_US: the user shock replaces the historical one" in result.notes


def test_history_wins_over_a_judged_shock() -> None:
    judged = (JudgedShock("EQUITY_US", "down", "small"),)
    result = stressed(INDEX_BOOK, replay=(D(2008, 9, 12), D(2008, 11, 20)), judged=judged)
    assert float(result.total) == pytest.approx(-398_866, abs=100)
    assert "EQUITY_US: the historical shock replaces the judged one" in result.notes


def test_a_replay_past_as_of_is_refused() -> None:
    with pytest.raises(LookAheadError):
        stressed(INDEX_BOOK, replay=(D(2008, 9, 12), D(2008, 11, 20)), as_of=D(2008, 10, 31))


def test_two_user_shocks_of_one_factor_are_refused() -> None:
    with pytest.raises(InputError, match="two user shocks of 'OIL_WTI'"):
        stressed(INDEX_BOOK, shock("OIL_WTI", 0.1), shock("OIL_WTI", 0.2))


def test_a_bond_loses_by_duration_and_convexity_with_the_cross_term_apart() -> None:
    bond = held("B", "bond", 1e6, duration=7.0, convexity=60.0)
    result = stressed(book_of(bond), shock("RATE_US_10Y", 100.0), shock("CREDIT_BAA_AAA", 50.0))
    # 1e6·(e^(−7·y + ½·(60 − 49)·y²) − 1) for y of 1 %, ½ % and 1½ %
    assert result.by_factor["RATE_US_10Y"] == Decimal("-67093.22")
    assert result.by_factor["CREDIT_BAA_AAA"] == Decimal("-34261.80")
    assert result.total == Decimal("-98560.63")
    assert result.by_factor[INTERACTION] == result.total - Decimal("-101355.02")


def test_a_long_stock_loses_no_more_than_its_price() -> None:
    result = stressed(book_of(held("LEVERED", "equity", 1000.0, beta=3.0)), shock("EQUITY_US", -0.5))
    assert result.total == Decimal("-1000.00")
    assert result.by_factor[INTERACTION] == Decimal("500.00")
    assert any("floored" in note for note in result.notes)


def test_volatility_gains_by_points_and_gold_by_delta() -> None:
    book = book_of(held("CALLS", "volatility", 0.0, delta=1000.0), held("BARS", "gold", 5000.0))
    result = stressed(book, shock("VIX", 12.0), shock("GOLD", 0.04))
    assert result.by_position == {"CALLS": Decimal("12000.00"), "BARS": Decimal("200.00")}


def test_a_holding_without_a_shock_is_held_still_and_named() -> None:
    result = stressed(book_of(held("OIL", "commodity", 1000.0)), shock("GOLD", 0.1))
    assert result.by_position == {"OIL": Decimal("0.00")}
    assert "OIL_WTI is held still: no shock" in result.notes
    assert result.interval is None  # nothing is left open: no position has a regression
    assert {(row.lower, row.upper) for row in result.by_horizon} == {(None, None)}


REAL_BOOK = book_of(
    *(held(name, "equity", 1e5, series=name) for name in MARKET.stock_names()),
    held("OIL", "commodity", 2e5),
    held("CORP", "bond", 4e5, duration=7.0, convexity=60.0),
)


@settings(max_examples=15, deadline=None)
@given(start=st.dates(D(1995, 1, 3), D(2022, 6, 1)), days=st.integers(10, 200))
def test_every_replay_sums_exactly_too(start: dt.date, days: int) -> None:
    end = min(start + dt.timedelta(days=days), AS_OF)
    result = stressed(REAL_BOOK, replay=(start, end))
    assert sums_are_exact(result)
    assert len(result.by_position) == 22


def test_the_band_holds_the_point_and_says_how_it_was_made() -> None:
    result = stressed(REAL_BOOK, shock("EQUITY_US", -0.1))
    assert result.interval is not None
    assert result.interval.lower < result.total < result.interval.upper
    assert result.interval.level == 0.90
    assert "4000 draws, seed 0" in result.interval.method
    assert "2 positions without a regression add none of their own" in result.interval.method


def test_the_band_widens_with_the_horizon() -> None:
    bands = [stressed(REAL_BOOK, shock("EQUITY_US", -0.1), horizon=days).interval for days in (1, 5, 20, 250)]
    widths = [band.upper - band.lower for band in bands if band]
    assert all(shorter < longer for shorter, longer in itertools.pairwise(widths))


def test_an_index_book_has_no_residual() -> None:
    result = stressed(INDEX_BOOK, shock("EQUITY_US", -0.1))
    assert result.interval is not None
    assert result.interval.lower == result.total == result.interval.upper


def test_var_is_that_of_skfolio_on_current_holdings() -> None:
    result = stressed(REAL_BOOK)
    stocks = [MARKET.read(name, AS_OF).values.pct_change().iloc[-504:] for name in MARKET.stock_names()]
    gains = 1e5 * np.sum(stocks, axis=0)
    assert result.var_975_1d is not None
    assert float(result.var_975_1d.loss) == pytest.approx(value_at_risk(gains, beta=0.975), abs=0.005)
    assert result.var_975_1d.missing == ("OIL", "CORP")
    assert result.var_975_1d.coverage == pytest.approx(20 / 26)
    assert "504 observations" in result.var_975_1d.window


def test_losses_beyond_their_limits_are_breaches() -> None:
    result = stressed(REAL_BOOK, shock("OIL_WTI", -0.5), shock("EQUITY_US", -0.1))
    limits = Limits(
        version=1,
        loss_by_factor={"OIL_WTI": 99_999.0, "EQUITY_US": 1e9},
        loss_by_sector={"commodity": 100_000.0},
        loss_by_position={"each": 1e6, "OIL": 5e4},
        var_975_1d=1.0,
    )
    found = hold(result, Known.of(result, FACTOR_IDS), limits).breaches
    assert [(one.kind, one.subject) for one in found] == [
        ("loss_by_factor", "OIL_WTI"),
        ("loss_by_position", "OIL"),
        ("var_975_1d", "book"),
    ]
    assert found[0].loss == -result.by_factor["OIL_WTI"] > Decimal("100000.00")  # its energy shares lose too
    assert not hold(result, Known.of(result, FACTOR_IDS), Limits(version=1)).breaches
