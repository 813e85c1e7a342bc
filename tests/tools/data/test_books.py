"""Books of people: brokers' exports, holdings lists, any columns. What is right for each kind, on inputs of our own."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import openpyxl
import pytest

from finllm.errors import InputError
from finllm.tools.data.books.check import CheckedBook, check_book
from finllm.tools.data.books.fields import plain, words
from finllm.tools.data.books.load import ReadBook, load_portfolio, read_book
from finllm.tools.data.books.mapping import Map, beside, load_map, save_map
from finllm.tools.data.books.position import ASSET_CLASSES
from finllm.tools.data.books.symbols import is_cusip, is_isin
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.market import MarketStore

from .books import FLEX, FLEX_ROWS, GERMAN, book_of, fields_of, positions_of, said

D = dt.date
MARKET = MarketStore()
SHARED = Path(__file__).resolve().parents[4] / "shared" / "cases" / "books"
OWN = "id,quantity,market_value,currency,asset_class"


def checked(read: ReadBook) -> CheckedBook:
    return check_book(read, MARKET, D(2022, 6, 30))


def test_a_row_in_a_currency_that_nothing_gives_a_rate_of_has_no_value(tmp_path: Path) -> None:
    file = tmp_path / "book.csv"
    file.write_text("id,market_value,currency,asset_class,beta\nA,1000,USD,equity,1\nB,1000,AOA,equity,1\n")
    found = checked(read_book(file))
    assert [(one.id, one.status, one.value_base) for one in found.positions] == [
        ("A", "read", 1000), ("B", "unvalued", None)
    ]  # fmt: skip
    assert "AOA" in found.positions[1].reason


def test_a_brokers_export_is_valued_in_its_base_currency_by_its_own_rates(tmp_path: Path) -> None:
    read = book_of(tmp_path, FLEX, *FLEX_ROWS)
    assert not read.portfolio.refused
    assert read.portfolio.base_currency == "USD"
    found = positions_of(read)
    assert [one.asset_class for one in found.values()] == [
        "equity",
        "equity",
        "fund",
        "option",
        "future",
        "bond",
        "cash",
    ]
    assert (found["SIE"].quantity, found["SIE"].market_value, found["SIE"].fx) == (-100, -25_000, 1.16)
    option = found["SPY 261218P00640000"]
    assert (option.underlying, option.strike, option.expiry) == ("SPY", 640, D(2026, 12, 18))
    assert (option.option_type, option.multiplier) == ("put", 100)
    bond = found["T 4 1/4 11/15/34"]
    assert (bond.coupon, bond.maturity, bond.price) == (0.0425, D(2034, 11, 15), 100.21875)
    rows = {one.id: one for one in checked(read).positions}
    assert rows["SIE"].value_base == pytest.approx(-29_000)
    assert rows["EUR"].value_base == pytest.approx(1160.58)
    assert rows["FESXU6"].value_base == pytest.approx(-162_000 * 1.16)
    assert all(one.status == "read" for one in rows.values())


def test_what_no_field_takes_is_kept_as_a_tag_and_may_group(tmp_path: Path) -> None:
    read = book_of(tmp_path, f"{OWN},strategy,colour", "KO,10,,USD,equity,income,red")
    assert positions_of(read)["KO"].tags == {"strategy": "income", "colour": "red"}
    assert fields_of(read)["strategy"] is None


def port(tmp_path: Path, *rows: list[object], head: list[object] | None = None) -> Path:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in [["Portfolio: ACME"], ["As of", D(2026, 5, 29)], [], head or [
        "Security Name", "Ticker", "ISIN", "Position", "Px Close", "Mkt Val (USD)", "% Wgt", "Crncy", "GICS Sector",
        "OAD", "OAC", "Maturity",
    ], *rows]:  # fmt: skip
        sheet.append(row)
    book.save(tmp_path / "port.xlsx")
    return tmp_path / "port.xlsx"


def test_a_holdings_list_with_preamble_groups_and_totals_is_read(tmp_path: Path) -> None:
    path = port(
        tmp_path,
        ["Equities", None, None, None, None, 93_250, 70],
        ["Information Technology"],
        ["SAP SE", "SAP GY Equity", "DE0007164600", 200, 250, 58_000, 20, "EUR", "Information Technology"],
        ["COCA-COLA", "KO US Equity", "US1912161007", 500, 70.5, 35_250, 10, "USD", "Consumer Staples"],
        ["Bonds"],
        ["US TREASURY", "T 4 1/4 11/15/34 Govt", "US91282CLW90", 100_000, 100, 100_000, 20, "USD", "Government", 6.7,
         0.53, "11/15/2034"],
        ["Total", None, None, None, None, 193_250, 100],
        ["Source: a data vendor, whose terms of use are to be found elsewhere"],
    )  # fmt: skip
    read = read_book(path)
    found = positions_of(read)
    assert list(found) == ["SAP GY", "KO", "T 4 1/4 11/15/34"]
    sap, bond = found["SAP GY"], found["T 4 1/4 11/15/34"]
    assert (sap.currency, sap.market_value, sap.fx) == ("EUR", 50_000, pytest.approx(1.16))
    assert (bond.convexity, bond.duration, bond.maturity) == (53, 6.7, D(2034, 11, 15))
    assert sap.tags["group"] == "Information Technology"
    assert "the header is in row 4; above it: 'Portfolio: ACME'; 'As of 2026-05-29" in said(read)
    assert "row 11, 'Total', is a total and no position; it agrees with the sum of all rows, 193,250" in said(read)
    assert "row 5, 'Equities', is the heading of a group" in said(read)
    assert "row 12 is a remark and no position" in said(read)
    assert checked(read).value_base == pytest.approx(193_250)


def test_a_bond_is_a_governments_by_class_key_or_name_and_no_companys_is(tmp_path: Path) -> None:
    read = book_of(
        tmp_path,
        """AssetClass,SubCategory,Symbol,Description,Quantity,Value,Currency,Duration
