"""`finllm signals`: the market on a day, and nothing from after it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Cli


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrations")


@pytest.fixture
def kept(home: Path, calibrated: Path) -> None:
    """Calibrations of one test serve the next: they take seconds."""
    home.mkdir(parents=True)
    (home / "calibrations").symlink_to(calibrated)


@pytest.mark.usefixtures("kept")
def test_the_pandemic_is_a_crisis_with_a_wide_forecast(cli: Cli, tmp_path: Path) -> None:
    said = cli("signals", "--as-of", "2020-03-16", "--out", tmp_path / "out", "--json")
    assert said.code == 0
    found = said.json
    assert found["regime"] == "crisis"
    assert found["stress_index"] == found["stress"]["value"] > 1
    assert found["stress"]["last"] == "2020-03-16"
    assert sum(found["state"]["probabilities"]) == pytest.approx(1)
    assert found["factors"]["EQUITY_US"]["last"] == "2020-03-16"
    wide = found["forecasts"]["SP500"]["bands"][1]
    assert wide["upper"] - wide["lower"] > 0.3
    assert any("OIL_WTI" in note for note in found["notes"])
    assert json.loads((tmp_path / "out" / "signals.json").read_text()) == found
    assert (tmp_path / "out" / "stress-index.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("kept")
def test_the_table_names_regime_index_and_forecasts(cli: Cli) -> None:
    said = cli("signals", "--as-of", "2020-03-16", "--quiet")
    assert said.err == ""
    for word in (
        "Regime: crisis",
        "three states of volatility",
        "Stress index: +",
        "EQUITY_US",
        "Forecasts over 20 trading days",
        "SP500",
    ):
        assert word in said.out


def test_before_the_index_has_a_past_it_says_so(cli: Cli) -> None:
    found = cli("signals", "--as-of", "1990-05-01", "--json")
    assert found.code == 0
    assert found.json["stress_index"] is None
    assert any(note.startswith("no stress index") for note in found.json["notes"])


@pytest.mark.parametrize(("arguments", "names"), [
    (("--as-of", "16.03.2020"), "2022-06-30"),
    (("--series", "NOPE"), "'NOPE'"),
    (("--horizon", "0"), "horizon"),
    (("--prices", "no.csv"), "'no.csv'"),
])  # fmt: skip
def test_bad_input_exits_with_2_and_the_mend(cli: Cli, arguments: tuple[str, ...], names: str) -> None:
    said = cli("signals", *arguments, "--json")
    assert said.code == 2
    assert names in said.json["error"]["message"] + said.json["error"]["fix"]
