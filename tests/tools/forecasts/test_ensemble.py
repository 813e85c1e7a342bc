"""The ensemble: weights on the simplex, held-out forecasts without the future, and calibrations that are kept."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.tools.data.market import MarketStore
from finllm.tools.forecasts.calibrations import Calibrations, key
from finllm.tools.forecasts.ensemble import LEVEL_MEMBERS, HeldOut, calibrate_ensemble, combine, held_out
from finllm.tools.forecasts.forecast import forecasts
from finllm.tools.forecasts.volatility_ensemble import MEMBERS, forecast_volatility

MARKET = MarketStore()
AS_OF = dt.date(2022, 6, 30)


def walk(observations: int, seed: int = 5) -> pd.Series:
    steps = np.random.default_rng(seed).standard_t(5, observations) * 0.01
    return pd.Series(np.cumsum(steps), index=pd.bdate_range("2018-01-01", periods=observations))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(0.01, 10))
def test_weights_are_on_the_simplex_and_do_not_depend_on_the_unit(seed: int, members: int, unit: float) -> None:
    errors = np.random.default_rng(seed).normal(size=(80, members)) * np.arange(1, members + 1)
    weights = combine(errors)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert combine(errors * unit) == pytest.approx(weights, abs=1e-6)


def test_a_member_that_errs_more_weighs_less_and_equal_members_weigh_the_same() -> None:
    errors = np.random.default_rng(2).normal(size=(500, 3)) * [1.0, 1.0, 3.0]
    first, second, worst = combine(errors)
    assert worst < min(first, second)
    same = np.repeat(errors[:, :1], 4, axis=1)
    assert combine(same) == pytest.approx(np.full(4, 0.25), abs=1e-6)
    assert combine(np.zeros((50, 2))) == pytest.approx([0.5, 0.5])


def test_a_held_out_forecast_does_not_notice_a_poisoned_future() -> None:
    levels, cut = walk(700), 620
    poisoned = levels.where(np.arange(700) < cut, 5.0)
    one, other = (held_out(each, "daily", (1, 5)) for each in (levels, poisoned))
    before = one.at < cut
    assert before.sum() > 10
    assert np.array_equal(one.changes[before], other.changes[before])
    assert np.array_equal(one.sigma[before], other.sigma[before])


def test_blocks_computed_before_change_nothing() -> None:
    levels = walk(800)
    blocks: dict[tuple[int, int], HeldOut] = {}
    calibrate_ensemble(levels.iloc[:700], "daily", (5,), blocks)
    later = calibrate_ensemble(levels, "daily", (5,), blocks)
    assert later == calibrate_ensemble(levels, "daily", (5,))


def test_a_series_without_forty_held_out_forecasts_has_no_calibration() -> None:
    assert calibrate_ensemble(walk(300), "daily", (1,)) == {}


def test_a_calibration_is_kept_as_json_and_read_instead_of_computed(tmp_path: Path) -> None:
    levels = walk(800)
    made = Calibrations(tmp_path).get("ACME/B", levels, "daily", (1, 5))
    files = sorted(tmp_path.iterdir())
    assert [file.suffix for file in files] == [".json", ".json"]
    kept = json.loads(files[0].read_text())
    assert set(kept["weights"]) == set(LEVEL_MEMBERS)
    marked = {**kept, "scored": 12345}
    files[0].write_text(json.dumps(marked))
    read = Calibrations(tmp_path).get("ACME/B", levels, "daily", (1, 5))
    assert 12345 in {one.scored for one in read.values()}
    files[0].write_text("{broken")
    again = Calibrations(tmp_path).get("ACME/B", levels, "daily", (1, 5))
    assert again == made
    assert json.loads(files[0].read_text()) == kept


def test_the_key_is_of_the_content() -> None:
    levels = walk(300)
    assert key(levels, "daily", 5) == key(levels.copy(), "daily", 5)
    a_day_later = pd.Series(levels.to_numpy(), index=levels.index + pd.Timedelta(days=1))
    others = [levels.iloc[:-1], a_day_later, levels + 1e-12]
    keys = {key(one, "daily", 5) for one in (levels, *others)} | {key(levels, "daily", 1), key(levels, "monthly", 5)}
    assert len(keys) == 6


def test_a_forecast_with_a_kept_calibration_is_the_forecast_without_and_serves_the_month(tmp_path: Path) -> None:
    cold = forecasts(MARKET.read("MTUM", AS_OF), (1, 20), calibrations=Calibrations(tmp_path))
    count = len(list(tmp_path.iterdir()))
    warm = forecasts(MARKET.read("MTUM", AS_OF), (1, 20), calibrations=Calibrations(tmp_path))
    assert warm == cold
    forecasts(MARKET.read("MTUM", dt.date(2022, 6, 15)), (1, 20), calibrations=Calibrations(tmp_path))
    assert len(list(tmp_path.iterdir())) == count


def test_next_weeks_volatility_has_every_member_and_nested_bands() -> None:
    prices = MARKET.read("SP500", dt.date(2004, 6, 30))
    made = forecast_volatility(prices)
    assert [one.name for one in made.members] == list(MEMBERS)
    assert sum(one.weight for one in made.members) == pytest.approx(1)
    inner, outer = made.bands
    assert 0 < outer.lower < inner.lower < made.point < inner.upper < outer.upper
    assert made.last_week == dt.date(2004, 6, 25)


def test_the_volatility_of_what_has_no_price_is_refused() -> None:
    with pytest.raises(InputError, match="'VIX' has no weekly volatility"):
        forecast_volatility(MARKET.read("VIX", AS_OF))
