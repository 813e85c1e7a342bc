"""The ECB's reference rates and the index of the dollar made of them, against the file itself and the Fed's index."""

import csv
import datetime as dt
import io
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from finllm.tools.data.currencies import ECB
from finllm.tools.data.market import MarketStore
from finllm.tools.data.market.ecb import MIN_WEIGHT, USD_INDEX, WEIGHTS_PATH, EcbSeries
from finllm.tools.pnl.factorset import FactorSet

D = dt.date
MARKET = MarketStore()
SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "prices"


@pytest.fixture(scope="module")
def published() -> list[dict[str, str]]:
    """The package's file, read here with the standard library alone."""
    spec = find_spec("currency_converter")
    assert spec is not None
    assert spec.origin is not None
    with zipfile.ZipFile(Path(spec.origin).with_name("eurofxref-hist.zip")) as archive:
        return list(csv.DictReader(io.StringIO(archive.read("eurofxref-hist.csv").decode())))


def test_every_currency_of_the_file_has_its_series_in_dollars(published: list[dict[str, str]]) -> None:
    assert set(ECB) - {"EUR"} == set(published[0]) - {"Date", "USD", ""}
    for code in ("EUR", "GBP", "JPY", "HRK"):
        euro = {row["Date"]: 1.0 if code == "EUR" else float(row[code]) for row in published if row.get(code) != "N/A"}
        by_hand = {row["Date"]: float(row["USD"]) / euro[row["Date"]] for row in published if row["Date"] in euro}
        series = EcbSeries()[f"FX_{code}USD"].values
        assert {str(day)[:10]: value for day, value in series.items()} == pytest.approx(by_hand)
        assert series.index.is_monotonic_increasing
        assert series.index.is_unique


def test_the_names_are_known_without_reading_the_file() -> None:
    code = (
        "import zipfile\n"
        "def refuse(*a, **k): raise OSError('the file is read')\n"
        "zipfile.ZipFile = refuse\n"
        "from finllm.tools.data.market import MarketStore\n"
        "from finllm.tools.pnl.factorset import FactorSet\n"
        "market = MarketStore()\n"
        "FactorSet.default(market)\n"
        "print('FX_EURUSD' in market, 'FX_DEMUSD' in market, len(market.names()) > 60)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "True"]


def test_a_rate_is_known_on_its_day_and_not_before() -> None:
    seen = MARKET.read("FX_EURUSD", D(2022, 9, 28))
    assert (seen.last, round(float(seen.values.iloc[-1]), 4)) == (D(2022, 9, 28), 0.9565)
    assert MARKET.read("FX_EURUSD", D(2022, 10, 2)).last == D(2022, 9, 30)  # a Sunday


def test_the_dollar_index_is_the_weighted_move_of_what_is_quoted() -> None:
    """Two days by hand: the vintage of 2017, the rouble no longer quoted and its weight shared by the others."""
    weights = yaml.safe_load(WEIGHTS_PATH.read_text(encoding="utf-8"))[1]["weights"]
    quoted = [code for code in weights if code in ECB and code != "RUB"]
    both = (D(2022, 9, 27), D(2022, 9, 28))
    moves = [np.log(np.divide(*(MARKET.read(f"FX_{code}USD", day).values.iloc[-1] for day in both))) for code in quoted]
    by_hand = np.exp(np.dot([weights[code] for code in quoted], moves) / sum(weights[code] for code in quoted))
    first, second = (MARKET.read(USD_INDEX, day).values.iloc[-1] for day in both)
    assert second / first == pytest.approx(by_hand, rel=1e-12)


def test_the_weights_add_to_a_hundred_and_the_index_begins_where_enough_is_quoted() -> None:
    vintages = yaml.safe_load(WEIGHTS_PATH.read_text(encoding="utf-8"))
    assert [sum(row["weights"].values()) for row in vintages] == pytest.approx([100, 100], abs=0.02)
    assert MIN_WEIGHT == 0.75
    assert EcbSeries()[USD_INDEX].values.index[0] == pd.Timestamp("2005-04-01")  # the first day of the yuan


@pytest.mark.skipif(not (SHARED / "fred_DTWEXBGS.csv").is_file(), reason="../shared/prices is not here")
def test_the_dollar_index_moves_as_the_feds_broad_index_does() -> None:
    fed = pd.read_csv(SHARED / "fred_DTWEXBGS.csv", index_col=0, parse_dates=True)["DTWEXBGS"].dropna()
    ours = EcbSeries()[USD_INDEX].values
    monthly = [one.resample("ME").last().pct_change() for one in (fed, ours)]
    table = pd.concat(monthly, axis="columns", join="inner").dropna()
    assert len(table) >= 240
    theirs, own = table.to_numpy().T
    assert np.corrcoef(theirs, own)[0, 1] >= 0.97  # 0.984 as measured; 0.9 is asked
    assert own.std() / theirs.std() == pytest.approx(1, abs=0.05)


def test_the_dollar_factor_has_a_history_and_an_imported_one_takes_its_place() -> None:
    assert FactorSet.default(MARKET)["USD_BROAD"].series == USD_INDEX
    own = EcbSeries()[USD_INDEX]
    imported = type(own)("FED_USD", own.values, "price", "daily", "file:fed", "0" * 64)
    assert FactorSet.default(MarketStore(extra=[imported]))["USD_BROAD"].series == "FED_USD"
