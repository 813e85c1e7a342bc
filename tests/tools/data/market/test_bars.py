"""Highs, lows and volumes of price files: read, kept in a home, cut at the day, and never made up."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finllm.tools.data.market import MarketFolder, MarketStore, ReadOptions, day_of, load, read_price_file

from .made import days, walk, write

N = 60


def rows(volume: str = "{}") -> list[str]:
    return [
        f"{str(day)[:10]},{close:.2f},{close * 1.01:.2f},{close * 0.99:.2f},{close:.2f},{volume.format(1000 + at)}"
        for at, (day, close) in enumerate(zip(days(N), walk(N), strict=True))
    ]


def prices(path: Path, volume: str = "{}") -> Path:
    return write(path, "Date,Open,High,Low,Close,Volume", rows(volume))


def test_high_low_and_volume_are_kept_beside_the_close_and_in_a_home(tmp_path: Path) -> None:
    read = read_price_file(prices(tmp_path / "ACME.csv"))
    (series,) = read.series
    assert series.bars is not None
    assert list(series.bars.frame.columns) == ["high", "low", "volume"]
    assert series.bars.frame["volume"].tolist() == [1000 + at for at in range(N)]
    assert "high, low, volume kept beside it" in " ".join(series.notes)
    (kept,) = MarketFolder(tmp_path / "home").keep(read.series, file=tmp_path, rule=read.rule,
                                                   at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))  # fmt: skip
    again = load(kept.path).series.bars
    assert again is not None
    pd.testing.assert_frame_equal(again.frame, series.bars.frame, check_freq=False, check_names=False)
    assert again.sha256 == kept.sha256


def test_the_store_tells_no_volume_of_a_later_day(tmp_path: Path) -> None:
    market = MarketStore([prices(tmp_path / "ACME.csv")])
    day = day_of(days(N)[40])
    seen = market.bars("ACME", day)
    assert seen is not None
    assert day_of(seen.frame.index[-1]) == day
    assert market.read("ACME", day).series.bars is None
    assert market.bars("SP500", day) is None
    assert market.bars("ACME", day_of(days(N)[0]) - dt.timedelta(days=1)) is None


def test_a_split_that_is_told_scales_the_volume_before_it(tmp_path: Path) -> None:
    day = day_of(days(N)[30])
    options = ReadOptions(splits={"ACME": ((day, 4.0),)})
    (series,) = read_price_file(prices(tmp_path / "ACME.csv"), options).series
    market = MarketStore((), [series])
    volumes = [market.bars("ACME", day_of(one)) for one in (days(N)[29], days(N)[-1])]
    assert [seen.frame["volume"].iloc[0] for seen in volumes if seen] == [1000.0, 4000.0]


@pytest.mark.parametrize(
    ("volume", "kept", "said"),
    [
        ("0", None, "no figure but zero"), ("lots", None, "is not a number"), ("1.5M", 1.5e6, "kept beside"),
        ("-", None, "no figure at all in Volume"), ('"1,234"', 1234.0, "kept beside"),
    ],
)  # fmt: skip
def test_a_volume_that_is_none_is_not_kept_and_the_prices_are(
    tmp_path: Path, volume: str, kept: float | None, said: str
) -> None:
    (series,) = read_price_file(prices(tmp_path / "ACME.csv", volume)).series
    assert len(series.values) == N
    assert series.bars is not None
    column = series.bars.frame.get("volume")
    assert (None if column is None else column.iloc[0]) == kept
    assert said in " ".join(series.notes)


def test_a_file_of_several_instruments_keeps_each_ones(tmp_path: Path) -> None:
    long = [f"{name},{str(day)[:10]},{close:.2f},{size}" for name, size in (("A", 10), ("B", 20))
            for day, close in zip(days(N), walk(N), strict=True)]  # fmt: skip
    found = read_price_file(write(tmp_path / "tidy.csv", "ticker,date,close,volume", long)).series
    assert [(one.name, one.bars.frame["volume"].iloc[0]) for one in found if one.bars] == [("A", 10.0), ("B", 20.0)]
    wide = [f"{str(day)[:10]},{close:.2f},{close:.2f},7" for day, close in zip(days(N), walk(N), strict=True)]
    one, two = read_price_file(write(tmp_path / "w.csv", "Date,A Close,B Close,B Volume", wide)).series
    assert one.bars is None
    assert two.bars is not None
    assert np.unique(two.bars.frame["volume"]).tolist() == [7.0]


def test_a_range_that_is_upside_down_is_none(tmp_path: Path) -> None:
    upside = [f"{str(day)[:10]},{close:.2f},{close * (0.98 if at == 3 else 1.02):.2f},{close * 0.99:.2f},{close:.2f},5"
              for at, (day, close) in enumerate(zip(days(N), walk(N), strict=True))]  # fmt: skip
    (series,) = read_price_file(write(tmp_path / "X.csv", "Date,Open,High,Low,Close,Volume", upside)).series
    assert series.bars is not None
    assert series.bars.frame["high"].isna().tolist() == [at == 3 for at in range(N)]
    assert "1 days have a high under their low" in " ".join(series.notes)


def test_volumes_of_a_file_that_extends_a_series_are_the_series(tmp_path: Path) -> None:
    first = [f"{str(day)[:10]},{close:.2f}" for day, close in zip(days(N)[:40], walk(N)[:40], strict=True)]
    older = read_price_file(write(tmp_path / "ACME.csv", "date,ACME", first)).series
    (newer,) = read_price_file(prices(tmp_path / "acme.csv"), ReadOptions(names={None: "ACME"})).series
    joined = MarketStore((), [*older, newer])
    seen = joined.bars("ACME", day_of(days(N)[-1]))
    assert seen is not None
    assert len(seen.frame) == N
