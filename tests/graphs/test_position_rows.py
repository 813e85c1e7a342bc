"""Every P&L of a position names the rows that it was made of: price, rate, value and loads, each with its source."""

from __future__ import annotations

import datetime as dt

import pytest

from finllm.graphs.position_rows import MOST, basis_of
from finllm.guardrails.formula import cited_by, misfit
from finllm.scenarios import PORTFOLIOS_DIR
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.market import MarketStore
from finllm.tools.evidence import Evidence, EvidenceTable
from finllm.tools.pnl.outcome import EngineResult
from finllm.tools.pnl.trades import Asked

DAY = dt.date(2022, 6, 30)
MARKET = MarketStore()
BOOK = load_portfolio(PORTFOLIOS_DIR / "default.csv")
MORE = (
    Position(id="EURO", asset_class="equity", currency="EUR", market_value=500_000, beta=1.2),
    Position(id="PUT", asset_class="option", underlying="SP500", option_type="put", strike=3600, multiplier=100,
             quantity=5, expiry=dt.date(2022, 12, 16), volatility=0.25),
)  # fmt: skip


def told(portfolio: Portfolio) -> tuple[dict[str, list[Evidence]], EvidenceTable, EngineResult]:
    asked = Asked(MARKET, DAY, 20)
    engine = asked.engine(asked.book(portfolio))
    shock = engine.view.factors.parse("EQUITY_US", "-10%")
    result = engine.stress(engine.plan(20, user=(shock,)))
    table = EvidenceTable()
    basis = basis_of(result, engine, portfolio, table)
    found = {name: [table[id] for id in ids] for name, ids in basis.rows.items()}
    assert [row.id for row in table if misfit(row, table)] == []
    for name in result.by_position:
        assert basis.of(name).startswith("exposure (E")
    return found, table, result


def test_a_share_opens_its_price_its_quantity_and_the_beta_with_their_sources() -> None:
    found, table, _ = told(BOOK.model_copy(update={"positions": (*BOOK.positions, *MORE)}))
    rows = {row.what: row for row in found["AAPL"]}
    series = MARKET.read("AAPL", DAY)
    price, value, beta = rows["price"], rows["market value"], rows["load on EQUITY_US"]
    assert price.value == float(series.values.iloc[-1])
    assert price.source is not None
    assert price.source.sha256 == series.series.sha256
    assert str(series.last) in price.source.pointer
    assert rows["quantity"].source is not None
    assert rows["quantity"].source.sha256 == BOOK.sha256
    assert float(value.value) == pytest.approx(8100 * float(price.value))
    assert [table[id].what for id in cited_by(value)] == ["quantity", "price"]
    assert 0.8 < float(beta.value) < 1.8
    assert "daily returns" in (beta.formula or "")


def test_what_is_held_by_value_and_contracts_open_what_they_are_revalued_by() -> None:
    found, _, _ = told(BOOK.model_copy(update={"positions": (*BOOK.positions, *MORE)}))
    assert {row.what for row in found["BAA_CORP_7Y"]} == {"market value", "duration", "convexity, years²"}
    euro = {row.what: row for row in found["EURO"]}
    rate, value = euro["exchange rate, USD of one EUR"], euro["market value"]
    assert float(value.value) == pytest.approx(500_000 * float(rate.value))
    assert rate.source is not None
    assert euro["load on EQUITY_US"].value == 1.2
    assert {"units of what it is on", "price of what it is on", "volatility a year"} <= {
        row.what for row in found["PUT"]
    }


def test_of_a_large_book_the_largest_have_rows_and_one_says_what_the_others_sum_to() -> None:
    many = tuple(Position(id=f"P{at}", asset_class="equity", market_value=1000.0 + at, beta=1.0) for at in range(300))
    found, table, result = told(BOOK.model_copy(update={"positions": many}))
    assert len(found) == MOST
    assert len(table) < 4 * MOST
    (rest,) = (row for row in table if row.what.startswith("P&L of the positions without rows"))
    assert rest.entity == f"{300 - MOST} positions"
    assert float(rest.value) == pytest.approx(
        sum(float(one) for name, one in result.by_position.items() if name not in found)
    )
