"""Quantity, price, value, currency and unit of a row: held against each other, put into one unit, or refused."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from finllm.tools.data.books.check import check_book
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.position import Position
from finllm.tools.data.market import MarketStore

from .books import book_of, fields_of, positions_of, said

D = dt.date
OWN = "id,quantity,market_value,currency,asset_class"


def one_of(tmp_path: Path, header: str, *rows: str) -> Position:
    read = book_of(tmp_path, header, *rows)
    assert not read.portfolio.refused, read.portfolio.refused
    return read.portfolio.positions[0]


LIST = "Symbol,Security Type,Currency,Quantity,Price,Market Value"


def test_quantity_price_and_value_are_held_against_each_other(tmp_path: Path) -> None:
    read = book_of(tmp_path, LIST, "A,equity,USD,10,5,50", "B,equity,USD,10,5,53", "C,equity,USD,10,5,500",
                   "D,equity,USD,-10,5,50")  # fmt: skip
    assert list(positions_of(read)) == ["A", "B"]
    assert list(read.doubts) == ["B"]
    reasons = {one.id: one.reason for one in read.portfolio.refused}
    assert "quantity × price is 50.00, and the market value 500.00" in reasons["C"]
    assert "have different signs" in reasons["D"]
    assert {one.id: one.status for one in check_book(read, MarketStore(), D(2022, 6, 30)).positions} == {
        "A": "read", "B": "doubtful", "C": "refused", "D": "refused"}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "price", "value"),
    [
        ("VOD.L,equity,GBP,5000,95.5,4775", 0.955, 4775),  # a price in pence beside a value in pounds
        ("VOD.L,equity,GBp,5000,95.5,4775", 95.5, 477_500),  # all of it in pence, as the currency says
        ("VOD.L,equity,GBX,5000,95.5,477500", 95.5, 477_500),
    ],
)
def test_pence_are_hundredths_of_pounds(tmp_path: Path, row: str, price: float, value: float) -> None:
    one = one_of(tmp_path, LIST, row)
    assert (one.price, one.market_value) == (pytest.approx(price), pytest.approx(value))


@pytest.mark.parametrize(
    ("row", "quantity", "price"),
    [("B,bond,USD,100000,0.995,99500", 100_000, 99.5), ("B,bond,USD,100,99.5,99500", 100_000, 99.5)],
)
def test_a_bond_is_priced_per_hundred_and_counted_by_nominal(
    tmp_path: Path, row: str, quantity: float, price: float
) -> None:
    one = one_of(tmp_path, f"{LIST},Duration", f"{row},5")
    assert (one.quantity, one.price) == (pytest.approx(quantity), pytest.approx(price))


def test_values_in_the_base_currency_without_a_word_are_found_by_quantity_and_price(tmp_path: Path) -> None:
    read = book_of(tmp_path, LIST, "KO,equity,USD,10,70,700", "SIE,equity,EUR,10,200,2320", "BAS,equity,EUR,10,50,580")
    one = positions_of(read)["SIE"]
    assert (one.market_value, one.fx) == (2000, pytest.approx(1.16))
    assert "market values are in USD in every row, as quantity × price tells" in said(read)


@pytest.mark.parametrize(
    ("name", "value"), [("Market Value (000)", "50"), ("Mkt Val in thousands", "50"), ("Marktwert (Tsd.)", "50"),
                        ("Market Value (USD mm)", "0.05"), ("Market Value", "50000")],
)  # fmt: skip
def test_a_column_in_thousands_or_millions_is_scaled(tmp_path: Path, name: str, value: str) -> None:
    assert one_of(tmp_path, f"Symbol,Type of security,Currency,{name}", f"A,equity,USD,{value}").market_value == 50_000


def test_a_rate_the_other_way_round_is_told_by_the_value_in_the_base_currency(tmp_path: Path) -> None:
    read = book_of(tmp_path, "Symbol,Asset Class,Currency,Market Value Local,FX Rate,Market Value Base",
                   "KO,equity,USD,100,1,100", "TM,equity,JPY,30000,150,200", "HM,equity,JPY,30000,150,900")  # fmt: skip
    assert positions_of(read)["TM"].fx == pytest.approx(1 / 150)
    assert "is not its value of 900.00 in the base currency" in read.portfolio.refused[0].reason


def test_a_share_of_the_portfolio_is_no_market_value(tmp_path: Path) -> None:
    read = book_of(tmp_path, "Symbol,Asset Class,Currency,Quantity,Market Value (%)", "A,equity,USD,5,12.5")
    assert fields_of(read)["Market Value (%)"] is None


def test_short_positions_of_a_list_without_signs_are_negative(tmp_path: Path) -> None:
    one = one_of(tmp_path, f"{LIST},Long/Short", "A,equity,USD,10,5,50,S")
    assert (one.quantity, one.market_value) == (-10, -50)


@pytest.mark.parametrize(
    ("header", "row", "field", "value"),
    [
        ("Cpn,Maturity,YTM", "4.25,2034-11-15,4.3", "coupon", 0.0425),
        ("Cpn,Maturity,YTM", "4.25,2034-11-15,4.3", "yield_", 0.043),
        ("coupon,maturity,yield", "0.0425,2034-11-15,0.043", "coupon", 0.0425),
        ("Coupon,Maturity,Yield %", "4.25%,2034-11-15,0.2", "yield_", 0.002),
    ],
)
def test_rates_of_a_bond_are_decimals_whatever_the_list_has(
    tmp_path: Path, header: str, row: str, field: str, value: float
) -> None:
    one = one_of(tmp_path, f"Symbol,Asset Class,Currency,Quantity,{header}", f"B,bond,USD,1000,{row}")
    assert getattr(one, field) == pytest.approx(value)


def test_contracts_without_columns_for_their_terms_are_read_by_their_symbols(tmp_path: Path) -> None:
    read = book_of(tmp_path, OWN, "ESZ6,-4,-1362000,USD,future", "SX5E 12/18/26 P5400,50,41000,EUR,option",
                   "JPYUSD,12000000,77000,USD,cash")  # fmt: skip
    future, option, cash = read.portfolio.positions
    assert (future.underlying, future.multiplier, future.price) == ("ES", 50, 6810)
    assert (option.underlying, option.option_type, option.strike) == ("SX5E", "put", 5400)
    assert (option.expiry, option.multiplier) == (D(2026, 12, 18), 10)
    assert (cash.currency, cash.market_value, cash.fx) == ("JPY", 12e6, pytest.approx(77_000 / 12e6))
    assert "have no multiplier: the exchange's is used" in said(read)


def test_cash_whose_currency_is_doubtful_is_refused(tmp_path: Path) -> None:
    read = book_of(tmp_path, OWN, "JPYUSD,12000000,,USD,cash", "KO,1,,USD,equity")
    assert "may be JPY or USD" in read.portfolio.refused[0].reason


def test_amounts_beside_a_column_of_currencies_are_that_column_s(tmp_path: Path) -> None:
    """As Degiro writes its list: the heading of the amounts stands over their currencies."""
    path = tmp_path / "degiro.csv"
    path.write_text('Produkt,Symbol/ISIN,Anzahl,Schlußkurs,Wert,,Wert in EUR\n'
                    'ASML HOLDING,NL0010273215,10,"455,85",EUR,"4558,50","4558,50"\n'
                    'APPLE INC.,US0378331005,20,"136,72",USD,"2734,40","2615,00"\n', encoding="utf-8")  # fmt: skip
    found = {one.name: one for one in load_portfolio(path).positions}
    assert (found["APPLE INC."].currency, found["APPLE INC."].market_value) == ("USD", 2734.40)
    assert (found["ASML HOLDING"].currency, found["ASML HOLDING"].quantity) == ("EUR", 10)
