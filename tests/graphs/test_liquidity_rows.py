"""Volume and ranges of the user's files reach the report: the cause of a difference, by its rows, or 'not testable'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finllm.desk.desk import Desk
from finllm.desk.request import PriceFile
from finllm.graphs.report import Report, to_markdown
from finllm.review.html import report_html
from finllm.tools.data.market import MarketStore
from tests.desks import request_for, run
from tests.graphs.test_verdicts_count import ways


def bars(path: Path, market: MarketStore, *, volume: float) -> Path:
    """The packaged index with a range and a volume of each day, the latter `volume` times as large in the last 20."""
    whole = market.whole("SP500").values
    values = pd.Series(whole[(whole.index >= "2020-06-01") & (whole.index <= "2022-06-30")])
    chance = np.random.default_rng(2)
    half, sizes = chance.uniform(0.004, 0.006, len(values)), chance.uniform(3.5e9, 4.5e9, len(values))
    sizes[-20:] *= volume
    rows = [f"{str(day)[:10]},{v:.4f},{v * np.exp(h):.4f},{v * np.exp(-h):.4f},{v:.4f},{size:.0f}"
            for (day, v), h, size in zip(values.items(), half, sizes, strict=True)]  # fmt: skip
    path.write_text("\n".join(["Date,Open,High,Low,Close,Volume", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def report_of(scripted_desk: Callable[..., Desk]) -> Callable[..., Report]:
    def make(model: str, *files: Path) -> Report:
        request = request_for("hormuz-blockade").model_copy(update={"prices": tuple(map(PriceFile.of, files))})
        report = run(request, scripted_desk(ways(), model=model), model).report
        assert report is not None
        assert report.against is not None
        return report

    return make


def test_a_run_holds_the_cause_against_volume_and_ranges(tmp_path: Path, report_of: Callable[..., Report]) -> None:
    report = report_of("few", bars(tmp_path / "^GSPC.csv", MarketStore(), volume=0.4))
    assert report.against is not None
    rows = {one.measure.split(",")[0]: one for one in report.against.liquidity if one.factor == "EQUITY_US"}
    assert [name for name, one in rows.items() if one.verdict == "few trade"] == [
        "volume", "daily range per unit of volume",
    ]  # fmt: skip
    by = "prices are made by few who trade (EQUITY_US: by 2 of 4 measures, volume, price impact"
    assert any(by in line for line in report.against.lines)
    table = {one.id: one for one in report.evidence}
    for one in rows.values():
        assert table[one.value.evidence].value == pytest.approx(one.value.value)
    source = table[rows["volume"].value.evidence].source
    assert source is not None
    assert source.uri.endswith("%5EGSPC.csv")
    assert f"{rows['volume'].value} [{rows['volume'].value.evidence}]" in to_markdown(report)
    page = report_html(report, ())
    assert "Whether few trade" in page
    assert f"#{rows['volume'].value.evidence}" in page


def test_without_volume_the_report_says_that_it_is_not_testable(report_of: Callable[..., Report]) -> None:
    report = report_of("none")
    assert report.against is not None
    said = "Whether few trade is not testable: no volume, no daily range (EQUITY_US, USD_BROAD)."
    assert said in report.against.lines
    assert {one.measure for one in report.against.liquidity} == {"autocorrelation of daily moves"}