BOND,Govt,T 4 1/4 11/15/34,US TREASURY N/B,1000,1000,USD,7
BOND,,UST 4.25 11/34,,1000,1000,USD,7
BOND,,DE0001102580,BUNDESREPUB. DEUTSCHLAND 0 02/32,1000,1000,EUR,7
BOND,,T 4.1 02/15/28 Govt,,1000,1000,USD,2
BOND,Corp,T 4.3 12/15/42,AT&T INC,1000,1000,USD,11
BOND,,GILTEDGE PLC 5 01/30,GILTEDGE PLC,1000,1000,GBP,4""",
    )
    sectors = {one.id: one.sector for one in positions_of(read).values()}
    assert [sector == "Government" for sector in sectors.values()] == [True, True, True, True, False, False]


def test_a_total_that_does_not_agree_is_said_with_both_figures(tmp_path: Path) -> None:
    path = port(tmp_path, ["COCA-COLA", "KO US Equity", None, 500, 70.5, 35_250, 10, "USD"],
                ["Total", None, None, None, None, 99_000])  # fmt: skip
    assert "it says 99,000, and the rows above it sum to 35,250" in said(read_book(path))


def test_a_company_called_total_is_a_position(tmp_path: Path) -> None:
    read = book_of(tmp_path, "Name,ISIN,Quantity,Price,Currency", "Total,FR0000120271,10,60,EUR",
                   "TotalEnergies,FR0000120271,5,60,EUR")  # fmt: skip
    assert positions_of(read)["FR0000120271"].quantity == 15
    assert "FR0000120271 stand in several rows, which are added" in said(read)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_a_german_list_is_read_by_its_words_and_decimal_commas(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "depot.csv"
    path.write_bytes(GERMAN.encode(encoding))
    read = read_book(path)
    found = positions_of(read)
    assert (found["DE0007236101"].quantity, found["DE0007236101"].market_value) == (1000, 250_500)
    bond = found["DE000BU2Z031"]
    assert (bond.asset_class, bond.coupon, bond.maturity) == ("bond", 0.026, D(2034, 8, 15))
    assert (bond.yield_, bond.price) == (pytest.approx(0.0263), 99.8)
    assert "column 'Marktwert': the comma is the decimal mark" in said(read)
    assert "column 'Fälligkeit': days are read day-first" in said(read)


def test_a_french_list_is_read_too(tmp_path: Path) -> None:
    read = book_of(tmp_path, "Libellé\tCode ISIN\tQuantité\tCours\tDevise\tValorisation\tClasse d'actif",
                   "AIR LIQUIDE\tFR0000120073\t100\t170,25\tEUR\t17 025,00\tActions", name="titres.tsv")  # fmt: skip
    (one,) = read.portfolio.positions
    assert (one.id, one.asset_class, one.market_value, one.price) == ("FR0000120073", "equity", 17_025, 170.25)


def test_columns_without_known_names_are_told_by_their_cells(tmp_path: Path) -> None:
    read = book_of(tmp_path, "Wert A,Wert B,Wert C,Quantity", "US1912161007,USD,stock,10", "DE0007236101,EUR,stock,5")
    assert fields_of(read) == {"Wert A": "isin", "Wert B": "currency", "Wert C": "asset_class", "Quantity": "quantity"}
    assert {one.column: one.why for one in read.portfolio.columns}["Wert A"] == "its cells are ISINs"


@pytest.mark.parametrize(
    ("header", "rows", "says", "mend"),
    [
        ("Symbol,Qty,Currency", ["KO,1.234,USD"], "column 'Qty': '1.234' may be 1.234 or 1234", "--decimal"),
        ("Symbol,Type,Qty,Currency,Strike,Put/Call,Expiry", ["KO,option,1,USD,60,P,01.02.2026"],
         "01.02.2026 may be 1 February or 2 January", "--dates day-first"),
        ("Symbol,Qty,Shares,Currency", ["KO,1,2,USD"], "columns 'Qty' and 'Shares' may both be the quantity", "map"),
        ("Symbol,Thing,Currency", ["KO,1,USD"], "no column 'quantity' or 'market_value'", "--map"),
        ("Symbol,Qty", ["KO,1"], "no column 'currency'", "--set currency=USD --save-map"),
    ],
)  # fmt: skip
def test_what_may_be_read_in_two_ways_is_refused_in_one_line_with_the_mend(
    tmp_path: Path, header: str, rows: list[str], says: str, mend: str
) -> None:
    with pytest.raises(InputError, match=r".") as refused:
        book_of(tmp_path, header, *rows)
    assert says in refused.value.message
    assert mend in refused.value.fix


AMERICAN = """"Positions for account ...123 as of 2026/11/27","","","","",""
"Symbol","Description","Qty (Quantity)","Price","Mkt Val (Market Value)","Security Type",
"KO","COCA COLA","1,000","$70.50","$70,500.00","Equity",
"AGG","CORE BONDS","50","$100.00","$5,000.00","ETFs & Closed End Funds",
"-SPY261218P640","SPY DEC 18 2026 $640 PUT","-2","$6.35","($1,270.00)","Option",
"Cash & Cash Investments","--","--","--","$5,000.00","Cash and Money Market",
"Account Total","","--","--","$79,230.00","--",
"The data and information in this spreadsheet is provided to you solely for your use."
"""


def test_dollars_of_no_country_are_asked_for_and_then_hold_for_all_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="may be the dollar of the United States, Canada") as refused:
        book_of(tmp_path, AMERICAN)
    assert "--set currency=USD" in refused.value.fix
    read = book_of(tmp_path, AMERICAN, map=Map(constants={"currency": "USD"}))
    assert not read.portfolio.refused
    assert {one.asset_class for one in read.portfolio.positions} == {"equity", "fund", "option", "cash"}
    option = positions_of(read)["-SPY261218P640"]
    assert (option.underlying, option.strike, option.multiplier, option.quantity) == ("SPY", 640, 100, -2)
    assert "'Account Total', is a total and no position; it agrees with the sum of all rows, 79,230" in said(read)
    assert "row 8 is a remark and no position" in said(read)


def test_a_column_of_kinds_of_accounts_is_no_class_of_assets(tmp_path: Path) -> None:
    read = book_of(tmp_path, "Symbol,Quantity,Price,Currency,Type", "KO,10,70,USD,Cash", "PEP,10,150,USD,Margin")
    assert [one.asset_class for one in read.portfolio.positions] == ["equity", "equity"]


def test_every_command_names_the_one_that_settles_a_question(tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_text("Symbol,Qty,Currency\nKO,1.234,USD\n")
    with pytest.raises(InputError, match="may be") as refused:
        load_portfolio(path)
    assert f"'finllm portfolio check {path} --save-map'" in refused.value.fix


def test_a_map_settles_what_columns_are_and_is_then_read_by_every_command(tmp_path: Path) -> None:
    lines = ("Papier,Menge A,Menge B,Kauf", "KO,1.234,7,USD")
    given = Map.model_validate({
        "columns": {"Papier": "id", "Menge A": "quantity", "Menge B": None}, "decimal": "comma",
        "constants": {"currency": "USD", "asset_class": "equity"},
    })  # fmt: skip
    read = book_of(tmp_path, *lines, map=given)
    (one,) = read.portfolio.positions
    assert (one.quantity, one.tags["Menge B"]) == (1234, "7")
    saved = save_map(tmp_path / "book.csv", given)
    assert (saved, load_map(saved)) == (beside(tmp_path / "book.csv"), given)
    assert load_portfolio(tmp_path / "book.csv").positions == read.portfolio.positions
    assert "read by the map 'book.csv.map.yaml' beside it" in load_portfolio(tmp_path / "book.csv").notes


@pytest.mark.parametrize(
    ("text", "says"),
    [("columns: {A: quantities}\n", "'quantities' is no field"), ("colums: {}\n", "'colums'"),
     ("- 1\n", "not a map|field"),
     ("sheet: [\n", "not a map"), ("dates: first\n", "'dates'"), ("sheet: A\nsheet: B\n", "stands twice")],
)  # fmt: skip
def test_a_bad_map_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(InputError, match=says):
        load_map(tmp_path / "map.yaml")


def test_refused_rows_stay_out_alone_with_reason_and_worth_and_are_summed_up(tmp_path: Path) -> None:
    bad = [f"X{at},,{at}00,USD,meme" for at in range(1, 9)]
    read = book_of(tmp_path, OWN, "KO,,1000,USD,equity", *bad)
    assert [one.id for one in read.portfolio.positions] == ["KO"]
    first = read.portfolio.refused[0]
    assert (first.id, first.row, first.market_value) == ("X1", 3, 100)
    assert "'meme' is not one of equity" in first.reason
    assert sum("is refused" in note for note in read.portfolio.notes) == 3
    assert "and 5 more rows are refused" in read.portfolio.notes
    found = checked(read)
    assert (found.coverage.refused, found.coverage.read) == (8, 1)
    assert found.coverage.share == pytest.approx(1000 / 4600)


LIST = "Symbol,Security Type,Currency,Quantity,Price,Market Value"


def test_rows_of_one_instrument_are_added_unless_their_terms_differ(tmp_path: Path) -> None:
    read = book_of(tmp_path, LIST, "A,equity,USD,10,5,50", "A,equity,USD,-4,5,-20", "A,equity,EUR,10,5,50")
    assert positions_of(read)["A"].quantity == 6
    assert "already in row 2, with other terms" in read.portfolio.refused[0].reason


def test_a_file_of_totals_alone_holds_no_position(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no position"):
        book_of(tmp_path, "Symbol,Currency,Market Value", "Total,,100")


def test_a_position_without_a_fresh_price_is_worth_what_its_file_says(tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_text(f"{LIST},Beta\nZZZ,equity,USD,10,5,50,1\nKO,equity,USD,10,70,700,\n")
    book = value_portfolio(load_portfolio(path), MARKET, D(2022, 6, 30))
    worth = {one.id: one.market_value for one in book.holdings}
    assert worth["ZZZ"] == 50
    assert worth["KO"] == pytest.approx(10 * float(MARKET.read("KO", D(2022, 6, 30)).values.iloc[-1]))
    assert any("'KO' is worth" in note and "700 by its file" in note for note in book.notes)


@pytest.mark.parametrize("text", ["US0378331005", "DE0007164600", "GB00BP6MXD84", "JP3633400001"])
def test_an_isin_is_known_by_its_check_digit(text: str) -> None:
    assert is_isin(text)
    assert not is_isin(text[:-1] + str((int(text[-1]) + 1) % 10))


def test_a_cusip_is_known_by_its_check_digit() -> None:
    assert is_cusip("037833100")
    assert not is_cusip("037833101")


def test_the_table_of_synonyms_names_no_word_twice() -> None:
    from finllm.tools.data.books.fields import _yaml  # pyright: ignore[reportPrivateUsage]

    data = _yaml("synonyms.yaml")
    for part in ("fields", "asset_classes"):
        named = [(plain(word), field) for field, some in data[part].items() for word in some]
        twice = {word for word, field in named if {other for one, other in named if one == word} != {field}}
        assert not twice
    assert set(words().asset_classes.values()) <= set(ASSET_CLASSES)


SHARED_RIGHT = {
    "gbx.csv": 3, "ib_flex.csv": 10, "leadingblank_bom.csv": 1, "multi.csv": 12, "multi_stripped.csv": 12,
    "port_clean.xlsx": 9, "semicolon.csv": 2, "small.csv": 4, "small_renamed.csv": 4, "split_book.csv": 1,
    "flat_book.csv": 2, "thousands.csv": 1,
}  # fmt: skip


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/cases beside the repository")
@pytest.mark.parametrize(("name", "count"), SHARED_RIGHT.items())
def test_the_shared_books_are_read_whole(name: str, count: int) -> None:
    read = read_book(SHARED / name)
    assert len(read.portfolio.positions) == count
    assert [one.id for one in read.portfolio.refused] == (["BOND1"] if name == "thousands.csv" else [])
