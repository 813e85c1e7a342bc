"""`finllm hedge`: which limits it takes, what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Cli

AS_OF = ("--as-of", "2022-06-30")


def test_the_loss_asked_for_is_kept_and_the_files_say_so(cli: Cli, tmp_path: Path) -> None:
    shown = cli("hedge", *AS_OF, "--shock", "EQUITY_US=-20%", "--loss", "5%", "--json", "--out", tmp_path / "out")
    told = shown.json
    assert shown.code == 0
    assert told["reached"] is True
    assert -told["total_after"] <= told["targets"][0]["limit"] < -told["total_before"]
    assert json.loads((tmp_path / "out" / "hedge.json").read_text("utf-8")) == told
    assert (tmp_path / "out" / "trades.csv").read_text("utf-8").startswith("instrument,name,lots")


def test_without_a_limit_the_breached_ones_are_kept_and_the_factor_with_shocks_of_a_scenario(cli: Cli) -> None:
    told = cli("hedge", *AS_OF, "--shock", "EQUITY_US=-20%", "--json").json
    assert told["targets_chosen"] == "the limits that are breached"
    assert {one["kind"] for one in told["targets"]} >= {"loss_by_factor"}
    told = cli("hedge", "hormuz-blockade", "--limit", "equity_us", "--json").json
    assert [one["subject"] for one in told["targets"]] == ["EQUITY_US"]
    told = cli("hedge", *AS_OF, "--shock", "EQUITY_US=-3%", "--json").json
    assert told["targets_chosen"].startswith("nothing is breached: the largest loss by factor, EQUITY_US")


def test_a_limit_that_no_trade_keeps_exits_with_3_where_that_is_asked_for(cli: Cli, tmp_path: Path) -> None:
    only = tmp_path / "one.yaml"
    only.write_text(
        "instruments: [{id: UST, asset_class: bond, sector: US Treasury, market_value: 1000, duration: 8}]\n"
    )
    asked = ("hedge", *AS_OF, "--shock", "EQUITY_US=-20%", "--loss", "1%", "--with", only)
    assert cli(*asked).code == 0
    shown = cli(*asked, "--fail-on", "breach")
    assert shown.code == 3
    assert "no trades of the list keep the limits" in shown.out


def test_a_var_needs_no_shocks_and_a_loss_does(cli: Cli) -> None:
    told = cli("hedge", *AS_OF, "--var", "250000", "--json").json
    assert told["var_975_1d_after"] <= 250_000 < told["var_975_1d_before"]
    shown = cli("hedge", *AS_OF, "--loss", "5%")
    assert shown.code == 2
    assert "needs a scenario" in shown.err
    assert cli("hedge", *AS_OF, "--shock", "EQUITY_US=-20%", "--limit", "nothing").code == 2
    assert cli("hedge", *AS_OF, "--shock", "EQUITY_US=-20%", "--factor", "EQUITY_US").code == 2
