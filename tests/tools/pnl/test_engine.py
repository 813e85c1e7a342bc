"""The engine from portfolio to result: exact cuts, history replayed, propagation, bands, analogues, no look-ahead."""

import datetime as dt
import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import InputError, LookAheadError
from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import FACTORS, UserShock, parse_user_shock
from finllm.tools.data.limits import Limits
from finllm.tools.data.market import MarketStore, packaged_series
from finllm.tools.pnl.attribution import attribute
from finllm.tools.pnl.betas import default_regressors, regress
from finllm.tools.pnl.engine import Engine, run_engine
from finllm.tools.pnl.episodes import EPISODES
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.limits import Known, hold
from finllm.tools.pnl.outcome import IDIOSYNCRATIC, EngineResult
from finllm.tools.pnl.sensitivity import book_sensitivities
from finllm.tools.pnl.shocks import JudgedShock

D = dt.date
AS_OF = D(2022, 12, 28)
MARKET = MarketStore()
NOTHING = MarketStore.of(())
DEFAULT = load_portfolio(Path(__file__).resolve().parents[3] / "scenarios" / "portfolios" / "default.csv")


def book(*positions: Position) -> Portfolio:
    return Portfolio(name="test", uri="file:test", sha256="0" * 64, positions=positions)


def held(id: str, asset_class: str, **more: object) -> Position:
    return Position.model_validate({"id": id, "currency": "USD", "asset_class": asset_class, **more})


def run(
    *shocks: str, portfolio: Portfolio = DEFAULT, as_of: dt.date = AS_OF, horizon: int = 20, **more
) -> EngineResult:
    parsed = [parse_user_shock(one.split("=")[0], one.split("=")[1]) for one in shocks]
    return run_engine(portfolio, MARKET, as_of, horizon, parsed, **more)


def sums_are_exact(result: EngineResult) -> bool:
    cuts = (result.by_position, result.by_factor, result.by_sector, result.by_direction)
    return all(sum(cut.values(), Decimal(0)) == result.total for cut in cuts)


CLASSES = ("equity", "index", "bond", "commodity", "fx", "gold", "volatility")
rows = st.tuples(
    st.sampled_from(CLASSES), st.floats(-1e9, 1e9), st.floats(-3, 3), st.floats(0, 30), st.floats(-100, 1000),
    st.floats(-50, 50), st.sampled_from("ABC"),
)  # fmt: skip
moves = st.fixed_dictionaries(
    {},
    optional={
        name: st.floats(-0.9, 2.0) if factor.unit == "return" else st.floats(-300, 300)
        for name, factor in FACTORS.items()
    },
)


@settings(max_examples=500, deadline=None)
@given(rows=st.lists(rows, min_size=1, max_size=30), moves=moves, realised=st.booleans())
def test_every_cut_sums_exactly_to_the_total(rows: list[tuple], moves: dict[str, float], realised: bool) -> None:
    holdings = tuple(
        Holding(id=f"P{n}", asset_class=kind, sector=sector, market_value=value, beta=number, delta=number,
                duration=years, convexity=convexity, gamma=gamma, vega=gamma * 100)
        for n, (kind, value, number, years, convexity, gamma, sector) in enumerate(rows)
    )  # fmt: skip
    valued = Book(name="t", as_of=AS_OF, sha256="0" * 64, holdings=holdings, exclusions=(), notes=())
    arrays = book_sensitivities(valued, FactorSet.default(NOTHING), NOTHING, AS_OF).arrays
    vector = np.array([moves.get(name, 0.0) for name in arrays.factors])
    own = {holdings[0].id: 0.123 * holdings[0].market_value} if realised else {}
    found = attribute(arrays, holdings, vector, tuple(moves), own)
    for cut in (found.by_position, found.by_factor, found.by_sector, found.by_direction):
        assert sum(cut.values(), Decimal(0)) == found.total
    assert list(found.by_position) == [holding.id for holding in holdings]
    assert found.total == found.total.quantize(Decimal("0.01"))
    assert "interaction" in found.by_factor


@pytest.mark.parametrize(
    ("id", "percent"),
    list(zip(EPISODES, [-19.34, -39.89, -16.77, -5.76, -11.17, -10.16, -33.92, -25.43], strict=True)),
)
def test_a_named_episode_replays_the_index_and_the_book_to_the_cent(id: str, percent: float) -> None:
    index = book(held("SP500", "index", market_value=1e6))
    for as_of in (EPISODES[id].end, AS_OF):
        result = run(portfolio=index, as_of=as_of, replay=id)
        assert float(result.total) / 1e6 * 100 == pytest.approx(percent, abs=0.01)
    result = run(replay=id)
    assert sums_are_exact(result)
    assert result.analogue is not None
    assert (result.analogue.id, result.analogue.total) == (id, result.total)
    assert result.analogue.distance == pytest.approx(0.0, abs=1e-9)


