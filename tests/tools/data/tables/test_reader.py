"""Any table of people becomes a header and rows of cells; what was decided about it is said, nothing is guessed."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finllm.errors import InputError
from finllm.tools.data.tables.reader import read_table
from finllm.tools.data.tables.table import Caps, Table

ROWS = "id,quantity,currency\nAAPL,100,USD\nMÜV2,-5,EUR\n"
SHARED = Path(__file__).resolve().parents[5] / "shared" / "cases"


def table_of(tmp_path: Path, content: str | bytes, name: str = "book.csv") -> Table:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, what="portfolio")


def workbook(tmp_path: Path, **sheets: list[list[object]]) -> tuple[Path, openpyxl.Workbook]:
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    return tmp_path / "book.xlsx", book


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", ""), ("utf-8-sig", ""), ("utf-16", "read as UTF-16"), ("utf-16-le", "read as UTF-16"),
        ("utf-16-be", "read as UTF-16"), ("utf-32", "read as UTF-32"),
        ("cp1252", "read as Windows-1252, as it is not UTF-8"),
    ],
)  # fmt: skip
def test_every_usual_encoding_reads_the_same_and_is_said(tmp_path: Path, encoding: str, said: str) -> None:
    table = table_of(tmp_path, ROWS.encode(encoding))
    assert table.header == ("id", "quantity", "currency")
    assert table.rows[1] == ["MÜV2", "-5", "EUR"]
    assert "".join(table.notes) == said


@pytest.mark.parametrize(("sign", "said"), [(";", "';'"), ("\t", "a tab"), ("|", "'|'")])
def test_the_separator_is_found_and_said(tmp_path: Path, sign: str, said: str) -> None:
    text = ROWS.replace(",", sign).replace("100", "100,5")
    table = table_of(tmp_path, text, "book.txt")
    assert table.rows[0] == ["AAPL", "100,5", "USD"]
    assert table.notes == (f"cells are separated by {said}",)


def test_a_declared_separator_is_followed(tmp_path: Path) -> None:
    table = table_of(tmp_path, "sep=;\n" + ROWS.replace(",", ";"))
    assert (table.header, table.numbers) == (("id", "quantity", "currency"), [3, 4])


def test_a_quoted_cell_may_hold_the_separator_and_line_breaks(tmp_path: Path) -> None:
    table = table_of(tmp_path, 'id,name\nA,"Alpha, ""the"" first\nof two lines"\nB,Beta\n')
    assert table.rows == [["A", 'Alpha, "the" first\nof two lines'], ["B", "Beta"]]
    assert table.numbers == [2, 4]


@pytest.mark.parametrize("text", ['id,n,c\nA,"1,USD\nB,2,EUR\n', 'id,n,c\nA,"1,USD\nB,2,EUR\nC,3",USD\n'])
def test_a_quote_that_is_missing_swallows_no_rows(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="row 2") as refused:
        table_of(tmp_path, text)
    assert "quote" in refused.value.fix or "unexpected end" in refused.value.message


def test_two_separators_that_fit_alike_are_refused_with_both(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="may be separated by a comma or ';'"):
        table_of(tmp_path, "a,b;c\n1,2;3\n")


def test_a_row_with_too_many_cells_is_refused_with_its_number(tmp_path: Path) -> None:
    many = "".join(f"S{at},1,000,USD\n" for at in range(5))
    with pytest.raises(InputError, match="the header has 3 cells, but row 4 has 4") as refused:
        table_of(tmp_path, ROWS + many)
    assert refused.value.message.endswith("row 6 has 4, and 2 more rows have too many")


def test_a_header_below_blank_lines_and_a_preamble_is_found_and_said(tmp_path: Path) -> None:
    table = table_of(tmp_path, f"\ufeff  ,,\nHoldings of the fund,,\nAs of,2026-11-27,\n\n{ROWS}")
    assert (table.header[0], table.numbers) == ("id", [6, 7])
    assert table.notes == ("the header is in row 5; above it: 'Holdings of the fund'; 'As of 2026-11-27'",)


def test_a_preamble_as_wide_as_the_table_is_told_by_the_names(tmp_path: Path) -> None:
    text = f"Fund,Bank,Manager\nOne,Two,Three\n{ROWS}"
    path = tmp_path / "book.csv"
    path.write_text(text)
    assert read_table(path, what="portfolio", known=lambda name: name in ("id", "quantity")).header[0] == "id"


def test_a_header_of_several_lines_is_joined_and_kept(tmp_path: Path) -> None:
    text = "Price,Close,Close,Volume,Volume\nTicker,AAPL,MSFT,AAPL,MSFT\nDate,,,,\n2026-01-02,1,2,3,4\n"
    table = table_of(tmp_path, text)
    assert table.header == ("Price Ticker Date", "Close AAPL", "Close MSFT", "Volume AAPL", "Volume MSFT")
    assert table.levels[1] == ("Ticker", "AAPL", "MSFT", "AAPL", "MSFT")
    assert table.notes == ("the header has 3 lines, rows 1 to 3",)


def test_a_parquet_of_several_levels_reads_as_such_a_header(tmp_path: Path) -> None:
    frame = pd.DataFrame([[1.0, 2.0]], index=pd.DatetimeIndex(["2026-01-02"], name="Date"),
                         columns=pd.MultiIndex.from_product([["Close"], ["AAPL", "MSFT"]]))  # fmt: skip
    path = tmp_path / "prices.parquet"
    frame.to_parquet(path)
    table = read_table(path, what="price file")
    assert table.header == ("Date", "Close AAPL", "Close MSFT")
    assert table.levels == (("Date", "Close", "Close"), ("", "AAPL", "MSFT"))
    assert table.rows == [[pd.Timestamp("2026-01-02"), 1.0, 2.0]]


def test_a_parquet_index_that_only_counts_is_not_a_column(tmp_path: Path) -> None:
    path = tmp_path / "book.parquet"
    pd.DataFrame({"id": ["A", "B", None], "beta": [1.0, None, 2.0]}).iloc[[2, 0, 1]].to_parquet(path)
    table = read_table(path, what="portfolio")
    assert table.header == ("id", "beta")
    assert table.rows == [[None, 2.0], ["A", 1.0], ["B", None]]


def test_several_sheets_are_refused_with_all_names_and_one_is_picked(tmp_path: Path) -> None:
    path, book = workbook(tmp_path, **{"Old 2021": [["id", "n"], ["MSFT", 1]], "Current": [["id", "n"], ["AAPL", 2]]},
                          Empty=[])  # fmt: skip
    book.active = 1
    book.save(path)
    with pytest.raises(InputError, match="2 sheets with cells: 'Old 2021', 'Current'; 'Current' is the one") as refused:
        read_table(path, what="portfolio")
    assert refused.value.fix == "name one, such as --sheet 'Current'"
    table = read_table(path, what="portfolio", sheet="old 2021")
    assert (table.sheet, table.rows) == ("Old 2021", [["MSFT", 1]])
    with pytest.raises(InputError, match="no sheet 'Currant'"):
        read_table(path, what="portfolio", sheet="Currant")


def test_a_hidden_sheet_is_not_read_and_hidden_rows_are_both_said(tmp_path: Path) -> None:
    path, book = workbook(tmp_path, Notes=[["draft"]], Book=[["id", "n"], ["AAPL", 2], ["MSFT", 3]])
    book["Notes"].sheet_state = "hidden"
    book["Book"].row_dimensions[3].hidden = True
    book.save(path)
    table = read_table(path, what="portfolio")
    assert table.rows == [["AAPL", 2], ["MSFT", 3]]
    assert table.notes == ("hidden sheets are not read: 'Notes'", "1 hidden rows are read too: row 3")


def test_a_formula_that_was_never_calculated_is_named(tmp_path: Path) -> None:
    path, book = workbook(tmp_path, Book=[["id", "value"], ["AAPL", "=100*250"], ["MSFT", 3]])
    book.save(path)
    with pytest.raises(InputError, match="cell B2 is a formula that was never calculated") as refused:
        read_table(path, what="portfolio")
    assert refused.value.fix == "open and save it in Excel"


def test_merged_headers_name_every_column_below_them(tmp_path: Path) -> None:
    path, book = workbook(tmp_path, Book=[["Security", None, "Position", None], ["Name", "ISIN", "Quantity", "Value"],
                                          ["Apple", "US0378331005", 3, 4.5]])  # fmt: skip
    book["Book"].merge_cells("A1:B1")
    book["Book"].merge_cells("C1:D1")
    book.save(path)
    table = read_table(path, what="portfolio")
    assert table.header == ("Security Name", "Security ISIN", "Position Quantity", "Position Value")
    assert table.levels[0] == ("Security", "Security", "Position", "Position")


@pytest.mark.parametrize("epoch", [1900, 1904])
def test_dates_of_both_epochs_come_out_the_same(tmp_path: Path, epoch: int) -> None:
    path, book = workbook(tmp_path, Book=[["id", "day"], ["AAPL", dt.datetime(2026, 11, 27)]])  # noqa: DTZ001
    book.epoch = dt.datetime(1904, 1, 1) if epoch == 1904 else book.epoch  # noqa: DTZ001
    book.save(path)
    table = read_table(path, what="portfolio")
    assert (table.epoch, table.rows) == (epoch, [["AAPL", dt.datetime(2026, 11, 27)]])  # noqa: DTZ001


@pytest.mark.parametrize(
    ("name", "content", "says", "mend"),
    [
        ("book.xls", b"x", "not '.xls'", "save it in Excel as .xlsx"),
        ("book.csv", b"PK\x03\x04rest", "its content is that of a .xlsx file", "rename it to end in .xlsx"),
        ("book.csv", b"a,b\n1,\x00\n", "is no text", "CSV in UTF-8"),
        ("book.xlsx", b"PK\x03\x04rest", "cannot be read", "export it again as .xlsx"),
        ("book.csv", b"", "the portfolio is empty", "add a header row"),
        ("book.csv", b"\n ,, \n\n", "the portfolio is empty", "add a header row"),
        ("book.csv", b"id,beta\n", "the portfolio is empty", "add a header row"),
    ],
)
def test_what_is_no_table_is_refused_with_the_mend(
    tmp_path: Path, name: str, content: bytes, says: str, mend: str
) -> None:
    with pytest.raises(InputError, match=says) as refused:
        table_of(tmp_path, content, name)
    assert mend in refused.value.fix


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        read_table(tmp_path, what="portfolio")


def test_a_parquet_that_unpacks_to_gigabytes_is_refused_by_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "huge.parquet"
    group = pa.table({"id": pa.DictionaryArray.from_arrays(pa.array([0] * 1_500_000, pa.int32()), ["A"])})
    pq.write_table(group, path)
    began = time.perf_counter()
    with pytest.raises(InputError, match="is larger than the 1,000,000 rows that are read"):
        read_table(path, what="portfolio")
    assert time.perf_counter() - began < 1


def test_a_text_that_repeats_in_a_parquet_is_held_once(tmp_path: Path) -> None:
    path = tmp_path / "wide.parquet"
    pq.write_table(pa.table({"id": ["x" * 100_000] * 20_000, "n": list(range(20_000))}), path)
    table = read_table(path, what="portfolio")
    assert len({id(row[0]) for row in table.rows}) == 1


def test_a_workbook_of_twelve_million_rows_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "huge.xlsx"
    book = openpyxl.Workbook()
    book.save(tmp_path / "small.xlsx")
    with ZipFile(tmp_path / "small.xlsx") as small, ZipFile(path, "w", ZIP_DEFLATED, compresslevel=1) as huge:
        for name in small.namelist():
            if name != "xl/worksheets/sheet1.xml":
                huge.writestr(name, small.read(name))
        with huge.open("xl/worksheets/sheet1.xml", "w") as sheet:
            sheet.write(b"<worksheet><sheetData>")
            for _ in range(120):
                sheet.write(b"<row><c><v>1</v></c></row>" * 100_000)
            sheet.write(b"</sheetData></worksheet>")
    began = time.perf_counter()
    with pytest.raises(InputError, match="is larger than"):
        read_table(path, what="portfolio")
    assert time.perf_counter() - began < 1


def test_caps_may_be_other_ones(tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_text(ROWS)
    for caps, what in ((Caps(rows=2), "2 rows"), (Caps(cells=8), "8 cells"), (Caps(bytes=9), "9 bytes")):
        with pytest.raises(InputError, match=f"larger than the {what} that are read"):
            read_table(path, what="portfolio", caps=caps)


def test_the_caps_are_settings_and_the_mend_names_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "book.csv"
    path.write_text(ROWS)
    monkeypatch.setenv("FINLLM_TABLE_ROWS", "2")
    with pytest.raises(InputError, match="larger than the 2 rows that are read") as refused:
        read_table(path, what="portfolio")
    assert "raise the setting table_rows (FINLLM_TABLE_ROWS)" in refused.value.fix
    monkeypatch.setenv("FINLLM_TABLE_ROWS", "50")
    assert read_table(path, what="portfolio").rows


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/cases beside the repository")
def test_the_shared_files_read_or_are_refused_for_their_reason() -> None:
    refused: dict[str, str] = {}
    for path in sorted([*SHARED.glob("books/*"), *SHARED.glob("prices/*")]):
        try:
            assert read_table(path, what="table").rows
        except InputError as error:
            refused[path.name] = error.message
    assert set(refused) == {"xl_formula.xlsx", "xl_two_sheets.xlsx"}
