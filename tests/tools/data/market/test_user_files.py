"""Price files in the forms that vendors and people have: what is read of each, and what is said about it."""

from __future__ import annotations

import datetime as dt
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.tools.data.market import FileRead, ReadOptions, Series, read_price_file

from .made import SHARED, column, days, series, walk, write

N = 40


def one(read: FileRead) -> Series:
    (found,) = read.series
    return found


def bars(path: Path, header: str, adjusted: bool, newest_first: bool = False) -> Path:
    """A day per row: open, high, low, close, perhaps its adjusted close, volume."""
    rows = []
    for day, close in zip(days(N), walk(N), strict=True):
        cells = [f"{close:.2f}", f"{close * 1.01:.2f}", f"{close * 0.99:.2f}", f"{close:.2f}"]
        rows.append(",".join([str(day)[:10], *cells, *([f"{close / 2:.4f}"] if adjusted else []), "1000"]))
    return write(path, header, reversed(rows) if newest_first else rows)


def test_yahoos_bars_are_one_instrument_by_its_adjusted_close_and_named_by_the_file(tmp_path: Path) -> None:
    found = one(read_price_file(bars(tmp_path / "ACME.csv", "Date,Open,High,Low,Close,Adj Close,Volume", True)))
    assert (found.name, found.unit, found.frequency, len(found.values)) == ("ACME", "price", "daily", N)
    assert found.values.iloc[0] == pytest.approx(walk(N)[0] / 2, abs=1e-4)
    assert any("'Adj Close' is read, not Open, High, Low, Close, Volume" in note for note in found.notes)
    assert any("the name 'ACME' is from the file's; --as NAME gives another" in note for note in found.notes)


@pytest.mark.parametrize(
    ("file", "name"),
    [("yahoo_ACME.csv", "ACME"), ("acme_us_d.csv", "ACME"), ("ACME daily prices.csv", "ACME"),
     ("stooq_d.csv", "stooq_d"), ("BRK-B.csv", "BRK_B"), ("^ftse.csv", "^FTSE")],
)  # fmt: skip
def test_the_name_is_what_is_left_of_the_files(tmp_path: Path, file: str, name: str) -> None:
    path = bars(tmp_path / file, "Date,Open,High,Low,Close,Volume", False)
    assert one(read_price_file(path)).name == name
    assert one(read_price_file(path, ReadOptions(names={None: "OTHER"}))).name == "OTHER"


def test_stooqs_text_file_names_its_instrument(tmp_path: Path) -> None:
    rows = (f"ACME.US,D,{str(day)[:10].replace('-', '')},000000,1,2,0.5,{close:.2f},100,0"
            for day, close in zip(days(N), walk(N), strict=True))  # fmt: skip
    path = write(
        tmp_path / "acme.us.txt", "<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>", rows
    )
    found = one(read_price_file(path))
    assert (found.name, str(found.values.index[-1])[:10]) == ("ACME", str(days(N)[-1])[:10])
    assert found.values.iloc[0] == pytest.approx(walk(N)[0], abs=0.01)


@pytest.mark.parametrize("by_ticker", [False, True])
def test_yfinances_two_lines_of_header_are_instruments_by_their_adjusted_close(tmp_path: Path, by_ticker: bool) -> None:
    fields, tickers = ["Adj Close", "Close"] * 2, ["AAA1", "AAA1", "BBB1", "BBB1"]
    columns = list(zip(fields, tickers, range(4), strict=True))
    if not by_ticker:
        columns.sort()
    heads = {"Price": [one[0] for one in columns], "Ticker": [one[1] for one in columns]}
    lines = [",".join([head, *heads[head]]) for head in (("Ticker", "Price") if by_ticker else ("Price", "Ticker"))]
    rows = (",".join([str(day)[:10], *(f"{a * (0.5, 1, 1, 2)[at]:.4f}" for *_, at in columns)])
            for day, a in zip(days(N), walk(N), strict=True))  # fmt: skip
    read = read_price_file(write(tmp_path / "data.csv", "\n".join([*lines, "Date,,,,"]), rows))
    assert [found.name for found in read.series] == ["AAA1", "BBB1"]
    assert read.series[0].values.iloc[0] == pytest.approx(walk(N)[0] / 2, abs=1e-4)
    assert read.series[1].values.iloc[0] == pytest.approx(walk(N)[0], abs=1e-4)


