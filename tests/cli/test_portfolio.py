"""`finllm portfolio check`: how a file is understood, what is refused, and the map that every command then reads."""

from __future__ import annotations

from pathlib import Path

import openpyxl
import pytest

from .conftest import Cli

LIST = """Symbol;Qty;Price;Currency;Market Value;Desk
KO;1.000;70,50;USD;70.500,00;income
SIE;100;250,00;EUR;25.000,00;growth
BAD;10;5,00;USD;5.000,00;growth
"""


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "depot.csv"
    path.write_text(LIST)
    return path


def test_every_column_and_row_has_its_reading_its_status_and_its_reason(cli: Cli, book: Path) -> None:
    said = cli("portfolio", "check", book, "--json")
    assert said.code == 0
    assert {one["column"]: one["field"] for one in said.json["columns"]} == {
        "Symbol": "ticker", "Qty": "quantity", "Price": "price", "Currency": "currency", "Market Value": "market_value",
        "Desk": None,
    }  # fmt: skip
    assert all(one["why"] for one in said.json["columns"])
    rows = {one["id"]: one for one in said.json["positions"]}
    assert rows["KO"] | {"name": None} == {
        "id": "KO", "name": None, "asset_class": "equity", "currency": "USD", "quantity": 1000, "market_value": 70_500,
        "value_base": 70_500, "status": "read", "reason": "", "row": 2,
    }  # fmt: skip
    assert rows["SIE"]["value_base"] == pytest.approx(26_600), "25,000 EUR at the ECB's 1.064"
    assert rows["BAD"]["status"] == "refused"
    assert "quantity × price is 50.00, and the market value 5,000.00" in rows["BAD"]["reason"]
    assert said.json["base_currency"] == "USD"
    assert said.json["coverage"]["refused"] == 1
    assert said.json["coverage"]["share"] == pytest.approx(97_100 / 102_100)
    assert "column 'Price': the comma is the decimal mark" in said.json["notes"]


def test_the_text_names_what_is_refused_first(cli: Cli, book: Path) -> None:
    out = cli("portfolio", "check", book).out
    assert out.startswith(
        "depot: 2 of 3 rows are read and valued, 95.1% of its known gross value (1 refused); 97,100 USD"
    )
    assert out.index("Refused: 1 row") < out.index("Read: 2 rows")
    assert "have no class of asset and are taken as equities" in out


def test_a_sheet_that_was_picked_is_kept_in_a_map_that_every_command_reads(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    workbook = openpyxl.Workbook()
    for name, value in (("Old", 1), ("Current", 250_000)):
        sheet = workbook.create_sheet(name)
        sheet.append(["id", "market_value", "currency", "asset_class", "beta"])
        sheet.append(["FUND", value, "USD", "fund", 1])
    workbook.save(path)
    shock = ("stress", "--portfolio", path, "--as-of", "2022-06-30", "--shock", "EQUITY_US=-10%", "--json")
    refused = cli(*shock)
    assert refused.code == 2
    assert "'Old', 'Current'" in refused.json["error"]["message"]
    assert "--save-map" in refused.json["error"]["fix"]
    checked = cli("portfolio", "check", path, "--sheet", "Current", "--save-map", "--json")
    assert checked.json["map"] == f"{path}.map.yaml"
    assert cli(*shock).json["total"] == pytest.approx(-25_000)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--dates", "first"], "--dates 'first' is not one of day-first"), (["--decimal", "dot"], "--decimal 'dot'"),
     (["--map", "no.yaml"], "no map at 'no.yaml'"), (["--sheet", "A"], "a .csv file has no sheets")],
)  # fmt: skip
def test_wrong_options_are_bad_input(cli: Cli, book: Path, arguments: list[str], says: str) -> None:
    said = cli("portfolio", "check", book, *arguments, "--json")
    assert (said.code, says in said.json["error"]["message"]) == (2, True)


