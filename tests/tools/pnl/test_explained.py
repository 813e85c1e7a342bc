"""P&L explain: parts that sum to the cent, each against arithmetic by hand on the same prices."""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.scenarios import PORTFOLIOS_DIR
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.fx import Rates
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.engine import run_engine
from finllm.tools.pnl.explained import Explained, Stressed, explain_books, explain_runs
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.sensitivity import book_sensitivities

START, END = dt.date(2022, 5, 31), dt.date(2022, 6, 30)
MARKET = MarketStore()
FACTORS = FactorSet.default(MARKET)
BOOK = load_portfolio(PORTFOLIOS_DIR / "default.csv")


def book_of(*positions: Position) -> Portfolio:
    return BOOK.model_copy(update={"positions": positions})


def stock(id: str, quantity: float) -> Position:
    return Position(id=id, asset_class="equity", quantity=quantity)


def close(id: str, day: dt.date) -> float:
    return float(MARKET.read(id, day).values.iloc[-1])


def sums(found: Explained) -> dict[str, float]:
    amounts: dict[str, float] = defaultdict(float)
    for one in found.parts:
        amounts[one.name if one.kind in ("factor", "shock") else one.kind] += float(one.amount)
    assert sum((one.amount for one in found.parts), Decimal(0)) == found.difference
    if found.by_position:
        assert float(sum(found.by_position.values())) == pytest.approx(float(found.difference), abs=0.05)
    return amounts


def test_a_month_of_a_share_is_its_beta_times_the_index_and_its_own_price() -> None:
    book = book_of(stock("AAPL", 1000), stock("XOM", 2000))
    found = explain_books(book, book, MARKET, START, END)
    parts = sums(found)
    arrays = book_sensitivities(value_portfolio(book, MARKET, START), FACTORS, MARKET, START).arrays
    index = close("SP500", END) / close("SP500", START) - 1
    at = arrays.factors.index("EQUITY_US")
    assert parts["EQUITY_US"] == pytest.approx(float(arrays.linear[:, at].sum()) * index, abs=0.05)
    moved = 1000 * (close("AAPL", END) - close("AAPL", START)) + 2000 * (close("XOM", END) - close("XOM", START))
    assert float(found.difference) == pytest.approx(moved, abs=0.02)
    assert parts["trades"] == 0
    assert parts["residual"] == 0


def test_trades_are_at_the_prices_of_the_new_day() -> None:
    old, new = book_of(stock("AAPL", 1000), stock("XOM", 500)), book_of(stock("AAPL", 700), stock("KO", 100))
    parts = sums(explain_books(old, new, MARKET, START, END))
    by_hand = -300 * close("AAPL", END) + 100 * close("KO", END) - 500 * close("XOM", END)
    assert parts["trades"] == pytest.approx(by_hand, abs=0.05)


def test_on_one_day_everything_is_trades() -> None:
    parts = sums(explain_books(book_of(stock("AAPL", 1000)), book_of(stock("AAPL", 990)), MARKET, END, END))
    assert parts["trades"] == pytest.approx(-10 * close("AAPL", END), abs=0.02)
    assert {name for name, amount in parts.items() if amount} == {"trades"}


def test_an_option_ages_as_black_and_scholes_say() -> None:
    put = Position(id="PUT", asset_class="option", underlying="SP500", option_type="put", strike=4000, multiplier=100,
                   quantity=10, expiry=dt.date(2022, 9, 16), volatility=0.25)  # fmt: skip
    parts = sums(explain_books(book_of(put), book_of(put), MARKET, START, END))

    def worth(day: dt.date) -> float:
        years, spot = (dt.date(2022, 9, 16) - day).days / 365, close("SP500", START)
        d1 = (math.log(spot / 4000) + 0.25**2 / 2 * years) / (0.25 * math.sqrt(years))
        normal = lambda x: 0.5 * math.erfc(-x / math.sqrt(2))  # noqa: E731
        return 1000 * (4000 * normal(0.25 * math.sqrt(years) - d1) - spot * normal(-d1))

    assert parts["time"] == pytest.approx(worth(END) - worth(START), abs=0.02)


def test_a_currency_is_a_factor() -> None:
    euro = Position(id="EUR_CASH", asset_class="cash", currency="EUR", quantity=1_000_000)
    parts = sums(explain_books(book_of(euro), book_of(euro), MARKET, START, END))
    rates = [Rates(MARKET, day, "USD").of("EUR") for day in (START, END)]
    first, last = (one.value for one in rates if not isinstance(one, str))
    assert parts["FX_EURUSD"] == pytest.approx(1_000_000 * (last - first), rel=0.02)


