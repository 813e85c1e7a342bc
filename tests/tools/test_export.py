"""Results as tables: what is read back is the result to the cent, and text stays text."""

import csv
import datetime as dt
import io
from decimal import Decimal
from unicodedata import normalize

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import load_workbook

from finllm.errors import InputError
from finllm.scenarios import PORTFOLIOS_DIR
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.factors import UserShock
from finllm.tools.data.market import MarketStore
from finllm.tools.export import FORMATS, Table, engine_tables, parse_formats, table_files
from finllm.tools.pnl.engine import run_engine
from finllm.tools.pnl.outcome import EngineResult

CUTS = ("by_position", "by_factor", "by_sector", "by_direction")
Money = dict[str, Decimal]


@pytest.fixture(scope="module")
def result() -> EngineResult:
    shocks = [UserShock(factor="OIL_WTI", amount=0.4, in_sigmas=False),
              UserShock(factor="EQUITY_US", amount=-3, in_sigmas=True)]  # fmt: skip
    book = load_portfolio(PORTFOLIOS_DIR / "default.csv")
    return run_engine(book, MarketStore(), dt.date(2022, 6, 30), 20, shocks, propagate=True)


def from_csv(data: bytes) -> Money:
    rows = list(csv.reader(io.StringIO(data.decode())))[1:]
    return {name: Decimal(usd) for name, usd in rows}


def from_parquet(data: bytes) -> Money:
    frame = pd.read_parquet(io.BytesIO(data))
    return dict(zip(frame.iloc[:, 0], frame.iloc[:, 1], strict=True))


def from_excel(data: bytes, sheet: str) -> Money:
    rows = list(load_workbook(io.BytesIO(data))[sheet].iter_rows(min_row=2, values_only=True))
    return {str(row[0]): Decimal(str(row[1])).quantize(Decimal("0.01")) for row in rows}


@pytest.mark.parametrize("cut", CUTS)
def test_every_cut_comes_back_to_the_cent_from_every_format(result: EngineResult, cut: str) -> None:
    files = table_files(engine_tables(result), FORMATS, "result")
    true = getattr(result, cut)
    assert from_csv(files[f"{cut}.csv"]) == true
    assert from_parquet(files[f"{cut}.parquet"]) == true
    assert from_excel(files["result.xlsx"], cut) == true
    assert sum(from_parquet(files[f"{cut}.parquet"]).values(), Decimal(0)) == result.total


def test_every_table_is_in_every_format(result: EngineResult) -> None:
    tables = engine_tables(result)
    files = table_files(tables, FORMATS, "result")
    names = {table.name for table in tables}
    assert names == {"summary", *CUTS, "by_horizon", "shocks", "liquidity", "left_out", "risk_by_position",
                     "risk_by_factor"}  # fmt: skip
    assert set(files) == {f"{name}.{kind}" for name in names for kind in ("csv", "parquet")} | {"result.xlsx"}
    assert set(load_workbook(io.BytesIO(files["result.xlsx"])).sheetnames) == names
    shocks = pd.read_parquet(io.BytesIO(files["shocks.parquet"]))
    assert list(shocks["move"]) == [row.move for row in result.shocks]


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
amounts = st.decimals(-(10**12), 10**12, places=2, allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        names.filter(lambda name: normalize("NFKC", name[0]) not in "=+-@'"), amounts, min_size=1, max_size=8
    )
)
def test_any_amount_and_name_survives(gains: Money) -> None:
    files = table_files([Table("cut", ("position", "usd"), tuple(gains.items()))], FORMATS, "book")
    assert from_csv(files["cut.csv"]) == gains
    assert from_parquet(files["cut.parquet"]) == gains
    assert from_excel(files["book.xlsx"], "cut") == gains


@pytest.mark.parametrize(
    "name", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "＝1+1", "＋1", "－1", "＠SUM(A1)", "﹦1"]
)
def test_a_name_is_never_run_as_a_formula(name: str) -> None:
    files = table_files([Table("cut", ("position", "usd"), ((name, Decimal("-1.00")),))], FORMATS, "book")
    row = next(csv.reader(io.StringIO(files["cut.csv"].decode().split("\n", 1)[1])))
    assert row == [f"'{name}", "-1.00"]
    cell = load_workbook(io.BytesIO(files["book.xlsx"]))["cut"]["A2"]
    assert (cell.data_type, cell.value) == ("s", name)
    assert pd.read_parquet(io.BytesIO(files["cut.parquet"])).iloc[0, 0] == name


def test_control_characters_that_excel_cannot_hold_are_blanked() -> None:
    files = table_files([Table("cut", ("position",), (("a\x00b",),))], ("xlsx",), "book")
    assert load_workbook(io.BytesIO(files["book.xlsx"]))["cut"]["A2"].value == "a b"


def test_an_empty_table_has_its_header_in_every_format() -> None:
    files = table_files([Table("none", ("position", "reason"), ())], FORMATS, "book")
    assert files["none.csv"] == b"position,reason\n"
    assert list(pd.read_parquet(io.BytesIO(files["none.parquet"])).columns) == ["position", "reason"]
    assert load_workbook(io.BytesIO(files["book.xlsx"]))["none"]["B1"].value == "reason"


def test_formats_are_read_and_unknown_ones_refused() -> None:
    assert parse_formats("xlsx, CSV") == ("csv", "xlsx")
    for text in ("pdf", "csv,", ""):
        with pytest.raises(InputError) as caught:
            parse_formats(text)
        assert caught.value.fix == "use csv, parquet, xlsx"