def test_a_decimal_mark_that_was_given_holds(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_text("Symbol,Qty,Price,Currency\nKO,1.234,5,USD\n")
    assert cli("portfolio", "check", path).code == 2
    values = [
        cli("portfolio", "check", path, "--decimal", mark, "--json").json["value_base"] for mark in ("point", "comma")
    ]
    assert values == pytest.approx([6.17, 6170])


def test_a_book_of_3000_lines_with_bad_rows_is_summed_up(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    rows = [f"E{at},,{1000 + at},USD,{'equity' if at % 10 else 'meme'},1" for at in range(3000)]
    path.write_text("\n".join(["id,quantity,market_value,currency,asset_class,beta", *rows]) + "\n")
    said = cli("portfolio", "check", path)
    assert said.code == 0
    assert "and 297 more rows are refused" in said.out
    assert len(said.out.splitlines()) < 120


def test_a_file_of_which_no_row_is_read_is_bad_input_and_says_why(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("Symbol,Shares,Currency,Type\nNEWCO,10,USD,Stock\nOLDCO,3,USD,Stock\n")
    shown = cli("portfolio", "check", tmp_path / "list.csv")
    assert shown.code == 2
    assert "list: no row is read and valued; row 2: given by quantity, and there is no price series" in shown.err
    assert "0 of 2 rows" in shown.out
    assert cli("portfolio", "check", tmp_path / "list.csv", "--json").code == 2


def test_contracts_are_valued_by_their_terms_as_every_other_command_values_them(cli: Cli, tmp_path: Path) -> None:
    book = tmp_path / "contracts.csv"
    book.write_text(
        "id,currency,asset_class,quantity,multiplier,underlying,option_type,strike,expiry,volatility,price\n"
        "PUT,USD,option,10,100,SP500,put,3400,2022-09-30,0.22,\nES,USD,future,-4,50,SP500,,,,,\n"
        "GONE,USD,option,10,100,SP500,put,3400,2022-03-31,0.22,\n"
    )
    asked = ("--as-of", "2022-06-30", "--json")
    shown = cli("portfolio", "check", book, *asked)
    found = {one["id"]: one for one in shown.json["positions"]}
    assert shown.code == 0
    assert {name: one["status"] for name, one in found.items()} == {"PUT": "read", "ES": "read", "GONE": "unvalued"}
    told = cli("stress", "-p", book, "--shock", "EQUITY_US=-1%", *asked).json
    assert found["PUT"]["market_value"] == pytest.approx(told["book_value"], abs=0.01)
    assert found["ES"]["value_base"] == pytest.approx(-200 * 3785.38, rel=1e-3)
    assert found["GONE"]["reason"] == told["exclusions"][0]["reason"] == "it expired on 2022-03-31"
    assert shown.json["value_base"] == pytest.approx(told["book_value"], abs=0.01)


def test_look_through_is_checked_as_every_other_command_uses_it(cli: Cli, tmp_path: Path) -> None:
    book = tmp_path / "funds.csv"
    rows = "BAD,1000,USD,fund,NOSUCH 60%\nGEARED,2000,USD,fund,EQUITY_US 130%\nFINE,3000,USD,fund,EQUITY_US 100%\n"
    book.write_text(f"id,market_value,currency,asset_class,look_through\n{rows}")
    asked = ("--as-of", "2022-06-30", "--json")
    said = cli("portfolio", "check", book, *asked).json
    (bad,) = [one for one in said["positions"] if one["status"] == "refused"]
    (left,) = cli("stress", "-p", book, "--shock", "EQUITY_US=-1%", *asked).json["exclusions"]
    assert (bad["id"], bad["reason"]) == (left["id"], left["reason"])
    assert "names 'NOSUCH', which is no factor and no series" in bad["reason"]
    assert said["value_base"] == 5000
    assert [note for note in said["notes"] if "look_through" in note] == [
        "the look_through of 'GEARED' adds up to 130%, beyond 100%: it is taken to move by all of that"
    ]