@pytest.mark.parametrize("hole", [".", "", "NaN", "#N/A"])
def test_freds_holes_are_holidays_and_its_yields_per_cent(tmp_path: Path, hole: str) -> None:
    rows = [f"{str(day)[:10]},{hole if at in (3, 9) else f'{3.9 + at / 100:.2f}'}" for at, day in enumerate(days(N))]
    found = one(read_price_file(write(tmp_path / "x.csv", "observation_date,DGS10", rows)))
    assert (found.name, found.unit, len(found.values)) == ("DGS10", "percent", N - 2)
    assert any("2 days without a figure are taken for holidays" in note for note in found.notes)


def test_the_central_banks_rates_are_turned_round_and_what_has_none_is_said(tmp_path: Path) -> None:
    rows = [
        f"{str(day)[:10]},{1 + at / 100:.4f},{130 + at},N/A,{0.8 + at / 1000:.4f}," for at, day in enumerate(days(N))
    ]
    read = read_price_file(write(tmp_path / "eurofxref-hist.csv", "Date,USD,JPY,SIT,GBP,", reversed(rows)))
    assert [found.name for found in read.series] == ["EURUSD", "EURJPY", "EURGBP"]
    assert read.series[0].values.index.is_monotonic_increasing
    assert read.series[0].values.iloc[0] == 1.0
    assert any("the newest day came first: turned round" in note for note in read.series[0].notes)
    assert any("no figure at all in SIT" in note for note in read.notes)


def test_the_treasurys_columns_are_yields_by_maturity(tmp_path: Path) -> None:
    rows = [f"{day:%m/%d/%Y},5.{at:02},4.{at:02},4.5" for at, day in enumerate(days(N))]
    read = read_price_file(write(tmp_path / "par.csv", "Date,1 Mo,2 Yr,10 Yr", reversed(rows)))
    assert [(found.name, found.unit) for found in read.series] == [
        ("DGS1MO", "percent"), ("DGS2", "percent"), ("DGS10", "percent"),
    ]  # fmt: skip
    assert "'10 Yr' is kept as DGS10, US Treasury yield, 10 years" in " ".join(read.series[2].notes)


def test_a_long_table_holds_a_row_for_a_day_and_an_instrument(tmp_path: Path) -> None:
    rows = [f"{name},{str(day)[:10]},{price:.2f},9" for name, k in (("UP", 1), ("DOWN", 2))
            for day, price in zip(days(N), walk(N) * k, strict=True)]  # fmt: skip
    read = read_price_file(write(tmp_path / "tidy.csv", "ticker,date,close,volume", rows))
    assert [(found.name, len(found.values)) for found in read.series] == [("UP", N), ("DOWN", N)]
    assert read.series[1].values.iloc[0] == pytest.approx(2 * walk(N)[0], abs=0.01)
    assert "not volume" in " ".join(read.notes)


def test_a_german_table_is_read_by_its_separator_comma_and_days_and_that_is_said(tmp_path: Path) -> None:
    rows = [f"{day:%d.%m.%Y};{price:.2f};{2 * price:.2f}" for day, price in zip(days(N), walk(N), strict=True)]
    rows = [re.sub(r"(?<=;)(\d+)\.(\d+)", r"\1,\2", row) for row in rows]
    read = read_price_file(write(tmp_path / "kurse.csv", "Datum;EINS;ZWEI", rows))
    assert read.series[0].values.iloc[0] == pytest.approx(walk(N)[0], abs=0.01)
    said = " ".join(read.notes)
    for words in ("separated by ';'", "a decimal comma", "days are read day-first"):
        assert words in said


