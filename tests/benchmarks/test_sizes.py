"""The reviewed size table is what its histories give, where they are at hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from benchmarks.sizes import FOLDER, HISTORIES, KEPT_EXTREME, rounded, size_row

from finllm.tools.pnl.size_table import size_table


@pytest.mark.parametrize("one", HISTORIES, ids=lambda one: one.factor)
def test_the_table_is_what_its_histories_give(one) -> None:
    if not (FOLDER / one.file).is_file():
        pytest.skip(f"{one.file} is not at hand: the table's histories are not part of the project")
    row, kept = size_row(one, FOLDER), size_table().factors[one.factor]
    assert (kept.unit, kept.basis) == (row.unit, row.basis)
    assert kept.sigma == float(rounded(row.sigma))
    assert {name: getattr(kept, name) for name in row.sizes} == {n: float(rounded(v)) for n, v in row.sizes.items()}


def test_averages_and_longer_steps_are_brought_to_twenty_days(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    days = pd.bdate_range("1990-01-01", periods=260 * 60)
    walk = pd.Series(100 * np.exp(0.002 * random.standard_normal(len(days)).cumsum()), days)
    months = walk.groupby(days.to_period("M")).mean()
    gold = next(one for one in HISTORIES if one.factor == "GOLD")
    (tmp_path / "prices").mkdir()
    pd.DataFrame({"Date": months.index.astype(str), "Price": months.to_numpy()}).to_csv(
        tmp_path / gold.file, index=False
    )
    ends = walk.to_numpy()
    assert size_row(gold, tmp_path).sigma == pytest.approx((ends[20:] / ends[:-20] - 1).std(), rel=0.06)


def test_the_vix_keeps_the_extreme_that_no_quarter_s_quantile_tells() -> None:
    row = size_table().factors["VIX"]
    assert row.extreme == KEPT_EXTREME
    assert row.small < row.medium < row.large < row.extreme
