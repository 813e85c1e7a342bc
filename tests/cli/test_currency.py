"""Results in the currency that is asked for: stress, reverse and run, their limits, and what is said of a pair."""

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

BOOK = "id,market_value,currency,asset_class,beta\nUS,1000000,USD,equity,1\nSAP,1000000,EUR,equity,1\n"
SHOCK = ("--as-of", "2022-06-30", "--shock", "EQUITY_US=-10%", "--hold")


@pytest.fixture
def book(tmp_path: Path) -> str:
    file = tmp_path / "book.csv"
    file.write_text(BOOK)
    return str(file)


def test_a_stress_test_is_in_the_currency_asked_for(cli: Cli, book: str) -> None:
    dollars = cli("stress", "--portfolio", book, *SHOCK, "--json").json
    euros = cli("stress", "--portfolio", book, *SHOCK, "--currency", "eur", "--json").json
    assert (dollars["currency"], euros["currency"]) == ("USD", "EUR")
    assert dollars["total"] == pytest.approx(-203_870)
    assert euros["total"] == pytest.approx(-203_870 / 1.0387, abs=0.02)
    assert "values are in EUR" in euros["notes"]
    shown = cli("stress", "--portfolio", book, *SHOCK, "--currency", "EUR").out
    assert "P&L -196,274 EUR (-10.00% of the book)" in shown
    assert not re.search(r"(?<!_EUR)USD", shown.partition("Notes")[0])  # but in the name of the rate


def test_the_setting_says_the_currency_where_the_command_does_not(
    cli: Cli, book: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINLLM_CURRENCY", "GBP")
    assert cli("stress", "--portfolio", book, *SHOCK, "--json").json["currency"] == "GBP"
    assert (
        cli("reverse", "--portfolio", book, "--as-of", "2022-06-30", "--loss", "10%", "--json").json["currency"]
        == "GBP"
    )


def test_a_page_and_its_charts_are_in_the_currency_asked_for(cli: Cli, book: str, tmp_path: Path) -> None:
    cli("stress", "--portfolio", book, *SHOCK, "--currency", "EUR", "--out", str(tmp_path / "out"))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Money is in EUR." in page
    assert "P&amp;L, EUR" in page
    assert "P&amp;L, USD" not in page


def test_limits_in_another_currency_than_the_results_are_refused_with_the_mend(
    cli: Cli, book: str, tmp_path: Path
) -> None:
    limits = tmp_path / "limits.yaml"
    limits.write_text("version: 1\ncurrency: EUR\nloss_by_position: {each: 99000}\n")
    refused = cli("stress", "--portfolio", book, "--limits", str(limits), *SHOCK, "--json")
    assert refused.code == 2
    assert "are in EUR, and the results in USD" in refused.json["error"]["message"]
    assert "--currency EUR" in refused.json["error"]["fix"]
    held = cli("stress", "--portfolio", book, "--limits", str(limits), *SHOCK, "--currency", "EUR", "--json").json
    assert [(one["subject"], one["loss"]) for one in held["breaches"]] == [("SAP", 100_000.0)]


@pytest.mark.parametrize(("asked", "named"), [("XYZ", "'XYZ'"), ("GBX", "'GBX'"), ("DEM", "'DEM'")])
def test_what_is_no_currency_of_results_is_refused(cli: Cli, book: str, asked: str, named: str) -> None:
    refused = cli("stress", "--portfolio", book, *SHOCK, "--currency", asked, "--json")
    assert refused.code == 2
    assert f"{named} cannot be a book's currency" in refused.json["error"]["message"]


def test_a_pair_given_as_a_factor_is_answered_with_the_factor_to_write(cli: Cli, book: str) -> None:
    refused = cli("stress", "--portfolio", book, "--shock", "USDJPY=+5%", "--json")
    assert refused.code == 2
    assert "use FX_JPYUSD" in refused.json["error"]["fix"]


@pytest.mark.parametrize("underlying", ["EURUSD", "EUR/USD", "FX_EURUSD"])
def test_a_forward_on_a_currency_moves_with_its_rate(cli: Cli, tmp_path: Path, underlying: str) -> None:
    file = tmp_path / "forward.csv"
    file.write_text(
        "id,currency,asset_class,quantity,underlying,strike,expiry\n"
        f"EUR_DEC,USD,fx,100000,{underlying},1.02,2022-12-16\n"
    )
    shocks = ("--as-of", "2022-06-30", "--shock", "EQUITY_US=-10%", "--shock", "FX_EURUSD=-5%")
    result = cli("stress", "--portfolio", str(file), *shocks, "--json").json
    assert result["coverage"]["covered"] == 1.0
    assert float(result["by_factor"]["FX_EURUSD"]) == pytest.approx(-0.05 * 1.0387 * 100_000, abs=0.01)
    assert float(result["total"]) == pytest.approx(-0.05 * 1.0387 * 100_000, abs=0.01)
