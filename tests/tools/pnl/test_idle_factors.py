"""A series that is named as a factor and moves nothing is told, with why."""

import datetime as dt

import numpy as np
import pandas as pd

from finllm.tools.data.books.book import Book, Holding
from finllm.tools.data.market import MarketStore, Series, packaged_series
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.factorset import FactorSet

AS_OF = dt.date(2022, 6, 30)


def test_a_flat_a_short_and_a_twin_series_are_each_told_and_one_that_moves_the_book_is_not() -> None:
    known = packaged_series()
    index = pd.Series(known["SP500"].values[: pd.Timestamp(AS_OF)])
    noise = np.random.default_rng(0).normal(0, 0.02, len(index))
    stock = known["AAPL"].values.reindex(index.index).ffill()
    levels = {
        "FLAT": pd.Series(5.0, index=index.index), "SHORT": index.tail(100) * 2, "TWIN": index / 10,
        "OWN": 100 * (1 + stock.pct_change().fillna(0) * 0.5 + noise).cumprod(),
    }  # fmt: skip
    made = [Series(name, one.astype("float64"), "price", "daily", "made-up", "0" * 64) for name, one in levels.items()]
    market = MarketStore.of([*made, known["SP500"], known["AAPL"]])
    apple = Holding(id="AAPL", asset_class="equity", market_value=1e6, sector="Technology", series="AAPL")
    book = Book(name="one", as_of=AS_OF, sha256="0" * 64, holdings=(apple,), exclusions=(), notes=())
    engine = Engine(book, market, AS_OF, FactorSet.of(market, levels))
    assert set(engine.idle) == {"FLAT", "SHORT", "TWIN"}
    assert engine.idle["FLAT"] == "FLAT moves no position: it does not move"
    assert "99 daily moves" in engine.idle["SHORT"]
    assert "those of EQUITY_US" in engine.idle["TWIN"]