def test_p_and_l_is_loads_durations_and_deltas_times_the_moves() -> None:
    result = run("EQUITY_US=-10%", "OIL_WTI=-20%", "CREDIT_BAA_AAA=+100bp", "RATE_US_10Y=+50bp", propagate=False)
    stocks = [one for one in DEFAULT.positions if one.asset_class == "equity"]
    factors = FactorSet.default(MARKET)
    loads = regress([one.id for one in stocks], default_regressors(factors, MARKET, AS_OF), MARKET, AS_OF,
                    sectors={one.id: one.sector for one in stocks if one.sector})  # fmt: skip
    values = {one.id: one.market_value for one in value_portfolio(DEFAULT, MARKET, AS_OF).holdings}
    for one in stocks:
        betas = loads[one.id].betas
        expected = values[one.id] * (betas["EQUITY_US"] * -0.10 + betas["OIL_WTI"] * -math.log(1.20))
        assert float(result.by_position[one.id]) == pytest.approx(expected, abs=0.01)
    bond = next(one for one in DEFAULT.positions if one.asset_class == "bond")
    years, convexity = bond.duration or 0.0, bond.convexity or 0.0
    expected = values[bond.id] * math.expm1(-years * 0.015 + 0.5 * (convexity - years**2) * 0.015**2)
    assert float(result.by_position[bond.id]) == pytest.approx(expected, abs=0.01)
    oil = next(one for one in DEFAULT.positions if one.asset_class == "commodity")
    assert float(result.by_position[oil.id]) == pytest.approx(values[oil.id] * -0.20, abs=0.01)


@pytest.mark.parametrize("propagate", [False, True])
@pytest.mark.parametrize("replay", [None, "lehman-2008"])
def test_the_quick_answer_is_the_whole_one(propagate: bool, replay: str | None) -> None:
    engine = Engine(value_portfolio(DEFAULT, MARKET, AS_OF), MARKET, AS_OF)
    plan = engine.plan(20, user=[parse_user_shock("OIL_WTI", "+10%")], replay=replay)
    quick, whole = engine.revalue(plan, propagate=propagate), engine.stress(plan, propagate=propagate)
    assert quick.total == whole.total
    assert (quick.by_position, quick.by_factor) == (whole.by_position, whole.by_factor)


def test_without_propagation_other_factors_are_held_still_and_named() -> None:
    result = run("EQUITY_US=-10%", propagate=False)
    assert set(result.by_factor) == {"EQUITY_US", "interaction"}
    assert "OIL_WTI is held still: no shock" in result.notes
    assert any(note.startswith("RATE_US_10Y is held still") and "no history" in note for note in result.notes)


def test_propagation_moves_the_others_to_their_mean_with_a_band() -> None:
    result = run("EQUITY_US=-20%")
    rows = {row.factor: row for row in result.shocks}
    assert set(rows) == {"EQUITY_US", "OIL_WTI", "CREDIT_BAA_AAA", "USD_BROAD"}
    assert rows["OIL_WTI"].origin == rows["CREDIT_BAA_AAA"].origin == "completed"
    assert rows["OIL_WTI"].move < 0 < rows["CREDIT_BAA_AAA"].move
    assert rows["OIL_WTI"].lower < rows["OIL_WTI"].move < rows["OIL_WTI"].upper  # pyright: ignore
    assert rows["EQUITY_US"].mahalanobis == result.mahalanobis
    assert sums_are_exact(result)
    assert "20-day moves of EQUITY_US, OIL_WTI, USD_BROAD" in result.alignment
    still = run("EQUITY_US=-20%", propagate=False)
    assert width(result) > width(still)
    fat = run("EQUITY_US=-20%", tails="vine")
    assert "vine copula" in (fat.interval.method if fat.interval else "")
    assert sums_are_exact(fat)


def width(result: EngineResult) -> Decimal:
    assert result.interval is not None
    return result.interval.upper - result.interval.lower


def test_a_factor_without_history_is_shocked_directly_and_said_to_be_unpropagated() -> None:
    result = run("RATE_US_10Y=+100bp")
    (row,) = result.shocks
    assert row.flags == ("unpropagated: no history, shocked directly",)
    assert (row.mahalanobis, result.mahalanobis) == (None, None)
    assert result.by_factor["RATE_US_10Y"] != 0