def test_a_value_without_a_price_moves_with_its_currency_alone() -> None:
    """Of a share in euro held by its value, -98,894 was put to the index and +98,894 to its own price."""
    share = Position(id="SAP", asset_class="equity", currency="EUR", market_value=1_000_000.0, beta=1.1)
    found = explain_books(book_of(share), book_of(share), MARKET, START, END)
    rates = [Rates(MARKET, day, "USD").of("EUR") for day in (START, END)]
    first, last = (one.value for one in rates if not isinstance(one, str))
    parts = sums(found)
    assert parts["FX_EURUSD"] == pytest.approx(1_000_000 * (last - first), rel=0.02)
    assert "EQUITY_US" not in parts
    assert abs(parts.get("own", 0.0)) < 0.02 * abs(parts["FX_EURUSD"])


def test_a_contract_that_ran_out_is_no_trade() -> None:
    call = Position(id="CALL", asset_class="option", currency="USD", quantity=-20, underlying="AAPL", multiplier=100.0,
                    option_type="call", strike=100.0, expiry=dt.date(2022, 6, 17), volatility=0.3)  # fmt: skip
    cash = Position(id="CASH", asset_class="cash", currency="USD", market_value=1e6)
    found = explain_books(book_of(call, cash), book_of(call, cash), MARKET, START, END)
    assert sums(found)["expired"] == pytest.approx(float(found.difference), abs=0.01)
    assert (
        float(found.difference) > 0
    )  # the short call was worth less than nothing; what it cost to settle, nobody says


def test_what_files_give_by_value_alone_is_not_guessed_to_be_a_trade() -> None:
    old, new = (
        book_of(Position(id="FUND", asset_class="fund", market_value=value, beta=1.0)) for value in (100.0, 130.0)
    )
    parts = sums(explain_books(old, new, MARKET, START, END))
    assert parts["by value"] == pytest.approx(30.0)
    fund = Position(id="FUND", asset_class="fund", quantity=10, beta=1.0)
    first, last = (book_of(fund.model_copy(update={"price": one, "market_value": 10 * one})) for one in (10.0, 13.0))
    parts = sums(explain_books(first, last, MARKET, START, END))
    assert parts["trades"] == 0
    assert parts["own"] + parts["EQUITY_US"] == pytest.approx(30.0)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_parts_sum_to_the_difference_whatever_changes(data: st.DataObject) -> None:
    size = st.integers(-3000, 3000).filter(bool)
    ids = data.draw(st.lists(st.sampled_from(["AAPL", "XOM", "JPM", "KO", "RRC"]), min_size=1, unique=True))
    more = data.draw(st.lists(st.sampled_from(["AAPL", "XOM", "GE", "HD"]), min_size=1, unique=True))
    old, new = (book_of(*(stock(id, data.draw(size)) for id in some)) for some in (ids, more))
    start = data.draw(st.dates(dt.date(2021, 1, 4), dt.date(2022, 6, 30)))
    sums(explain_books(old, new, MARKET, start, data.draw(st.dates(start, dt.date(2022, 12, 1)))))


def test_two_runs_differ_by_book_day_and_shocks() -> None:
    hedged = BOOK.model_copy(update={"positions": BOOK.positions[:-1]})
    runs: list[Stressed] = []
    totals: list[float] = []
    for book, day, move in ((BOOK, START, "-10%"), (hedged, END, "-15%")):
        shock = FACTORS.parse("EQUITY_US", move)
        result = run_engine(book, MARKET, day, 20, (shock,))
        totals.append(float(result.total))
        moves = {one.factor: one.move for one in result.shocks}
        runs.append(Stressed(book, MARKET, day, FACTORS, moves, float(result.total), "USD"))
    parts = sums(explain_runs(*runs))
    assert parts["residual"] == pytest.approx(0.0, abs=0.1)
    swapped = explain_runs(runs[0], Stressed(hedged, MARKET, START, FACTORS, runs[0].moves, 0.0, "USD"))
    assert parts["trades"] == pytest.approx(sums(swapped)["trades"])
    beta = totals[0] / -0.10
    assert parts["EQUITY_US"] == pytest.approx(-0.05 * beta, rel=0.25)
    with pytest.raises(InputError, match="comes before"):
        explain_books(BOOK, BOOK, MARKET, END, START)
