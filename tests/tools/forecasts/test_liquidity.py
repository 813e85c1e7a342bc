"""Whether few trade: each measure beside the year before it, by volumes and ranges as a file has them."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.tools.data.market import Bars, day_of, stamp_of
from finllm.tools.forecasts.liquidity import RECENT, Thinness, corwin_schultz, drained, thinness

N = 300
DAYS = pd.bdate_range("2021-01-01", periods=N)
PRICES = pd.Series(100 * np.exp(np.cumsum(np.random.default_rng(7).normal(0, 0.01, N))), index=DAYS)


def bars(*, volume: float = 1.0, width: float = 1.0, drop: tuple[str, ...] = ()) -> Bars:
    """Volumes and ranges of about one size, but in the last days: these are `volume` and `width` times as large."""
    chance = np.random.default_rng(11)
    last = np.arange(N) >= N - RECENT
    half = 0.005 * chance.uniform(0.8, 1.2, N) * np.where(last, width, 1.0)
    columns = {
        "high": PRICES * np.exp(half), "low": PRICES * np.exp(-half),
        "volume": pd.Series(1000 * chance.uniform(0.8, 1.2, N) * np.where(last, volume, 1.0), index=DAYS),
    }  # fmt: skip
    frame = pd.DataFrame({name: column for name, column in columns.items() if name not in drop})
    return Bars(frame, "file:///made.csv", "0" * 64)


def by_measure(data: Bars | None) -> dict[str, Thinness]:
    found, _ = thinness("OIL_WTI", PRICES, data)
    return {one.measure: one for one in found}


def test_less_volume_and_the_same_range_is_a_drain_and_a_quiet_market_is_none() -> None:
    fewer = by_measure(bars(volume=0.5))
    assert fewer["volume"].value == pytest.approx(0.5, abs=0.03)
    assert fewer["price impact"].value == pytest.approx(2.0, abs=0.15)
    assert (fewer["volume"].rarity, fewer["price impact"].rarity) == (0.0, 0.0)
    assert (fewer["volume"].start, fewer["volume"].end) == (day_of(DAYS[-RECENT]), day_of(DAYS[-1]))
    assert drained(list(fewer.values()))
    quiet = by_measure(bars(volume=0.5, width=0.5))  # fewer trade, and no trade moves the price further
    assert [name for name, one in quiet.items() if one.thin] == ["volume"]
    assert not drained(list(quiet.values()))
    assert not drained(list(by_measure(bars()).values()))


def test_a_volume_is_not_guessed() -> None:
    assert thinness("A", PRICES, None)[1] == {"volume": "no volume", "daily range": "no daily range"}
    assert thinness("A", PRICES, bars(drop=("volume",)))[1] == {"volume": "no volume"}
    assert "price impact" not in by_measure(bars(drop=("volume",)))
    ended = bars()
    ended.frame.loc[DAYS[-10] :, "volume"] = np.nan
    assert thinness("A", PRICES, ended)[1] == {"volume": "volume on 10 of the last 20 days"}
    short = Bars(bars().frame.iloc[-60:], "file:///made.csv", "0" * 64)
    _, missing = thinness("A", PRICES, short)
    assert missing["volume"] == "volume on 40 days of the year before, too few"


def test_one_measure_of_several_is_none() -> None:
    def made(*thin: bool) -> list[Thinness]:
        return [Thinness(factor="A", measure="volume", value=1.0, rarity=None, thin=one, start=dt.date(2021, 1, 1),
                         end=dt.date(2021, 2, 1)) for one in thin]  # fmt: skip

    told = [(), (True,), (False,), (True, False, False), (True, True, False)]
    assert [drained(made(*each)) for each in told] == [False, True, False, False, True]


def test_corwin_and_schultz_find_the_spread_that_prices_were_made_with() -> None:
    chance, spread = np.random.default_rng(5), 0.02
    path = np.cumsum(chance.normal(0, 0.01 / np.sqrt(390), (4000, 390)).ravel()).reshape(4000, 390)
    side = chance.choice([-0.5, 0.5], path.shape) * spread
    traded = np.exp(path + side)
    found = corwin_schultz(pd.Series(traded.max(axis=1)), pd.Series(traded.min(axis=1)))
    assert found.mean() == pytest.approx(spread, rel=0.15)


@given(split=st.integers(min_value=30, max_value=N - 30), ratio=st.sampled_from([0.25, 0.5, 2.0]))
def test_a_split_moves_no_measure(split: int, ratio: float) -> None:
    """A file that is not adjusted, read with its split, tells what one that is adjusted does."""
    whole, raw = bars(volume=0.7), bars(volume=0.7)
    before = DAYS[split] > DAYS
    raw.frame.loc[before, ["high", "low"]] /= ratio
    raw.frame.loc[before, "volume"] *= ratio
    read = raw.split(stamp_of(DAYS[split]), ratio)
    pd.testing.assert_frame_equal(read.frame, whole.frame)