def test_days_that_may_be_read_either_way_are_refused_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "date,A", [f"0{at}.02.2026,{at}" for at in range(1, 8)])
    with pytest.raises(InputError, match=r"0.\.02\.2026 may be .* or .*") as refused:
        read_price_file(path)
    assert len(refused.value.message.splitlines()) == 1
    assert "--dates day-first" in (refused.value.fix or "")
    assert str(one(read_price_file(path, ReadOptions(dates="day-first"))).values.index[0])[:10] == "2026-02-01"


@pytest.mark.parametrize("epoch", [1900, 1904])
def test_excels_serial_days_are_counted_from_the_books_own_start(tmp_path: Path, epoch: int) -> None:
    from openpyxl import Workbook
    from openpyxl.utils.datetime import CALENDAR_MAC_1904, CALENDAR_WINDOWS_1900

    book = Workbook()
    book.epoch = CALENDAR_MAC_1904 if epoch == 1904 else CALENDAR_WINDOWS_1900
    start = dt.date(1904, 1, 1) if epoch == 1904 else dt.date(1899, 12, 30)
    sheet = book.active
    assert sheet is not None
    sheet.append(["date", "ACME"])
    for day, price in zip(days(N), walk(N), strict=True):
        sheet.append([(day.date() - start).days, float(price)])
    book.save(tmp_path / "book.xlsx")
    found = one(read_price_file(tmp_path / "book.xlsx"))
    assert [str(found.values.index[at])[:10] for at in (0, -1)] == [str(days(N)[at])[:10] for at in (0, -1)]


def test_months_are_stamped_with_their_first_day_and_other_steps_are_refused(tmp_path: Path) -> None:
    rows = [f"{year}-{month:02},{1900 + month}" for year in (2023, 2024) for month in range(1, 13)]
    found = one(read_price_file(write(tmp_path / "gold_monthly.csv", "Date,Price", rows)))
    assert (found.name, found.frequency, str(found.values.index[-1])[:10]) == ("GOLD", "monthly", "2024-12-01")
    assert found.known(dt.date(2024, 12, 31)) == 23
    ends = pd.date_range("2023-01-31", periods=12, freq="ME")
    by_end = one(read_price_file(column(tmp_path / "x.csv", pd.Series(range(1, 13), index=ends), "X")))
    assert str(by_end.values.index[0])[:10] == "2023-01-01"
    fortnights = pd.Series(walk(20), index=pd.date_range("2023-01-06", periods=20, freq="2W-FRI"))
    with pytest.raises(InputError, match="typically 14 days apart"):
        read_price_file(column(tmp_path / "w.csv", fortnights, "W"))


@pytest.mark.parametrize(
    ("name", "figure", "kept", "said"),
    [
        ("^TNX", 41.2, 4.12, "divided by ten"), ("^TNX", 4.12, 4.12, ""), ("DGS10", 0.0412, 4.12, "by a hundred"),
        ("DGS10", 412, 4.12, "divided by a hundred"), ("US10Y", 4.12, 4.12, "kept as DGS10"),
    ],
)  # fmt: skip
def test_a_yield_is_per_cent_whatever_its_file_counts_in(
    tmp_path: Path, name: str, figure: float, kept: float, said: str
) -> None:
    values = pd.Series(np.full(N, figure) * np.linspace(0.9, 1.1, N), index=days(N))
    found = one(read_price_file(column(tmp_path / "x.csv", values, name)))
    assert (found.name, found.unit) == ("DGS10", "percent")
    assert found.values.median() == pytest.approx(kept, rel=0.02)
    assert said in " ".join(found.notes)


def test_a_unit_that_the_name_contradicts_is_refused_and_basis_points_are_not(tmp_path: Path) -> None:
    path = column(tmp_path / "x.csv", pd.Series(np.full(N, 412.0), index=days(N)), "DGS10")
    assert one(read_price_file(path, ReadOptions(unit="bp"))).values.iloc[0] == pytest.approx(4.12)
    with pytest.raises(InputError, match="which is in percent, not in price"):
        read_price_file(path, ReadOptions(unit="price"))