def test_extrapolation_and_contradiction_are_flagged_on_the_row() -> None:
    result = run("EQUITY_US=-60%", "CREDIT_BAA_AAA=-100bp")
    rows = {row.factor: row for row in result.shocks}
    assert any(flag.startswith("extrapolated") for flag in rows["EQUITY_US"].flags)
    assert all(row.sigma is not None and row.mahalanobis is not None for row in rows.values())
    mild = run("EQUITY_US=-5%")
    assert mild.shocks[0].flags == ()


def test_the_interval_widens_with_its_level_and_repeats_with_its_seed() -> None:
    narrow, wide = run("EQUITY_US=-10%", level=0.5), run("EQUITY_US=-10%", level=0.99)
    assert narrow.interval is not None
    assert (narrow.interval.level, width(narrow) < width(wide)) == (0.5, True)
    assert narrow.interval.lower < narrow.total < narrow.interval.upper
    assert run("EQUITY_US=-10%", seed=3) == run("EQUITY_US=-10%", seed=3)
    assert run("EQUITY_US=-10%", seed=3) != run("EQUITY_US=-10%", seed=4)


def test_horizons_nest_and_end_at_the_total() -> None:
    result = run("EQUITY_US=-10%", horizon=60)
    assert [row.horizon for row in result.by_horizon] == [1, 5, 10, 20, 60]
    assert result.by_horizon[-1].total == result.total
    losses = [-row.total for row in result.by_horizon]
    assert losses == sorted(losses)
    assert float(result.by_horizon[3].total) == pytest.approx(float(result.total) / 3**0.5, rel=0.08)


def test_a_book_that_has_fallen_far_risks_more_and_so_does_a_short_option() -> None:
    result = run("EQUITY_US=-30%")
    assert result.var_975_1d is not None
    assert result.var_975_1d_after is not None
    assert result.var_975_1d_after.loss > result.var_975_1d.loss
    assert result.es_975_1d is not None
    assert result.es_975_1d.loss > result.var_975_1d.loss
    puts = book(held("SP500", "index", market_value=-1e5, beta=-1.0, gamma=30.0))  # short, of negative delta
    short = run("EQUITY_US=-3%", portfolio=puts)
    assert short.var_975_1d is not None
    assert short.var_975_1d_after is not None
    assert short.var_975_1d_after.loss > short.var_975_1d.loss


def test_long_and_short_are_told_apart() -> None:
    mixed = book(
        held("AAPL", "equity", market_value=1e6, sector="Tech"),
        held("JPM", "equity", market_value=-4e5, sector="Banks"),
        held("V", "volatility", market_value=0.0, delta=-1000.0),
    )
    result = run("EQUITY_US=-10%", "VIX=+10points", portfolio=mixed)
    assert result.by_direction["long"] == result.by_position["AAPL"] < 0
    assert result.by_direction["short"] == result.by_position["JPM"] + result.by_position["V"]
    assert sums_are_exact(result)


def test_a_judged_shock_joins_and_a_users_wins_over_it() -> None:
    judged = [JudgedShock(name, "down", "large") for name in ("EQUITY_US", "OIL_WTI")]
    result = run("EQUITY_US=-3%", judged=judged, propagate=False)
    assert {row.factor: row.origin for row in result.shocks} == {"EQUITY_US": "user", "OIL_WTI": "model"}
    assert "EQUITY_US: the user shock replaces the judged one" in result.notes


def test_a_replay_holds_still_what_has_no_data_in_its_window_and_says_so_first() -> None:
    window = D(2022, 1, 3), D(2022, 10, 12)  # crude, credit and the rate are not in the packaged data of that year
    result, completed = run(replay=window), run(replay=window, propagate=True)
    assert result.unseen == ("CREDIT_BAA_AAA", "RATE_US_10Y", "OIL_WTI")
    assert result.first == ("No data in that window: CREDIT_BAA_AAA, RATE_US_10Y, OIL_WTI held still; --propagate "
                            "completes what has a history.",)  # fmt: skip
    assert result.over == "a replay of 2022-01-03 to 2022-10-12 (202 trading days)"
    assert {one.origin for one in result.shocks} == {"historical"}
    assert result.total == run(replay=window, propagate=False).total
    assert completed.unseen == completed.first == ()
    assert {one.factor for one in completed.shocks if one.origin == "completed"} == {"CREDIT_BAA_AAA", "OIL_WTI"}
    given = run("OIL_WTI=+30%", replay=window)
    assert given.unseen == ("CREDIT_BAA_AAA", "RATE_US_10Y")
    assert all(sums_are_exact(one) for one in (result, completed, given))
    assert run("OIL_WTI=+30%").over == "over 20 trading days"


