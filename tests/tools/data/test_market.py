"""The market store: what it holds, what it lets be seen at a date, and which price files it refuses."""

import datetime as dt
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from finllm.errors import InputError, LookAheadError
from finllm.tools.data.market import SERIES_DIR, STOCKS, MarketStore, day_of, read_series_folder
from finllm.tools.data.market.ecb import EcbSeries

D = dt.date
LATE = D(2022, 12, 30)


@pytest.fixture(scope="module")
def market() -> MarketStore:
    return MarketStore()


def move(window: pd.Series) -> float:
    return float(window.iloc[-1] / window.iloc[0] - 1)


def test_the_packaged_series_are_there_and_clean(market: MarketStore) -> None:
    files = {series.name for series in read_series_folder(SERIES_DIR)}
    expected = {*files, *STOCKS, "SP500", "MTUM", "QUAL", "SIZE", "USMV", "VLUE", "WTI", "VIX", "AAA", "BAA", "BAA_AAA",
                *EcbSeries()}  # fmt: skip
    assert expected == set(market.names())
    assert market.stock_names() == list(STOCKS)
    for name in market.names():
        values = market.read(name, LATE).values
        assert values.index.is_monotonic_increasing
        assert values.index.is_unique
        assert not values.isna().any()
        assert values.dtype == "float64"


def test_importing_the_tools_imports_neither_pandas_nor_statsforecast() -> None:
    code = "import sys, finllm.tools, finllm.tools.data.factors; print({'pandas', 'statsforecast'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_reading_opens_no_socket_and_does_not_import_the_packages_that_carry_the_data() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise OSError('no network')\n"
        "socket.socket = refuse\n"
        "from finllm.tools.data.market import MarketStore\n"
        "MarketStore()\n"
        "print({'skfolio', 'arch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("start", "end", "percent"),
    [
        (D(1998, 7, 17), D(1998, 8, 31), -19.34),
        (D(2008, 9, 12), D(2008, 11, 20), -39.89),
        (D(2020, 2, 19), D(2020, 3, 23), -33.92),
        (D(2022, 1, 3), D(2022, 10, 12), -25.43),
    ],
)
def test_the_index_moves_as_published(market: MarketStore, start: dt.date, end: dt.date, percent: float) -> None:
    assert move(market.window("SP500", start, end, as_of=end)) * 100 == pytest.approx(percent, abs=0.01)


def test_the_day_itself_is_visible_after_the_close_and_the_next_is_not(market: MarketStore) -> None:
    seen = market.read("SP500", D(2008, 9, 15))
    assert (seen.last, seen.age_days, seen.stale) == (D(2008, 9, 15), 0, False)
    assert seen.values.index.max() == pd.Timestamp("2008-09-15")


@pytest.mark.parametrize(
    ("as_of", "last"),
    [(D(2018, 11, 30), D(2018, 10, 1)), (D(2018, 12, 1), D(2018, 11, 1)), (D(2018, 12, 31), D(2018, 11, 1))],
)
def test_a_monthly_row_is_visible_from_the_month_after_its_stamp(
    market: MarketStore, as_of: dt.date, last: dt.date
) -> None:
    for name in ("AAA", "BAA", "BAA_AAA"):
        seen = market.read(name, as_of)
        assert seen.last == last
        assert not seen.stale


def test_the_spread_is_baa_over_aaa_in_bp(market: MarketStore) -> None:
    spread = market.read("BAA_AAA", LATE)
    assert spread.series.unit == "bp"
    assert spread.values.iloc[-1] == pytest.approx((5.13 - 4.02) * 100)


def test_a_stale_series_is_named_with_its_age(market: MarketStore) -> None:
    oil = market.read("WTI", D(2022, 6, 30))
    assert (oil.last, oil.age_days, oil.stale) == (D(2019, 1, 3), 1274, True)


def test_a_weekend_does_not_make_a_series_stale(market: MarketStore) -> None:
    assert not market.read("SP500", D(2022, 7, 4)).stale


def test_a_window_starts_and_ends_at_the_last_close_at_or_before_its_days(market: MarketStore) -> None:
    window = market.window("SP500", D(2022, 6, 19), D(2022, 6, 26), as_of=LATE)  # two Sundays
    assert [day_of(window.index[0]), day_of(window.index[-1])] == [D(2022, 6, 17), D(2022, 6, 24)]


def test_a_monthly_window_starts_with_a_month_that_was_over(market: MarketStore) -> None:
    window = market.window("BAA_AAA", D(2008, 9, 12), D(2008, 11, 20), as_of=LATE)
    assert [day_of(window.index[0]), day_of(window.index[-1])] == [D(2008, 8, 1), D(2008, 11, 1)]
    at_the_time = market.window("BAA_AAA", D(2008, 9, 12), D(2008, 11, 20), as_of=D(2008, 11, 20))
    assert day_of(at_the_time.index[-1]) == D(2008, 10, 1)


def test_a_window_past_as_of_is_refused(market: MarketStore) -> None:
    with pytest.raises(LookAheadError, match="reaches past as_of 2008-10-31"):
        market.window("SP500", D(2008, 9, 12), D(2008, 11, 20), as_of=D(2008, 10, 31))


