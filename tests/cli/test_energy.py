"""`finllm energy` over calls on record, `--defer` by a grid's series, and `finllm nodes plan`."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from finllm.desk.deferring import cleanest, wait_until, words
from finllm.errors import InputError
from finllm.memory.ledger import Ledger
from finllm.scheduler.record import CALL, CHARGE, Entry
from finllm.settings import Settings
from tests.cli.conftest import Cli

NOW = dt.datetime(2026, 12, 1, 18, tzinfo=dt.UTC)


def spent(joules: float, grams: float | None, tokens: int = 100) -> dict[str, Any]:
    known = None if grams is None else {"value": grams, "provenance": "table", "basis": "DE, a constant",
                                        "kind": "average"}  # fmt: skip
    return {"seconds": 1.0, "tokens": tokens, "deep_tokens": 0, "usd": None, "grams": known,
            "joules": {"value": joules, "provenance": "modelled", "basis": "CPU time"}}  # fmt: skip


@pytest.fixture
def recorded(home: Path) -> Path:
    """Two runs of two tenants, of which one ended: an answer, a charge, one answer without grams, one used again."""
    home.mkdir()
    ledger = Ledger(home / "ledger.sqlite")
    ask = {"agent": "narrative", "tenant": "desk-a", "offer": {"name": "edge", "tier": "edge"}}
    with ledger.start_run("one", {"scenario": {"title": "One"}}):
        ledger.record(Entry("k1", CALL, "edge", ask, {"spent": spent(10.0, 2.0)}), run_id="one", node="narrative")
        ledger.record(Entry("k2", CHARGE, "edge", ask, {"spent": spent(5.0, 1.0)}), run_id="one", node="narrative")
        ledger.end_run("one", "finished", {"title": "One"})
    with ledger.start_run("two", {"scenario": {"title": "Two"}}):
        other = {**ask, "agent": "validator", "tenant": "desk-b"}
        ledger.used("k1", run_id="two", node="narrative")
        ledger.record(Entry("k3", CALL, "deep", other, {"spent": spent(40.0, None)}), run_id="two", node="validator")
        ledger.end_run("two", "stopped", None)
    ledger.close()
    return home


def test_joules_and_grams_add_up_however_they_are_parted_and_keep_their_provenance(recorded: Path, cli: Cli) -> None:
    parts = {by: cli("energy", "--by", by, "--json").json for by in ("run", "tenant", "node", "agent")}
    for found in parts.values():
        assert found["total"]["joules"] == pytest.approx(55.0)
        assert sum(one["joules"] for one in found["parts"]) == pytest.approx(55.0)
        assert (found["total"]["joules_from"], found["total"]["grams_from"]) == ("modelled", "table")
    named = {by: {one["what"]: one["joules"] for one in found["parts"]} for by, found in parts.items()}
    assert named["run"] == {"two": 40.0, "one": 15.0}, "what is answered from the record costs nothing again"
    assert named["tenant"] == {"desk-b": 40.0, "desk-a": 15.0}
    assert named["node"] == {"deep": 40.0, "edge": 15.0}
    assert named["agent"] == {"validator": 40.0, "narrative": 15.0}


def test_grams_of_a_forecast_are_not_told_while_those_of_a_call_are_missing(recorded: Path, cli: Cli) -> None:
    found = cli("energy", "--json").json
    assert (found["forecasts"], found["total"]["uncharged"]) == (1, 1)
    assert found["per_forecast"]["joules"] == pytest.approx(55.0)
    assert found["per_forecast"]["sci_grams"] is None
    told = cli("energy").out
    assert "1 forecasts: 55 J each, - gCO₂e each" in told
    assert "while FINLLM_CARBON was set" in told


def test_a_period_an_output_file_and_an_empty_home(recorded: Path, cli: Cli, tmp_path: Path) -> None:
    files = [tmp_path / f"energy{form}" for form in (".parquet", ".json", ".csv")]
    assert cli("energy", *(part for file in files for part in ("--out", file))).code == 0
    frame = pd.read_parquet(files[0])
    assert list(frame["what"]) == ["two", "one", "all"]
    assert json.loads(files[1].read_text())["total"]["tokens"] == 300
    assert cli("energy", "--to", "2020-01-01", "--json").json["total"]["calls"] == 0
    assert (cli("energy", "--out", "x.txt").code, cli("energy", "--from", "soon").code) == (2, 2)
    assert cli("energy", "--by", "moon").code == 2


def test_nothing_on_record_used_nothing(cli: Cli) -> None:
    assert cli("energy", "--json").json["total"]["joules"] is None


@pytest.fixture
def grid(tmp_path: Path) -> Settings:
    """A grid that is dirty in the evening and clean from 21:00 to 23:00."""
    lines = ["time,gco2_per_kwh"]
    for hour in range(72):
        at = NOW - dt.timedelta(hours=24) + dt.timedelta(hours=hour)
        lines.append(f"{at:%Y-%m-%dT%H:%M:%SZ},{100 if at.hour in (21, 22) else 300}")
    file = tmp_path / "grid.csv"
    file.write_text("\n".join(lines))
    return Settings(home=tmp_path / "home", carbon=str(file), zone="DE")


def test_work_that_may_wait_begins_in_the_cleanest_hour_and_ends_within_its_window(
    grid: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finllm.desk.deferring.open_source", _source)
    start = cleanest(grid, NOW, 8 * 3600.0, 600.0)
    assert start.at == NOW.replace(hour=21)
    assert "waits until 2026-12-01 21:00 UTC: 100 gCO₂e/kWh instead of 300, 67% less" in words(start, NOW)
    short = cleanest(grid, NOW, 2 * 3600.0, 600.0)
    assert short.at == NOW
    assert "no hour of the window is cleaner" in words(short, NOW)
    full = cleanest(grid, NOW, 3600.0, 7200.0)
    assert full.at == NOW, "work that fills its window begins at once"
    clock = [NOW]

    def sleep(seconds: float) -> None:
        clock[0] += dt.timedelta(seconds=seconds)

    wait_until(start.at, lambda: clock[0], sleep)
    assert clock[0] == start.at


def _source(settings: Settings) -> Any:
    from finllm.scheduler.money.carbon_file import open_grid

    return open_grid(settings.carbon or "", settings.zone, "average").zone("DE")


def test_without_a_grid_or_with_no_window_deferring_is_refused(tmp_path: Path, cli: Cli) -> None:
    with pytest.raises(InputError, match="needs the grid's intensity"):
        cleanest(Settings(home=tmp_path), NOW, 3600.0, 60.0)
    for text in ("8", "0h", "200h", "tomorrow"):
        said = cli("backtest", "--defer", text, "--json")
        assert (said.code, "is no window" in said.json["error"]["message"]) == (2, True)


def test_a_command_that_may_wait_and_need_not_goes_on_at_once(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINLLM_CARBON", "250")
    said = cli("run", "no-such", "--defer", "8h", "--json")
    assert said.code == 2
    from finllm.cli.options import wait_for_cleaner
    from finllm.settings import load_settings

    wait_for_cleaner("8h", load_settings().settings, 60.0)


CONFIG = {"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "hidden_size": 8192,
          "intermediate_size": 28672, "vocab_size": 128256}  # fmt: skip


def test_a_plan_says_how_to_serve_a_model_and_why(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    names = [f"g{number}" for number in range(8)]
    gpus = tmp_path / "gpus.yaml"
    gpus.write_text("gpus:\n" + "".join(f"  - {{id: {name}, node: a, memory_gib: 80}}\n" for name in names)
                    + f"nvlink: [[{', '.join(names)}]]\n")  # fmt: skip
    said = cli("nodes", "plan", tmp_path, "--gpus", gpus, "--json").json
    assert (said["tensor"], said["pipeline"], said["copies"]) == (4, 1, 2)
    assert "--tensor-parallel-size 4 --pipeline-parallel-size 1" in cli("nodes", "plan", tmp_path, "--gpus", gpus).out
    small = cli("nodes", "plan", tmp_path, "--gpus", gpus, "--bytes", "0.5", "--json").json
    assert small["tensor"] == 1
    gpus.write_text("gpus: [{id: g0, memory_gib: 8}]")
    refused = cli("nodes", "plan", tmp_path, "--gpus", gpus, "--json")
    assert (refused.code, "does not fit" in refused.json["error"]["message"]) == (2, True)
    gpus.write_text("gpus: [{id: g0}]")
    assert "gpus.0.memory_gib" in cli("nodes", "plan", tmp_path, "--gpus", gpus, "--json").json["error"]["message"]