def test_shocks_that_no_history_bears_are_named_beside_past_moves() -> None:
    day = D(2018, 12, 31)
    usual, strange = run("EQUITY_US=-5%", as_of=day).joint, run("EQUITY_US=-20%", "VIX=-8points", as_of=day)
    assert usual is not None
    assert usual.apart is None
    moves = MARKET.read("SP500", day).values.pct_change(20).dropna()  # the index is the one factor shocked
    assert usual.nearer == pytest.approx(float((abs(moves) < 0.05).mean()), abs=0.03)
    assert f"farther than {usual.nearer:.1%} of" in usual.words
    assert strange.joint is not None
    assert strange.joint.distance > strange.joint.farthest
    (row,) = [one for one in strange.shocks if any(flag.startswith("beyond history") for flag in one.flags)]
    assert row.factor == strange.joint.apart
    assert row.implied is not None
    assert "beyond history: none of" in strange.joint.words


def test_a_users_shock_of_equities_replays_by_beta() -> None:
    result = run("EQUITY_US=-10%", replay="lehman-2008")
    assert IDIOSYNCRATIC not in result.by_factor
    assert {row.factor: row.origin for row in result.shocks}["OIL_WTI"] == "historical"


def test_the_users_own_factor_moves_its_position_and_propagates(tmp_path: Path) -> None:
    closes = MARKET.read("SP500", AS_OF).values.iloc[-1500:]
    noise = np.random.default_rng(0).normal(0, 0.01, len(closes))
    own = 50 * (1 + 0.5 * closes.pct_change().fillna(0) + noise).cumprod()
    pd.DataFrame({"COBALT": own}).to_parquet(tmp_path / "prices.parquet")
    market = MarketStore([tmp_path / "prices.parquet"])
    factors = FactorSet.default(market).with_series(market, ["COBALT"])
    metal = book(held("COBALT", "commodity", market_value=1e6), held("SP500", "index", market_value=1e6))
    shock = factors.parse("COBALT", "-20%")
    result = run_engine(metal, market, AS_OF, 20, [shock], factors=factors, propagate=True)
    assert result.by_factor["COBALT"] == Decimal("-200000.00")
    assert result.by_factor["EQUITY_US"] < 0
    assert "20-day moves of EQUITY_US, COBALT" in result.alignment


def test_energy_gains_and_others_lose_when_oil_rises_as_equities_fall() -> None:
    energy = book(held("XOM", "equity", market_value=1e6), held("CVX", "equity", market_value=1e6))
    others = book(held("WMT", "equity", market_value=1e6), held("HD", "equity", market_value=1e6))
    for propagate in (True, False):
        assert run("OIL_WTI=+40%", portfolio=energy, propagate=propagate).total > 0
        both = [run("OIL_WTI=+40%", "EQUITY_US=-8%", portfolio=one, propagate=propagate).total
                for one in (energy, others)]  # fmt: skip
        assert both[0] > 0 > both[1]


def test_a_sectors_shock_moves_its_own_names_and_hardly_any_other() -> None:
    named = {one.id: one.sector for one in DEFAULT.positions if one.sector}
    factors = FactorSet.of(MARKET, (), ["SECTOR_ENERGY"], named, AS_OF)
    result = run_engine(DEFAULT, MARKET, AS_OF, 20, [factors.parse("SECTOR_ENERGY", "-10%")], factors=factors,
                        propagate=False)  # fmt: skip
    values = {one.id: one.market_value for one in value_portfolio(DEFAULT, MARKET, AS_OF).holdings}
    moves = {name: float(result.by_position[name]) / values[name] for name in named if name in MARKET.stock_names()}
    energy = [moves.pop(name) for name in ("CVX", "RRC", "XOM")]
    assert np.mean(energy) == pytest.approx(-0.10, abs=0.02)
    assert max(energy) < -0.04
    assert max(map(abs, moves.values())) < 0.04
    with pytest.raises(InputError, match="no such sector of three names") as refused:
        FactorSet.of(MARKET, (), ["SECTOR_SPACE"], named, AS_OF)
    assert "SECTOR_ENERGY" in refused.value.fix


def test_limits_are_held_against_an_engine_result() -> None:
    result = run("OIL_WTI=-50%", portfolio=book(*(one for one in DEFAULT.positions if one.asset_class == "commodity")))
    (one,) = hold(result, Known.of(result, ["OIL_WTI"]), Limits(version=1, loss_by_factor={"OIL_WTI": 5e5})).breaches
    assert (one.subject, one.loss) == ("OIL_WTI", Decimal("1000000.00"))