def test_a_mining_share_is_not_taken_for_gold(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too far from gold, USD per troy ounce"):
        read_price_file(column(tmp_path / "x.csv", series(N, start=18.0), "GOLD"))


def test_negative_prices_are_read_and_zero_is_refused(tmp_path: Path) -> None:
    values = pd.Series([19.87, 18.27, -37.63, 10.01, 13.78], index=days(5, "2020-04-16"))
    assert one(read_price_file(column(tmp_path / "x.csv", values, "CLMAY"))).values.min() == -37.63
    with pytest.raises(InputError, match="'CLMAY' is 0 on"):
        read_price_file(column(tmp_path / "x.csv", values.clip(lower=0.0), "CLMAY"))


def test_a_zone_moves_the_days_of_moments_and_is_asked_for_where_there_are_some(tmp_path: Path) -> None:
    rows = [f"{day - pd.Timedelta(hours=1):%Y-%m-%dT%H:%M:%S}+00:00,{price:.2f}"
            for day, price in zip(days(N, "2023-01-03"), walk(N), strict=True)]  # fmt: skip
    path = write(tmp_path / "x.csv", "date,DAX", rows)
    as_written = one(read_price_file(path))
    assert "--zone takes them elsewhere" in " ".join(as_written.notes)
    there = one(read_price_file(path, ReadOptions(zone="Europe/Berlin")))
    assert [str(there.values.index[at])[:10] for at in (0, -1)] == [
        str(days(N, "2023-01-03")[at])[:10] for at in (0, -1)
    ]
    with pytest.raises(InputError, match="unknown zone 'Mars/Olympus'"):
        read_price_file(path, ReadOptions(zone="Mars/Olympus"))


def test_the_same_day_twice_is_left_out_where_the_figures_agree(tmp_path: Path) -> None:
    rows = [f"{str(day)[:10]},{at + 1}" for at, day in enumerate(days(N))]
    found = one(read_price_file(write(tmp_path / "x.csv", "date,A", [*rows[:5], rows[4], *rows[5:]])))
    assert len(found.values) == N
    assert "1 rows repeat a day with the same figure" in " ".join(found.notes)


def test_a_column_is_renamed_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "date,A,B", [f"{str(day)[:10]},1.5,2.5" for day in days(N)])
    read = read_price_file(path, ReadOptions(names={"A": "ACME"}))
    assert [found.name for found in read.series] == ["ACME", "B"]
    wrong: tuple[tuple[dict[str | None, str], str], ...] = (
        ({"Z": "ACME"}, "has no column 'Z'"), ({None: "X"}, "holds 2 series, and --as gives one name"),
    )  # fmt: skip
    for names, says in wrong:
        with pytest.raises(InputError, match=says):
            read_price_file(path, ReadOptions(names=names))


def test_the_boards_own_layout_is_read_below_its_preamble(tmp_path: Path) -> None:
    head = ["Series Description,AUSTRALIA -- SPOT,EURO AREA -- SPOT", "Unit:,Currency:_Per_AUD,Currency:_Per_EUR",
            "Multiplier:,1,1", "Unique Identifier:,H10/A,H10/E", "Time Period,RXI_A,RXI_E"]  # fmt: skip
    rows = [f"{day.year}/{day.month}/{day.day},{'ND' if at == 2 else 0.7},1.1" for at, day in enumerate(days(N))]
    read = read_price_file(write(tmp_path / "h10.csv", "\n".join(head), rows))
    assert [(found.name, len(found.values)) for found in read.series] == [("RXI_A", N - 1), ("RXI_E", N)]


def test_thirty_years_of_days_are_read_in_two_seconds(tmp_path: Path) -> None:
    path = column(tmp_path / "long.csv", series(7_800, "1995-01-02"), "LONG")
    started = time.perf_counter()
    assert len(one(read_price_file(path)).values) == 7_800
    assert time.perf_counter() - started < 2


