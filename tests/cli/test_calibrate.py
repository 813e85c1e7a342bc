"""`finllm calibrate` on a real, tiny model: a table, a file, and nothing measured twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finllm.agents.compliance import COMPLIANCE
from finllm.agents.stress_tester import STRESS_TESTER
from finllm.evaluation import calibrate as graph
from tests.models.tiny import write_tiny_model

from .conftest import Cli


def test_calibrating_writes_the_file_shows_a_table_and_measures_once(
    cli: Cli, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINLLM_MODEL", str(write_tiny_model(tmp_path / "tiny.gguf")))
    monkeypatch.setenv("FINLLM_THREADS", "1")
    monkeypatch.setattr(graph, "AGENTS", (STRESS_TESTER, COMPLIANCE))
    first = cli("calibrate", "--rung", "Q8_0", "--json")
    assert first.code == 0, first.out
    (row,) = first.json["calibrations"]
    assert (row["precision"], row["fresh"], row["speed"]["energy"] in ("measured", "modelled")) == ("Q8_0", True, True)
    assert [rate["batch"] for rate in row["speed"]["decode"]] == [1, 2, 4, 8, 16]
    assert set(row["quality"]["compliance"]) == {"score", "lower", "chance", "items"}
    assert Path(first.json["file"]) == home / "engine-calibration.json"
    assert json.loads((home / "engine-calibration.json").read_text())["rungs"][0]["model"] == "tiny"
    table = cli("calibrate", "--rung", "Q8_0")
    assert "1 of 1 as measured before" in table.out
    assert "decode 16" in table.out
    assert "stress-tester" in table.out


def test_an_unknown_rung_is_the_users_to_mend(cli: Cli) -> None:
    said = cli("calibrate", "--rung", "Q3_X", "--json")
    assert said.code == 2
    assert "unknown precision 'Q3_X'" in said.json["error"]["message"]