def test_what_is_in_a_currency_without_a_rate_is_left_out_with_its_reason() -> None:
    mixed = book(
        held("AAPL", "equity", market_value=1e6),
        Position(id="TSMC", currency="TWD", asset_class="equity", market_value=1e6),
    )
    result = run("EQUITY_US=-10%", portfolio=mixed)
    assert [(one.id, one.reason) for one in result.exclusions] == [
        ("TSMC", "in TWD: there is no rate of TWD by 2022-12-28")
    ]


@pytest.mark.parametrize(
    ("shocks", "change", "says"),
    [
        ([("EQUITY_US", -0.1), ("EQUITY_US", -0.2)], {}, "two user shocks of 'EQUITY_US'"),
        ([("EQUITY_US", float("nan"))], {}, "the shock of 'EQUITY_US' is"),
        ([("EQUITY_US", -1.5)], {}, "the shock of 'EQUITY_US' is"),
        ([("TIN", -0.1)], {}, "unknown factor 'TIN'"),
        ([], {"replay": "tulips-1637"}, "no episode 'tulips-1637'"),
        ([], {"replay": (D(2020, 3, 23), D(2020, 2, 19))}, "does not end after it starts"),
        ([("EQUITY_US", -0.1)], {"horizon": 0}, "a horizon of 0 trading days"),
        ([("EQUITY_US", -0.1)], {"horizon": 251}, "give 1 to 250 days"),
        ([("EQUITY_US", -0.1)], {"level": 1.0}, "an interval of level 1"),
    ],
)
def test_a_bad_question_is_refused(shocks: list[tuple[str, float]], change: dict[str, Any], says: str) -> None:
    asked: dict[str, Any] = {"horizon": 20} | change
    wanted = [UserShock(factor=name, amount=amount, in_sigmas=False) for name, amount in shocks]
    with pytest.raises(InputError, match=says):
        run_engine(DEFAULT, MARKET, AS_OF, asked.pop("horizon"), wanted, **asked)


def test_two_factors_that_are_one_are_refused() -> None:
    factors = FactorSet.default(MARKET).with_series(MARKET, {"TWIN": "SP500"})
    shocks = [factors.parse("EQUITY_US", "-10%"), factors.parse("TWIN", "-10%")]
    with pytest.raises(InputError, match="cannot be told apart"):
        run_engine(DEFAULT, MARKET, AS_OF, 20, shocks, factors=factors)
    held_still = run_engine(DEFAULT, MARKET, AS_OF, 20, shocks, factors=factors, propagate=False)
    assert held_still.total == run("EQUITY_US=-10%", propagate=False).total
    assert any(note.startswith("how plausible the shocks are together is not known") for note in held_still.notes)


def test_a_replay_past_as_of_is_refused() -> None:
    with pytest.raises(LookAheadError):
        run(replay="lehman-2008", as_of=D(2008, 10, 31))


@settings(max_examples=6, deadline=None)
@given(as_of=st.dates(D(1998, 1, 2), D(2022, 12, 28)))
def test_the_engine_notices_no_poisoned_future(as_of: dt.date) -> None:
    poisoned = MarketStore.of(
        replace(one, values=one.values.where(one.values.index.isin(one.visible(as_of).index), one.values * 17 + 1000))
        for one in packaged_series().values()
    )
    stocks = book(*(held(name, "equity", market_value=1e6) for name in ("AAPL", "JPM", "XOM")),
                  held("OIL", "commodity", market_value=1e6))  # fmt: skip
    shock = [parse_user_shock("EQUITY_US", "-2sigma")]
    window = (as_of - dt.timedelta(days=60), as_of)
    for replay in (None, window):
        answers = [
            run_engine(stocks, market, as_of, 20, shock, propagate=True, replay=replay) for market in (MARKET, poisoned)
        ]
        assert answers[0] == answers[1]


def test_a_factor_that_shares_no_history_with_the_shocked_one_is_held_still_and_said() -> None:
    result = run("USD_BROAD=+5%", as_of=D(2005, 6, 30))
    assert [row.factor for row in result.shocks] == ["USD_BROAD"]
    assert any(note.startswith("EQUITY_US is held still: too few of its moves are shared") for note in result.notes)


def test_a_shock_that_no_position_loads_on_is_said() -> None:
    stocks = book(held("AAPL", "equity", market_value=1e6, beta=1.0))
    assert "OIL_WTI moves no position by itself" in run("OIL_WTI=+10%", portfolio=stocks, propagate=False).notes
