"""A scenario may shock the user's own factor, limit it and complete the others; the record says on which data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from finllm.desk.desk import Desk
from finllm.errors import InputError, ReplayRefused
from finllm.review.replay import replay
from finllm.sessions.requests import build_request
from finllm.tools.data.market import packaged_series
from finllm.tools.pnl.outcome import ENGINE
from tests.conftest import bounded
from tests.desks import go_on, run
from tests.graphs.test_flow import DOWN
from tests.tools.data.test_sources import series_file

MakeDesk = Callable[..., Desk]
READS_NO_MOVE = {"when": "What kind of event", "say": {name: "none" for name in DOWN if name.endswith("direction")}}
STORY = """title: A smelter closes
narrative: The largest smelter closes for a month and cobalt is short.
horizon: 20
as_of: 2022-06-30
approved_by: somebody
shocks:
- {factor: COBALT, move: +30%}
"""
BOOK = """id,market_value,currency,asset_class,sector
COBALT,1000000,USD,commodity,Metals
AAPL,1000000,USD,equity,Tech
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A scenario on cobalt, a book that holds it, its prices and a limit on it."""
    prices = packaged_series()["SP500"].values.loc["2017":"2022"] ** 0.5
    prices.rename("COBALT").to_csv(tmp_path / "prices.csv", index_label="date")
    (tmp_path / "story.yaml").write_text(STORY)
    (tmp_path / "book.csv").write_text(BOOK.replace("COBALT,1", "COBALT,-1"))
    (tmp_path / "limits.yaml").write_text("version: 1\nloss_by_factor: {COBALT: 100000}\n")
    return {file.stem: file for file in tmp_path.iterdir()}


def test_a_users_factor_is_shocked_limited_completed_and_replayed(
    files: dict[str, Path], scripted_desk: MakeDesk
) -> None:
    asked = build_request(str(files["story"]), portfolio=files["book"], limits=files["limits"],
                          prices=[files["prices"]], propagate=True).request  # fmt: skip
    desk = scripted_desk([READS_NO_MOVE])
    report = run(asked, desk).report
    assert report is not None
    assert report.engine == ENGINE
    rows = {row.factor: row for row in report.shocks}
    assert (rows["COBALT"].origin, rows["EQUITY_US"].origin) == ("user", "completed")
    assert report.by_factor["COBALT"].value == pytest.approx(-300_000)
    assert any("COBALT (loss_by_factor)" in line for line in report.breaches)
    rebuilt = bounded(replay("run-1", desk), seconds=300)
    assert rebuilt.node == "report"
    series_file(desk.settings.data_dir / "series")  # data that came later changes nothing
    assert bounded(replay("run-1", desk), seconds=300).sha256 == rebuilt.sha256
    run(asked, desk, "run-2")
    assert go_on(desk, "run-2").report is not None
    (desk.settings.data_dir / "series" / "tin.csv").unlink()
    with pytest.raises(ReplayRefused, match=r"imported/series/tin.csv' differs"):
        bounded(replay("run-2", desk), seconds=300)


def test_an_unknown_factor_is_refused_before_anything_is_loaded(files: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="unknown factor 'COBALT'") as refused:
        build_request(str(files["story"]), portfolio=files["book"])
    assert "EQUITY_US" in refused.value.fix
    assert "--prices" in refused.value.fix
    files["story"].write_text(STORY.replace("+30%", "+30bp"))
    with pytest.raises(InputError, match="'COBALT' does not move in 'bp'"):
        build_request(str(files["story"]), portfolio=files["book"], prices=[files["prices"]])


def test_a_factor_may_be_named_without_a_shock(files: dict[str, Path]) -> None:
    files["story"].write_text(STORY.replace("COBALT, move: +30%", "OIL_WTI, move: +30%"))
    asked = build_request(str(files["story"]), portfolio=files["book"], prices=[files["prices"]], factors=["COBALT"])
    assert asked.request.scenario.factors == ("COBALT",)
    assert asked.request.scenario.propagate is None
    still = build_request(str(files["story"]), portfolio=files["book"], prices=[files["prices"]], propagate=False)
    assert not still.request.scenario.propagate
    with pytest.raises(InputError, match="no series 'TIN'"):
        build_request(str(files["story"]), portfolio=files["book"], factors=["TIN"])