@pytest.mark.parametrize(
    ("name", "start", "end", "says"),
    [
        ("WTI", D(2020, 2, 19), D(2020, 3, 23), "no observation near 2020-02-19"),
        ("WTI", D(2018, 12, 28), D(2019, 2, 28), "no observation near 2019-02-28"),
        ("VIX", D(2008, 9, 12), D(2008, 11, 20), "starts on 2014-01-03"),
        ("BAA_AAA", D(2018, 2, 2), D(2018, 2, 8), "fewer than two observations"),
        ("SP500", D(2008, 9, 12), D(2008, 9, 12), "does not end after it starts"),
        ("NONE", D(2008, 9, 12), D(2008, 11, 20), "no series 'NONE'"),
    ],
)
def test_a_window_outside_the_history_is_refused(
    market: MarketStore, name: str, start: dt.date, end: dt.date, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        market.window(name, start, end, as_of=end)


def test_nothing_is_visible_before_a_series_begins(market: MarketStore) -> None:
    with pytest.raises(InputError, match="nothing of it is visible at 2013-06-28"):
        market.read("VIX", D(2013, 6, 28))


def test_a_source_points_into_the_packaged_file(market: MarketStore) -> None:
    source = market.source("SP500", "2008-09-12 to 2008-11-20")
    assert source.uri.startswith("pkg:pypi/skfolio@")
    assert source.uri.endswith("#datasets/data/sp500_index.csv.gz")
    assert len(source.sha256) == 64
    assert source.pointer == "SP500 2008-09-12 to 2008-11-20"


def test_what_is_read_can_be_changed_without_harm(market: MarketStore) -> None:
    values = market.read("SP500", LATE).values
    values.iloc[:] = 0.0
    assert market.read("SP500", LATE).values.iloc[0] == pytest.approx(359.69)


PRICES = "date,ACME,EMCA\n2022-06-28,10,\n2022-06-29,11,5\n2022-06-30,12,6\n"


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".xlsx"])
def test_a_users_prices_join_the_store(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"prices{suffix}"
    frame = pd.DataFrame(
        {"ACME": [10.0, 11.0, 12.0], "EMCA": [None, 5.0, 6.0]},
        index=pd.DatetimeIndex(["2022-06-28", "2022-06-29", "2022-06-30"], name="date"),
    )
    match suffix:
        case ".csv":
            path.write_text(PRICES)
        case ".parquet":
            frame.to_parquet(path)
        case _:
            frame.to_excel(path)
    market = MarketStore([path])
    assert market.read("ACME", D(2022, 6, 29)).values.tolist() == [10.0, 11.0]
    assert market.read("EMCA", D(2022, 6, 30)).values.tolist() == [5.0, 6.0]
    assert market.source("ACME", "x").uri == path.resolve().as_uri()
    assert "ACME" not in MarketStore()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the price file is empty"),
        ("date,ACME\n", "the price file is empty"),
        ("date\n2022-06-30\n", "no instrument"),
        ("date,ACME\n31/31/2022,1\n", "row 2: '31/31/2022' is not a date"),
        ("date,ACME\n2022-06-29,1\n2022-06-29,2\n", "'ACME': 2022-06-29 appears twice, with 1 and 2"),
        ("date,ACME\n2022-06-28,1\n2022-06-30,1\n2022-06-29,2\n", "'ACME': 2022-06-29 comes after 2022-06-30"),
        ("date,ACME\n2022-06-29,0\n2022-06-30,2\n", "'ACME' is 0 on 2022-06-29"),
        ("date,ACME\n2022-06-29,inf\n", "row 2, column 'ACME': 'inf' is not a finite number"),
        ("date,ACME\n2022-06-29,ten\n", "row 2, column 'ACME': 'ten' is not a number"),
        ("date,ACME,ACME\n2022-06-29,1,2\n", "column 'ACME' appears twice"),
        ("date,\n2022-06-29,1\n", "column 2 has no name"),
        ("date,ACME\n2022-06-29,\n", "no instrument"),
        ("date,AAPL\n2022-06-29,1\n", "'AAPL' of file:.* is 1 on 2022-06-29, and 'AAPL' of pkg:.* is 138"),
        ("date,ACME\n2022-06-29,1,7,8\n2022-06-30,1\n", "the header has 2 cells, but row 2 has 4"),
        ("date,A\n2022-01-03,1\n2022-01-17,1\n2022-01-31,1\n2022-02-14,1\n", "rows are typically 14 days apart"),
    ],
)
def test_a_bad_price_file_is_refused_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as refused:
        MarketStore([path])
    assert str(path) in refused.value.message
    assert refused.value.fix


def test_every_problem_of_a_price_file_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("date,A,B\n2022-06-29,1,y\n2022-06-30,x,2\n")
    with pytest.raises(InputError) as refused:
        MarketStore([path])
    assert len(refused.value.message.splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.csv", None, "no price file at"),
        ("prices.xls", b"date,A\n2022-06-30,1\n", "a price file is a .csv, .tsv, .txt, .parquet or .xlsx file"),
        ("prices.parquet", b"not parquet", "cannot be read"),
        ("prices.xlsx", b"not a workbook", "cannot be read"),
        ("prices.csv", b"date,A\n2022-06-30,\xff\xfe\n", "row 2, column 'A'"),
    ],
)
def test_an_unreadable_price_file_is_refused(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        MarketStore([path])
