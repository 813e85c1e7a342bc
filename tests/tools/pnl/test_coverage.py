"""How much of a book is stressed by data of its own: what counts, how much, and never better than it is."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.tools.data.books.book import Book, Exclusion, Holding
from finllm.tools.data.books.check import check_book
from finllm.tools.data.books.load import read_book
from finllm.tools.data.books.position import Portfolio, Position, Refused
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import parse_user_shock
from finllm.tools.data.fx import Rates
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.coverage import Coverage, Thresholds, coverage_of, day_words
from finllm.tools.pnl.engine import run_engine
from finllm.tools.pnl.factorset import FactorSet

MARKET = MarketStore()
FACTORS = FactorSet.default(MARKET)
AS_OF = dt.date(2022, 6, 30)


def position(id: str, **fields: Any) -> Position:
    return Position(id=id, **{"asset_class": "equity", **fields})


def of(*positions: Position, refused: tuple[Refused, ...] = (), as_of: dt.date = AS_OF, **wanted: Any) -> Coverage:
    portfolio = Portfolio(name="b", uri="file:///b.csv", sha256="0", positions=positions, refused=refused)
    book = value_portfolio(portfolio, MARKET, as_of)
    return coverage_of(book, MARKET, FACTORS, Thresholds(**wanted))


def test_a_book_of_own_histories_given_betas_and_durations_is_covered() -> None:
    found = of(
        position("AAPL", quantity=100.0),
        position("FUND", market_value=1e5, beta=0.8, asset_class="fund"),
        position("BOND", market_value=-2e5, duration=4.0, asset_class="bond"),
        position("CASH", market_value=1e4, asset_class="cash"),
    )
    assert (found.covered, found.stand_in, found.missing, found.complete) == (1.0, 0.0, 0.0, True)
    assert found.headline == "100 % of the book is covered"


def test_what_cannot_be_stressed_is_the_headline_and_its_largest_names_come_first() -> None:
    found = of(position("FUND", market_value=19.0, beta=1.0), *[position(f"N{at}", market_value=float(at)) for at in
                                                               (1, 2, 3, 35, 40)])  # fmt: skip
    assert found.missing == pytest.approx(0.81)
    assert found.headline == "81 % of the book is not stressed (N40, N35, N3 and 2 more), 19 % is covered"
    assert found.first_missing[0].reason == "no history and no beta"
    assert not found.complete


def test_shares_in_words_never_look_better_than_they_are() -> None:
    found = of(position("FUND", market_value=99_960.0, beta=1.0), position("N", market_value=40.0))
    assert found.complete
    assert found.words == "99 % of the book is covered, 1 % of the book is not stressed (N)"


@pytest.mark.parametrize("least", [0.80, 0.81])
def test_the_threshold_is_a_setting(least: float) -> None:
    found = of(position("FUND", market_value=80.0, beta=1.0), position("N", market_value=20.0), least=least)
    assert found.complete is (least <= 0.80)


def test_a_price_older_than_the_setting_is_a_stand_in_that_counts_for_a_stated_part() -> None:
    late = dt.date(2023, 2, 15)
    found = of(position("AAPL", quantity=100.0), position("FUND", market_value=1e4, beta=1.0), as_of=late)
    assert found.stand_in > 0.5
    assert found.first_stand_ins[0].reason == "its last price, of 2022-12-28, is 49 days old"
    assert found.counted == pytest.approx(found.covered + 0.10)
    assert not found.complete
    assert of(position("AAPL", quantity=100.0), position("FUND", market_value=1e4, beta=1.0), as_of=late,
              age_days=60).complete  # fmt: skip


def test_a_valuation_has_an_age_too() -> None:
    fresh, old = (position("FUND", market_value=1.0, beta=1.0, priced_on=day) for day in
                  (dt.date(2022, 6, 1), dt.date(2022, 5, 1)))  # fmt: skip
    assert of(fresh).covered == 1.0
    assert of(old).stand_in == 1.0


def test_a_history_shorter_than_the_setting_is_a_stand_in() -> None:
    assert of(position("AAPL", quantity=1.0), history_days=100_000).stand_in == 1.0


def test_a_commodity_that_moves_as_crude_without_a_delta_of_its_own_is_a_stand_in() -> None:
    found = of(position("COPPER", market_value=1e6, asset_class="commodity"))
    assert found.first_stand_ins[0].reason == "moved as OIL_WTI, with no delta of its own"
    assert of(position("COPPER", market_value=1e6, asset_class="commodity", delta=0.4)).covered == 1.0


def test_a_position_of_no_value_counts_by_its_notional_or_its_greeks() -> None:
    vix = float(MARKET.read("VIX", AS_OF).values.iloc[-1])
    swap = position("VIX_SWAP", market_value=0.0, delta=1e4, asset_class="volatility")
    found = of(swap, position("N", market_value=1e4 * vix))
    assert found.missing == pytest.approx(0.5)
    future = position("ES", quantity=2.0, multiplier=50.0, asset_class="future", underlying="SP500", market_value=0.0)
    left_out = value_portfolio(Portfolio(name="b", uri="u", sha256="0", positions=(swap, future)), MARKET, AS_OF)
    (held,) = (one for one in (*left_out.holdings, *left_out.exclusions) if one.id == "ES")
    spot = float(MARKET.read("SP500", AS_OF).values.iloc[-1])
    assert held.gross == pytest.approx(100 * spot)


def test_positions_of_unknown_value_are_named_and_make_the_result_incomplete() -> None:
    found = of(position("FUND", market_value=1.0, beta=1.0), position("GONE", quantity=5.0))
    assert (found.covered, found.unknown, found.complete) == (1.0, 1, False)
    assert found.headline == "Positions of unknown value: 1 (GONE), 100 % of what is known is covered"


def test_refused_rows_count_against_coverage() -> None:
    refused = (Refused(id="A", row=3, reason="no strike", market_value=-25.0), Refused(id="B", row=4, reason="what?"))
    found = of(position("FUND", market_value=75.0, beta=1.0), refused=refused)
    assert (found.covered, found.missing, found.unknown) == (0.75, 0.25, 1)
    assert found.first_missing[0].reason == "row 3 was refused: no strike"


def test_a_refused_row_in_another_currency_counts_by_that_day_s_rate(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text("id,quantity,market_value,currency,asset_class\nAAPL,1000,,USD,equity\nBOND_X,,1000000,EUR,bond\n")
    read = read_book(path)
    (refused,) = read.portfolio.refused
    assert (refused.market_value, refused.currency) == (1e6, "EUR")
    found = coverage_of(value_portfolio(read.portfolio, MARKET, AS_OF), MARKET, FACTORS, Thresholds())
    assert found.unknown == 0
    assert found.missing > 0.85, "a million euros beside 1,000 shares"
    assert found.first_missing[0].id == "BOND_X"
    checked = next(one for one in check_book(read, MARKET, AS_OF).positions if one.id == "BOND_X")
    rate = Rates(MARKET, AS_OF, "USD").of("EUR")
    assert not isinstance(rate, str)
    assert checked.value_base == pytest.approx(1e6 * rate.value)


VALUE = st.one_of(st.just(0.0), st.floats(-1e9, 1e9, allow_nan=False))
HELD = st.builds(
    lambda name, value, gross, stand_in, age: Holding(
        id=name, asset_class="fund", sector="s", market_value=value, beta=1.0, gross=gross,
        stand_in="a sector's beta" if stand_in else None, valued_on=AS_OF - dt.timedelta(days=age),
    ),
    st.uuids().map(str), VALUE, st.one_of(st.none(), st.floats(0, 1e9)), st.booleans(), st.integers(0, 90),
)  # fmt: skip
LEFT_OUT = st.builds(
    lambda name, gross: Exclusion(id=name, reason="r", weight=None, gross=gross),
    st.uuids().map(str), st.one_of(st.none(), st.floats(0, 1e9)),
)  # fmt: skip
LIMITS = st.builds(Thresholds, least=st.floats(0.01, 1.0), stand_ins=st.floats(0.0, 1.0), age_days=st.integers(0, 60))


def book_of(held: list[Holding], left_out: list[Exclusion]) -> Book:
    return Book(name="b", as_of=AS_OF, sha256="0", holdings=tuple(held), exclusions=tuple(left_out), notes=())


@settings(max_examples=150, deadline=None)
@given(st.lists(HELD, min_size=1, max_size=6), st.lists(LEFT_OUT, max_size=5), LEFT_OUT, LIMITS)
def test_shares_add_up_and_an_unreadable_row_never_raises_coverage(
    held: list[Holding], left_out: list[Exclusion], row: Exclusion, limits: Thresholds
) -> None:
    before = coverage_of(book_of(held, left_out), MARKET, FACTORS, limits)
    after = coverage_of(book_of(held, [*left_out, row]), MARKET, FACTORS, limits)
    for found in (before, after):
        assert found.covered + found.stand_in + found.missing == pytest.approx(1.0, abs=1e-9)
        assert 0.0 <= found.covered <= found.counted <= 1.0 + 1e-9
        assert found.complete is (found.gap is None)
    assert after.covered <= before.covered + 1e-9
    assert after.counted <= before.counted + 1e-9
    assert not (after.complete and not before.complete)


@pytest.mark.parametrize(("as_of", "end", "future", "said"), [
    (AS_OF, AS_OF, False, None),
    (dt.date(2022, 12, 26), dt.date(2022, 12, 23), False, "no close on 2022-12-26: the last is of 2022-12-23"),
    (dt.date(2022, 12, 25), dt.date(2022, 12, 23), False,
     "no close on 2022-12-25, a Sunday: the last is of 2022-12-23"),
    (dt.date(2023, 3, 1), dt.date(2022, 12, 28), False,
     "as of 2023-03-01, past the data: they end on 2022-12-28, 63 days before"),
    (dt.date(2031, 1, 1), dt.date(2022, 12, 28), True,
     "as of 2031-01-01, which is in the future: the data end on 2022-12-28"),
])  # fmt: skip
def test_a_day_without_data_is_said(as_of: dt.date, end: dt.date, future: bool, said: str | None) -> None:
    assert day_words(as_of, end, future=future) == said


def test_a_tail_measure_is_of_the_share_that_has_a_history() -> None:
    portfolio = Portfolio(name="b", uri="u", sha256="0", positions=(
        position("FUND", market_value=50.0, beta=1.0), position("N", market_value=50.0)))  # fmt: skip
    result = run_engine(portfolio, MARKET, AS_OF, 20, [parse_user_shock("EQUITY_US", "-10%")])
    assert result.var_975_1d is not None
    assert result.es_975_1d is not None
    assert (result.var_975_1d.coverage, result.es_975_1d.coverage) == (0.5, 0.5)
    assert result.of_what == "of what is stressed"
