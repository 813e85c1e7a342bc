"""A fund by what it holds: its weights are its exposure, and count as covered."""

import datetime as dt
from pathlib import Path

import pytest

from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import parse_user_shock
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.coverage import coverage_of
from finllm.tools.pnl.engine import Engine

AS_OF, MARKET = dt.date(2022, 6, 30), MarketStore()


def engine(tmp_path: Path, weights: str, rest: str = "") -> Engine:
    path = tmp_path / "book.csv"
    path.write_text(f"id,market_value,currency,asset_class,look_through\nFUND,1000000,USD,fund,{weights}\n{rest}")
    return Engine(value_portfolio(load_portfolio(path), MARKET, AS_OF), MARKET, AS_OF)


def test_a_fund_moves_with_what_it_holds_and_is_covered(tmp_path: Path) -> None:
    found = engine(tmp_path, "EQUITY_US 50%; GOLD 0.3; XOM: 10 %")
    shocks = [parse_user_shock("EQUITY_US", "-10%"), parse_user_shock("GOLD", "+5%")]
    result = found.stress(found.plan(20, user=shocks), propagate=False)
    beta = found.sens.regressions["XOM"].betas["EQUITY_US"]
    assert float(result.by_position["FUND"]) == pytest.approx(1e6 * (-0.05 + 0.015 - 0.01 * beta), abs=0.02)
    assert coverage_of(found.book, MARKET, found.view.factors).covered == 1.0
    assert "10% of 'FUND' is in nothing that its look_through names, and is taken as cash" in result.notes


def test_the_index_by_its_series_is_the_factor(tmp_path: Path) -> None:
    assert (
        engine(tmp_path, "SP500 100%").arrays.linear[0].tolist()
        == engine(tmp_path, "EQUITY_US 1").arrays.linear[0].tolist()
    )


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ("NOSUCH 60%", "names 'NOSUCH', which is no factor and no series"),
        ("RATE_US_10Y 10%", "names 'RATE_US_10Y', which moves by bp"),
        ("EQUITY_US", "has 'EQUITY_US': write it as"), ("EQUITY_US 900%", "adds up to 900%"),
        ("GOLD 10%; GOLD 20%", "names 'GOLD' twice"),
    ],
)  # fmt: skip
def test_weights_that_cannot_be_used_leave_the_fund_out_with_why(tmp_path: Path, weights: str, says: str) -> None:
    (left,) = engine(tmp_path, weights, "CASH,1000,USD,cash,\n").book.exclusions
    assert left.id == "FUND"
    assert says in left.reason


def test_weights_beyond_the_whole_are_said_so_by_their_sum(tmp_path: Path) -> None:
    said = "the look_through of 'FUND' adds up to 160%, beyond 100%: it is taken to move by all of that"
    assert said in engine(tmp_path, "EQUITY_US 100%; GOLD 60%").book.notes
    assert any("adds up to 150%" in note for note in engine(tmp_path, "EQUITY_US 125%; GOLD -25%").book.notes)
    assert not any("adds up" in note for note in engine(tmp_path, "EQUITY_US 60%; GOLD 40%").book.notes)
