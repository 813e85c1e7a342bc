"""Where market data comes from: a factor with history is two files of data; a home's own data are read and named."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finllm.errors import InputError
from finllm.tools.data import factors
from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.factors import FACTOR_IDS, FACTORS, factor_table
from finllm.tools.data.market import MarketFolder, MarketStore, Series, packaged, packaged_series
from finllm.tools.data.sources import imported_digests, open_market
from finllm.tools.pnl.engine import run_engine
from finllm.tools.pnl.factorset import FactorSet

AS_OF = dt.date(2022, 6, 30)
SPLIT = Position(id="TIN_ETF", currency="USD", asset_class="equity", market_value=1e6, beta=0.5)


def series_file(folder: Path, name: str = "tin.csv", head: str = "# unit: price\n# source: a test\n") -> Path:
    """A daily series that moves with the S&P 500, and noise of its own."""
    index = packaged_series()["SP500"].values.loc["2015":"2022"]
    noise = np.random.default_rng(1).normal(0, 0.01, len(index))
    prices = pd.Series(20 * (1 + 0.8 * index.pct_change().fillna(0) + noise).cumprod(), name="TIN")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(head + prices.round(6).to_csv(index_label="date"))
    return folder / name


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package with a row TIN in its table of factors and a file in its folder of series."""
    table = tmp_path / "factors.yaml"
    row = "TIN: {label: tin, unit: return, series: TIN, liquidity: 60}\n"
    table.write_text(factors.FACTOR_TABLE_PATH.read_text() + row)
    series_file(tmp_path / "series")
    monkeypatch.setattr(factors, "FACTOR_TABLE_PATH", table)
    monkeypatch.setattr(packaged, "SERIES_DIR", tmp_path / "series")
    factor_table.cache_clear()
    packaged_series.cache_clear()
    yield
    monkeypatch.undo()
    factor_table.cache_clear()
    packaged_series.cache_clear()


def test_a_row_and_a_file_make_a_factor_with_history(shipped: None) -> None:
    store = MarketStore()
    known = FactorSet.default(store)
    book = Portfolio(name="t", uri="file:t", sha256="0" * 64, positions=(SPLIT,))
    result = run_engine(book, store, AS_OF, 20, [known.parse("TIN", "-2sigma")], propagate=True)
    rows = {row.factor: row for row in result.shocks}
    assert (rows["TIN"].label, rows["TIN"].sigma) == ("tin", pytest.approx(-2.0))
    assert "20-day moves of TIN" in rows["TIN"].window
    assert rows["EQUITY_US"].origin == "completed"
    assert result.total < 0
    assert store.source("TIN", "x").uri == "series/tin.csv"


def test_the_table_judges_exactly_what_the_agents_type_lists() -> None:
    assert tuple(id for id, row in factor_table().items() if row.judged) == FACTOR_IDS == tuple(FACTORS)


@pytest.mark.parametrize("head", ["# unit: price\n", "# unit: dollars\n# source: a\n", "# source: a\n",
                                  "# unit: price\n# frequency: hourly\n# source: a\n"])  # fmt: skip
def test_a_series_without_unit_frequency_or_source_is_refused_by_file(tmp_path: Path, head: str) -> None:
    series_file(tmp_path / "series", head=head)
    with pytest.raises(InputError, match=r"tin.csv: not a series file"):
        open_market(tmp_path)


def test_series_of_a_home_are_read_and_named_by_digest(tmp_path: Path) -> None:
    file = series_file(tmp_path / "series")
    store = open_market(tmp_path)
    assert "TIN" in store
    assert "TIN" not in open_market(None)
    before = imported_digests(tmp_path)
    assert list(before) == ["imported/series/tin.csv"]
    file.write_text(file.read_text() + "2022-12-30,1.0\n")
    assert imported_digests(tmp_path) != before
    assert imported_digests(tmp_path / "nothing") == {}


def test_what_is_added_after_a_run_is_not_read_for_its_replay_and_a_change_shows(tmp_path: Path) -> None:
    folder = MarketFolder(tmp_path / "market")
    index = packaged_series()["SP500"].values.loc["2020":]
    made = [Series(name, index.rename(name), "price", "daily", "file:///x.csv", "0" * 64) for name in ("OLD", "NEW")]
    now = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
    folder.keep(made[:1], file=Path("x.csv"), rule="wide", at=now)
    then = imported_digests(tmp_path)
    assert list(then) == ["imported/market/OLD.parquet"]
    folder.keep(made[1:], file=Path("x.csv"), rule="wide", at=now)
    assert {"OLD", "NEW"} <= set(open_market(tmp_path).names())
    assert "NEW" not in open_market(tmp_path, only=then)
    folder.keep([replace(made[0], values=index.rename("OLD") * 2)], file=Path("x.csv"), rule="wide", at=now)
    assert imported_digests(tmp_path)["imported/market/OLD.parquet"] != then["imported/market/OLD.parquet"]
