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


def test_quiet_is_an_option_and_a_currency_can_be_hedged_by_the_list_that_comes_with_it(
    cli: Cli, tmp_path: Path
) -> None:
    book = tmp_path / "book.csv"
    book.write_text("id,market_value,currency,asset_class\nEUR_CASH,2000000,EUR,cash\n", "utf-8")
    asked = ("hedge", *AS_OF, "--portfolio", book, "--shock", "FX_EURUSD=-8%", "--loss", "20000", "--quiet", "--json")
    told = cli(*asked).json
    assert told["reached"] is True
    assert "EUR_FUTURE" in {one["id"] for one in told["trades"]}
    assert cli("reverse", "--loss", "5%", *AS_OF, "--answers", "1", "--quiet", "--json").code == 0


def test_a_var_needs_no_shocks_and_a_loss_does(cli: Cli) -> None:
    told = cli("hedge", *AS_OF, "--var", "250000", "--json").json
    assert told["var_975_1d_after"] <= 250_000 < told["var_975_1d_before"]
    shown = cli("hedge", *AS_OF, "--loss", "5%")
    assert shown.code == 2
    assert "needs a scenario" in shown.err
    assert cli("hedge", *AS_OF, "--shock", "EQUITY_US=-20%", "--limit", "nothing").code == 2
    assert cli("hedge", *AS_OF, "--shock", "EQUITY_US=-20%", "--factor", "EQUITY_US").code == 2


def test_a_var_of_less_of_the_book_is_not_checked_and_not_kept_as_stress_says(cli: Cli) -> None:
    asked = (*AS_OF, "--shock", "EQUITY_US=-20%")
    told = cli("stress", *asked, "--json").json
    (said,) = [one["why"] for one in told["unchecked"] if one["kind"] == "var_975_1d"]
    shown = cli("hedge", *asked, "--limit", "var_975_1d", "--json", "--fail-on", "breach")
    (target,) = shown.json["targets"]
    assert shown.code == cli("stress", *asked, "--fail-on", "breach").code == 3
    assert target["unchecked"] == said
    assert target["coverage"] == told["var_975_1d"]["coverage"] < 0.95
    assert shown.json["reached"] is False
    out = " ".join(cli("hedge", *asked, "--limit", "var_975_1d").out.split())
    assert "are kept" not in out
    assert f"not checked: {said}" in out
    assert "one-day VaR, 97.5 %, of 66 % of the book" in out


def test_limits_that_the_trades_keep_do_not_fail_for_what_was_breached_before(cli: Cli, tmp_path: Path) -> None:
    limits = tmp_path / "limits.yaml"
    limits.write_text("version: 1\ntotal_loss: 1000000\n")
    asked = ("hedge", *AS_OF, "--shock", "EQUITY_US=-20%", "--limits", limits, "--fail-on", "breach", "--json")
    shown = cli(*asked)
    assert (shown.code, shown.json["reached"], shown.json["breaches"]) == (0, True, [])
    assert [one["kind"] for one in shown.json["breaches_before"]] == ["total_loss"]


def test_of_a_scenario_it_is_said_first_that_its_story_is_not_read(cli: Cli) -> None:
    asked = ("hedge", "hormuz-blockade", "--limit", "EQUITY_US")
    told = cli(*asked, "--json").json
    (first,) = told["first"]
    assert first.startswith("the story is not read here: only what the scenario itself gives moves the book: OIL_WTI ")
    assert first in told["notes"]
    out = " ".join(cli(*asked).out.split())
    assert out.index("the story is not read here") < out.index("limits: as asked for")
    told = cli("hedge", "ceasefire", "--var", "250000", "--json").json
    assert "the story is not read here: it gives no shocks" in told["first"][0]
    assert cli("hedge", *AS_OF, "--var", "250000", "--json").json["first"] == []