VENDORS = {
    "DGS10.csv": ("DGS10", "percent", 380, 3.87, 3.80), "wide_de.csv": ("AAPL", "price", 399, 125.0, 291.20),
    "fred_new_empty.csv": ("WTI", "price", 381, 76.62, 127.92),
    "long_tidy.csv": ("AAPL", "price", 399, 125.0, 291.1984),
    "stooq_d.csv": ("stooq_d", "price", 399, 108.0, 84.89), "de_dates.csv": ("ZDE", "price", 70, 10.0, 10.0),
    "yahoo_AAPL.csv": ("AAPL", "price", 1020, 123.75, 268.6365), "wti_neg.csv": ("CLMAY", "price", 5, 19.87, 13.78),
    "yf_wide_multi.csv": ("AAPL", "price", 397, 123.75, 290.5739),
    "xl_serial_prices.xlsx": ("ZXL", "price", 283, 50.0947, 27.0459),
}  # fmt: skip


@pytest.mark.parametrize("file", VENDORS)
def test_files_of_people_are_read_as_their_table_says(file: str) -> None:
    path = SHARED / "cases" / "prices" / file
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    found = read_price_file(path).series[0]
    assert (found.name, found.unit, len(found.values), found.values.iloc[0], found.values.iloc[-1]) == VENDORS[file]


DAMAGE = st.sampled_from(["cut", "swap", "word", "comma", "bytes", "blank", "repeat", "header", "quote", "huge"])


@settings(max_examples=120, deadline=None)
@given(damage=st.lists(DAMAGE, min_size=1, max_size=3), at=st.integers(0, 10_000), kind=st.integers(0, 3))
def test_a_damaged_file_is_refused_with_a_mend_or_read_without_a_loss(
    tmp_path_factory: pytest.TempPathFactory, damage: list[str], at: int, kind: int
) -> None:
    """Never anything but InputError; never a row or a figure that is gone in silence, nor a figure of another size."""
    rows = [f"{str(day)[:10]},{price:.2f},{5 + price / 100:.2f}" for day, price in zip(days(N), walk(N), strict=True)]
    header = ["date,ACME,DGS10", "Date,Close,Volume", "observation_date,ACME,WTI2", "date,A,B"][kind]
    text = _damaged("\n".join([header, *rows]) + "\n", damage, at)
    path = tmp_path_factory.mktemp("damaged") / "file.csv"
    path.write_bytes(text)
    read, refused = _read_or_refused(path)
    if read is None:
        assert all(refused)
        return
    for found in read.series:
        assert np.isfinite(found.values).all()
        assert found.values.index.is_monotonic_increasing
        assert found.values.index.is_unique
    first, told = read.series[0].values, " ".join(read.notes)
    whole = set(text.decode("utf-8", "replace").split("\n"))
    for row in rows:
        day, figure, _ = row.split(",")
        if row in whole and row.replace(",", " ") not in told:  # a row above the header is left out, and said to be
            assert first[pd.Timestamp(day)] == float(figure)


def _read_or_refused(path: Path) -> tuple[FileRead | None, tuple[str, str]]:
    try:
        return read_price_file(path), ("", "")
    except InputError as error:
        return None, (error.message, error.fix or "")


def _damaged(text: str, damage: list[str], at: int) -> bytes:
    data = text
    for one in damage:
        place = at % max(1, len(data))
        lines = data.split("\n")
        row = min(len(lines) - 1, 1 + at % max(1, len(lines) - 2))
        match one:
            case "cut":
                data = data[:place]
            case "swap":
                lines[row], lines[-1] = lines[-1], lines[row]
                data = "\n".join(lines)
            case "word":
                data = data[:place] + "kaputt" + data[place:]
            case "comma":
                data = data.replace(".", ",")
            case "blank":
                data = data[:place] + "\n\n" + data[place:]
            case "repeat":
                data = "\n".join([*lines[:row], lines[row], *lines[row:]])
            case "header":
                data = "\n".join(lines[1:])
            case "quote":
                data = data[:place] + '"' + data[place:]
            case "huge":
                data = data[:place] + "9" * 400 + data[place:]
            case _:
                data = data[:place] + "\x00\ud7ff" + data[place:]
    return data.encode("utf-8", "replace")
