"""Price files as banks, agencies and vendors write them, and series of weeks."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finllm.errors import InputError
from finllm.tools.data.market import FileRead, MarketStore, Series, packaged_series, read_price_file
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.joint import Joint
from finllm.tools.pnl.sizes import FactorView

from .made import column, days, walk, write

N = 40


def one(read: FileRead) -> Series:
    (found,) = read.series
    return found


def test_weeks_are_said_have_no_gaps_and_their_size_is_that_of_their_own_step(tmp_path: Path) -> None:
    index = pd.date_range("2015-01-02", periods=300, freq="W-FRI")
    index = index[index != pd.Timestamp("2016-01-01")]
    moves = np.random.default_rng(0).normal(0, 0.02, len(index))
    weekly = pd.Series(100 * np.cumprod(1 + moves), index=index)
    read = read_price_file(column(tmp_path / "w.csv", weekly, "WEEKS"))
    found = one(read)
    assert found.frequency == "weekly"
    assert "'WEEKS': weekly" in found.notes
    assert (found.known(dt.date(2015, 1, 9)), found.known(dt.date(2015, 1, 8))) == (2, 1)
    as_of = dt.date(2020, 9, 30)
    market = MarketStore.of([found, packaged_series()["SP500"]])
    assert market.read("WEEKS", as_of).findings == ()
    view = FactorView(FactorSet.of(market, ["WEEKS"]), market, as_of)
    week, month = (view.size("WEEKS", horizon).sigma for horizon in (5, 20))
    assert week is not None
    assert month is not None
    assert week.value == pytest.approx(weekly.pct_change().std(), rel=0.02)
    assert month.value == pytest.approx(weekly.pct_change(4).std(), rel=0.02)
    assert "4-week moves of WEEKS" in month.window
    joint = Joint(view, ["WEEKS", "EQUITY_US"], 20)
    assert "weekly moves of WEEKS" in joint.rule


def test_what_a_bank_says_above_its_days_is_left_out_and_its_unit_holds(tmp_path: Path) -> None:
    head = ['"",BBSIS.D.I,BBSIS.D.I_FLAGS', '"",Federal securities / residual maturity of 10.0 years,', "unit,% p.a.,",
            "unit multiplier,one,", "last update,2026-01-05 16:00:00,"]  # fmt: skip
    rows = [f"{str(day)[:10]},{2.5 + at / 100:.2f}," for at, day in enumerate(days(N))]
    found = read_price_file(write(tmp_path / "b.csv", head[0], [*head[1:], *rows, "2026-01-01,.,No value available"]))
    assert (one(found).name, one(found).unit, len(one(found).values)) == ("BBSIS.D.I", "percent", N)
    assert any("left out: '', 'unit', 'unit multiplier', 'last update'" in note for note in found.notes)


def test_a_heading_above_days_with_names_of_months_is_found(tmp_path: Path) -> None:
    rows = [f'"{pd.Timestamp(day):%b %d, %Y}",{close:.2f}' for day, close in zip(days(N), walk(N), strict=True)]
    head = ["Sourcekey,RWTC", 'Date,"Cushing, OK WTI"']
    found = one(read_price_file(write(tmp_path / "e.csv", "Back to Contents,Data 1: WTI", [*head, *rows])))
    assert (found.name, len(found.values)) == ("Cushing, OK WTI", N)


@pytest.mark.parametrize(
    ("header", "row", "says"),
    [
        ("date,USD,GBP,EUR", "{day},2600.5,2000.1,2400.2", "one thing in several currencies"),
        ("geo," + ",".join(f"2023-{month:02}" for month in range(1, 13)), "DE" + ",2.1" * 12, "stand in the header"),
        ("Country," + ",".join(map(str, range(1990, 2000))), "Germany" + ",1" * 10, "stand in the header"),
    ],
)
def test_a_table_of_which_the_series_is_not_told_is_refused_in_one_line(
    tmp_path: Path, header: str, row: str, says: str
) -> None:
    rows = [row.format(day=str(day)[:10]) for day in days(N)]
    with pytest.raises(InputError, match=says) as refused:
        read_price_file(write(tmp_path / "x.csv", header, rows if "{day}" in row else rows[:1]))
    assert "\n" not in refused.value.message


def test_numbered_headings_of_one_instrument_are_its_bars(tmp_path: Path) -> None:
    rows = [f"{str(day)[:10]},1,2,0.5,{close:.2f},9" for day, close in zip(days(N), walk(N), strict=True)]
    found = one(read_price_file(write(tmp_path / "ACME.csv", ",1. open,2. high,3. low,4. close,5. volume", rows)))
    assert (found.name, found.values.iloc[0]) == ("ACME", pytest.approx(walk(N)[0], abs=0.005))


def test_refinitiv_s_long_files_are_read_by_instrument(tmp_path: Path) -> None:
    rows = [f"{name},{str(day)[:10]}T00:00:00Z,{price:.2f},{1000 + at}"
            for name, seed in (("AAPL.O", 1), ("NOVN.S", 2))
            for at, (day, price) in enumerate(zip(days(N), walk(N, seed), strict=True))]  # fmt: skip
    read = read_price_file(write(tmp_path / "eikon.csv", "Instrument,Date,Price Close,Volume", rows))
    assert [one.name for one in read.series] == ["AAPL", "NOVN.S"]
    assert [len(one.values) for one in read.series] == [N, N]
    assert read.series[1].values.iloc[-1] == pytest.approx(walk(N, 2)[-1], abs=0.005)
    rows = [f"ROG.S,{day:%d-%b-%Y},{price:.2f},CHF" for day, price in zip(days(N), walk(N), strict=True)]
    assert one(read_price_file(write(tmp_path / "d.csv", "RIC,Trade Date,Universal Close Price,Currency", rows))).name \
        == "ROG.S"  # fmt: skip


def test_a_cube_of_the_swiss_national_bank_has_a_series_for_each_value_of_what_varies(tmp_path: Path) -> None:
    file = tmp_path / "snb-data-devkum.csv"
    lines = ['"CubeId";"devkum"', '"PublishingDate";"2026-11-02 14:30"', "", '"Date";"D0";"D1";"Value"']
    lines += [f'"{2020 + at // 12}-{at % 12 + 1:02d}";"M0";"{code}";"{base + at / 1000:.4f}"'
              for at in range(60) for code, base in (("EUR1", 1.0), ("USD1", 0.9))]  # fmt: skip
    file.write_text("\n".join(lines) + "\n", "utf-8")
    read = read_price_file(file)
    assert {one.name: one.frequency for one in read.series} == {"EUR1": "monthly", "USD1": "monthly"}
    assert read.series[1].values.iloc[-1] == pytest.approx(0.959)
    assert any("named by D1" in note for note in read.notes)


def test_a_bdh_block_is_read_by_ticker_and_blocks_side_by_side_are_refused_with_a_mend(tmp_path: Path) -> None:
    both = list(zip(days(N), walk(N), walk(N, 5), strict=True))
    rows = ["Dates,PX_LAST,PX_LAST", *(f"{str(day)[:10]},{a:.2f},{b:.2f}" for day, a, b in both)]
    read = read_price_file(write(tmp_path / "bdh.csv", ",AAPL US Equity,SX5E Index", rows))
    assert [one.name for one in read.series] == ["AAPL", "SX5E"]
    assert read.series[1].values.iloc[-1] == pytest.approx(walk(N, 5)[-1], abs=0.005)
    rows = ["Date,PX_LAST,,Date,PX_LAST", *(f"{str(day)[:10]},{a:.2f},,{str(day)[:10]},{b:.2f}" for day, a, b in both)]
    with pytest.raises(InputError, match=r"2 blocks stand side by side.*columns 1, 4") as refused:
        read_price_file(write(tmp_path / "two.csv", "AAPL US Equity,,,MSFT US Equity,", rows))
    assert "--as NAME" in refused.value.fix
