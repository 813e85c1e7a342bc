"""`finllm stress`: the engine on the command line, its files, and what is wrong with bad input."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from .conftest import Cli

SHOCKS = ("--shock", "OIL_WTI=+40%", "--shock", "EQUITY_US=-3sigma")
HEADER = "id,quantity,market_value,currency,asset_class,sector,beta\n"


def cents(gains: dict[str, float]) -> Decimal:
    return sum((Decimal(str(gain)) for gain in gains.values()), Decimal(0))


def test_json_has_every_cut_summing_to_the_total(cli: Cli) -> None:
    said = cli("stress", *SHOCKS, "--propagate", "--as-of", "2022-06-30", "--json")
    assert said.code == 0
    assert said.err == ""
    found = said.json
    for cut in ("by_position", "by_factor", "by_sector"):
        assert cents(found[cut]) == Decimal(str(found["total"]))
    assert len(found["by_position"]) == 22
    assert found["interval"]["lower"] < found["total"] < found["interval"]["upper"]
    assert [(row["factor"], row["origin"]) for row in found["shocks"]][:2] == [
        ("OIL_WTI", "user"),
        ("EQUITY_US", "user"),
    ]
    assert any(row["origin"] == "completed" for row in found["shocks"])
    assert found["as_of"] == "2022-06-30"
    assert found["portfolio"] == "default"


def test_the_same_command_gives_the_same_bytes(cli: Cli) -> None:
    arguments = ("stress", *SHOCKS, "--propagate", "--json")
    first = cli(*arguments)
    assert first.json["as_of"] == "2022-12-28"  # the last day of the equity data
    assert cli(*arguments).out == first.out


def test_by_hand_a_position_is_its_value_times_beta_times_the_shock(cli: Cli, tmp_path: Path) -> None:
    book = tmp_path / "book.csv"
    book.write_text(HEADER + "PRIVATE,,1000000,USD,equity,Tech,1.2\nOIL,,500000,USD,commodity,Energy,\n")
    found = cli("stress", "-p", book, "--shock", "EQUITY_US=-10%", "--shock", "OIL_WTI=+40%", "--json").json
    assert found["by_position"] == {"PRIVATE": -120_000.0, "OIL": 200_000.0}
    assert found["by_sector"] == {"Tech": -120_000.0, "Energy": 200_000.0}
    assert found["total"] == 80_000.0


def test_a_named_episode_is_the_same_as_its_days(cli: Cli) -> None:
    named = cli("stress", "--replay", "lehman-2008", "--json").json
    dated = cli("stress", "--replay", "2008-09-12:2008-11-20", "--json").json
    assert named["total"] == dated["total"] < 0
    assert {row["origin"] for row in named["shocks"]} == {"historical"}


def test_out_holds_tables_page_charts_and_the_result_to_the_cent(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = cli("stress", *SHOCKS, "--out", out, "--format", "csv,parquet,xlsx", "--json")
    assert said.code == 0
    names = {path.name for path in out.iterdir()}
    assert {"report.html", "result.json", "result.xlsx", "by_factor.csv", "by_factor.parquet", "waterfall.png",
            "positions.png", "fan.png", "stress-index.png"} <= names  # fmt: skip
    assert json.loads((out / "result.json").read_text()) == said.json
    with (out / "by_position.csv").open() as file:
        rows = {row["position"]: Decimal(row["usd"]) for row in csv.DictReader(file)}
    assert rows == {
        name: Decimal(str(gain)).quantize(Decimal("0.01")) for name, gain in said.json["by_position"].items()
    }
    assert all((out / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for name in names if name.endswith(".png"))
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<svg") == 4


def test_a_hostile_position_is_text_everywhere(cli: Cli, tmp_path: Path) -> None:
    book, out = tmp_path / "book.csv", tmp_path / "out"
    book.write_text(HEADER + '"<script>alert(1)</script>",,1000,USD,equity,"=1+1",1\n')
    said = cli("stress", "-p", book, "--shock", "EQUITY_US=-10%", "--out", out)
    assert said.code == 0
    assert "<script" not in (out / "report.html").read_text()
    assert "'=1+1,-100.00" in (out / "by_sector.csv").read_text()


@pytest.mark.parametrize("kind", ["parquet", "xlsx"])
def test_a_portfolio_in_parquet_or_excel_gives_what_its_csv_gives(cli: Cli, tmp_path: Path, kind: str) -> None:
    table = pd.DataFrame(
        {"id": ["AAPL", "XOM"], "quantity": [100.0, 200.0], "currency": "USD", "asset_class": "equity"}
    )
    table.to_csv(tmp_path / "book.csv", index=False)
    other = tmp_path / f"book.{kind}"
    _ = table.to_parquet(other) if kind == "parquet" else table.to_excel(other, index=False)
    found = [cli("stress", "-p", path, "--shock", "EQUITY_US=-10%", "--json").json["by_position"]
             for path in (tmp_path / "book.csv", other)]  # fmt: skip
    assert found[0] == found[1]


def test_a_breach_exits_with_3_only_where_asked(cli: Cli, tmp_path: Path) -> None:
    limits = tmp_path / "limits.yaml"
    limits.write_text("version: 1\nloss_by_factor:\n  EQUITY_US: 1000\n")
    arguments = ("stress", "--shock", "EQUITY_US=-10%", "--limits", limits, "--json")
    assert cli(*arguments).code == 0
    strict = cli(*arguments, "--fail-on", "breach")
    assert strict.code == 3
    assert [(one["kind"], one["subject"]) for one in strict.json["breaches"]] == [("loss_by_factor", "EQUITY_US")]


def test_the_table_names_the_total_the_shocks_and_the_breaches(cli: Cli) -> None:
    out = cli("stress", *SHOCKS).out
    for said in ("Stress test of default", "P&L by factor", "OIL_WTI", "Limit breaches",
                 "Closest past event", "Notes"):  # fmt: skip
        assert said in out


@pytest.mark.parametrize("command", ["stress", "reverse", "signals", "backtest", "data"])
def test_every_engine_command_has_help_with_examples(cli: Cli, command: str) -> None:
    said = cli(command, "--help")
    assert said.code == 0
    assert f"finllm {command}" in said.out.split("Examples:")[1]


def test_a_users_series_can_be_a_factor(cli: Cli, tmp_path: Path) -> None:
    prices = tmp_path / "prices.csv"
    days = [f"2022-{month:02}-{day:02}" for month in range(1, 7) for day in range(1, 28)]
    prices.write_text("date,COBALT\n" + "".join(f"{day},{100 + at % 7}\n" for at, day in enumerate(days)))
    arguments = ("stress", "--prices", prices, "--shock", "COBALT=-10%", "--json")
    found = cli(*arguments)
    assert found.code == 0
    assert found.json["shocks"][0]["factor"] == "COBALT"
    assert cli(*arguments, "--factor", "COBALT").json == found.json
    assert "'TIN'" in cli("stress", "--prices", prices, "--shock", "COBALT=-10%", "--factor", "TIN").err


BAD = {
    "nothing": ((), "--shock EQUITY_US=-20%"),
    "no equals sign": (("--shock", "OIL_WTI+40%"), "FACTOR=MOVE"),
    "unknown factor": (("--shock", "OIL=+4%"), "'OIL'"),
    "unit of another": (("--shock", "RATE_US_10Y=+4%"), "'+75bp'"),
    "unreadable move": (("--shock", "OIL_WTI=up"), "'up'"),
    "shocked twice": (("--shock", "GOLD=+4%", "--shock", "GOLD=+5%"), "'GOLD' is shocked twice"),
    "loses more than all": (("--shock", "EQUITY_US=-150%"), "EQUITY_US"),
    "unknown episode": (("--replay", "lehmann"), "lehman-2008"),
    "replay unreadable": (("--replay", "2008:2009-99-99"), "START:END"),
    "replay backwards": (("--replay", "2008-11-20:2008-09-12"), "2008-11-20"),
    "replay outside the data": (("--replay", "1850-01-02:1850-02-04"), "1850"),
    "horizon of nothing": ((*SHOCKS, "--horizon", "0"), "horizon"),
    "horizon beyond a year": ((*SHOCKS, "--horizon", "251"), "give 1 to 250 days"),
    "level": ((*SHOCKS, "--level", "1.5"), "level"),
    "as of": ((*SHOCKS, "--as-of", "30.06.2022"), "2022-06-30"),
    "as of before all data": ((*SHOCKS, "--as-of", "1950-01-02"), "1950-01-02"),
    "portfolio": ((*SHOCKS, "--portfolio", "no.csv"), "'no.csv'"),
    "prices": ((*SHOCKS, "--prices", "no.csv"), "'no.csv'"),
    "limits": ((*SHOCKS, "--limits", "no.yaml"), "'no.yaml'"),
    "factor series": ((*SHOCKS, "--factor", "NOPE"), "'NOPE'"),
    "format": ((*SHOCKS, "--format", "pdf"), "csv, parquet, xlsx"),
    "tails": ((*SHOCKS, "--tails", "heavy"), "heavy"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_exits_with_2_and_the_mend(cli: Cli, tmp_path: Path, name: str) -> None:
    arguments, names = BAD[name]
    out = tmp_path / "out"
    said = cli("stress", *arguments, "--out", out, "--json")
    assert said.code == 2
    error = said.json["error"]
    assert names in error["message"] + error["fix"]
    assert error["fix"]
    assert not out.exists()


def test_a_replay_past_as_of_is_a_look_ahead(cli: Cli) -> None:
    said = cli("stress", "--replay", "pandemic-2020", "--as-of", "2020-03-02", "--json")
    assert (said.code, said.json["error"]["kind"]) == (2, "look_ahead")


def test_out_that_is_a_file_is_refused_first(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    said = cli("stress", *SHOCKS, "--out", tmp_path / "taken", "--json")
    assert said.code == 2
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own_loads_no_model_and_nothing_that_it_does_not_use(home: Path) -> None:
    heavy = {"torch", "llama_cpp", "langgraph", "chromadb", "sentence_transformers", "transformers", "statsmodels",
             "arch", "skfolio", "sklearn", "scipy", "asyncio", "sqlite3"}  # fmt: skip
    code = (
        "import sys; from finllm.cli.main import main; code = main(sys.argv[1:]); "
        f"print(code, sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    child = subprocess.run([sys.executable, "-c", code, "stress", *SHOCKS, "--json"], capture_output=True, text=True,
                           timeout=120, check=False, env=os.environ | {"FINLLM_HOME": str(home)})  # fmt: skip
    assert child.stderr.strip() == "0 []"
    assert json.loads(child.stdout)["total"] < 0
    assert not home.exists()


def test_the_text_names_the_age_of_a_stale_factor(cli: Cli) -> None:
    said = " ".join(cli("stress", "--shock", "OIL_WTI=-10%", "--as-of", "2022-06-30").out.split())
    assert "OIL_WTI: σ: 20-day moves of WTI" in said
    assert "1274 days old" in said


def test_the_nearest_past_event_says_that_it_is_so_by_its_moves(cli: Cli) -> None:
    said = " ".join(cli("stress", "--shock", "EQUITY_US=-20%").out.split("Closest past event")[1].split())
    assert "the nearest by its moves (" in said
    assert "σ away over EQUITY_US" in said


def test_a_gain_of_a_net_short_book_is_a_positive_share_on_screen_and_in_its_files(cli: Cli, tmp_path: Path) -> None:
    book, out = tmp_path / "book.csv", tmp_path / "out"
    rows = "A,1000000,USD,equity,Tech,1\nB,-3000000,USD,equity,Banks,1\n"
    book.write_text(f"id,market_value,currency,asset_class,sector,beta\n{rows}", encoding="utf-8")
    asked = ("stress", "--portfolio", book, "--as-of", "2022-06-30", "--shock", "EQUITY_US=-10%", "--out", out)
    shown = cli(*asked)
    assert "P&L +200,000 USD (+5.00% of the book's gross value)" in shown.out
    page = (out / "report.html").read_text("utf-8")
    assert "+5.00% of the book&#39;s gross value" in page
    found = json.loads((out / "result.json").read_text("utf-8"))
    assert (found["book_value"], found["gross_value"], found["total"]) == (-2e6, 4e6, 2e5)


def test_what_adds_to_the_var_and_what_a_trade_would_change_are_told(cli: Cli, tmp_path: Path) -> None:
    asked = ("stress", "--shock", "EQUITY_US=-10%", "--hold", "--trade", "AAPL=-8100")
    shown = cli(*asked, "--json", "--out", tmp_path / "out")
    parts, (trade,) = shown.json["components"], shown.json["trades"]
    assert sum(parts["var_by_position"].values()) == pytest.approx(shown.json["var_975_1d"]["loss"])
    assert sum(parts["es_by_factor"].values()) == pytest.approx(shown.json["es_975_1d"]["loss"])
    assert trade["total"] == pytest.approx(-shown.json["by_position"]["AAPL"], abs=0.02)
    assert trade["var_975_1d"] < 0
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "VaR and ES by position" in page
    assert "What trades would change" in page
    assert "What trades would change" in cli(*asked).out
    assert cli("stress", "--shock", "EQUITY_US=-10%", "--trade", "AAPL").code == 2


def test_a_path_is_told_step_by_step_and_the_rest_is_of_its_worst(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "path.csv"
    path.write_text("step,days,EQUITY_US\nfirst,20,-10%\nsecond,20,-15%\nthird,20,+10%\n")
    shown = cli("stress", "--path", path, "--json", "--out", tmp_path / "out")
    rows = shown.json["path"]["rows"]
    assert shown.json["path"]["worst"] == 1
    assert shown.json["total"] == rows[1]["total"] == min(row["total"] for row in rows)
    assert sum(row["step"] for row in rows) == pytest.approx(rows[-1]["total"])
    assert "P&amp;L along the path" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "worst" in cli("stress", "--path", path).out
    assert cli("stress", "--path", path, "--shock", "EQUITY_US=-1%").code == 2
    assert cli("stress", "--path", "ceasefire").code == 2


def test_factors_are_known_in_any_case_and_limits_that_are_not_there_are_told_as_limits(
    cli: Cli, tmp_path: Path
) -> None:
    shown = cli("stress", "--as-of", "2022-06-30", "--horizon", "1", "--shock", "equity_us=-10%", "--hold", "--json")
    assert [row["factor"] for row in shown.json["shocks"]] == ["EQUITY_US"]
    twice = cli("stress", "--as-of", "2022-06-30", "--shock", "equity_us=-10%", "--shock", "EQUITY_US=-5%")
    assert "'EQUITY_US' is shocked twice" in twice.err
    missing = cli("stress", "--limits", tmp_path / "nope.yaml", "--shock", "VIX=+10points")
    assert "name a YAML file of limits" in missing.err
    sector = cli("stress", "--as-of", "2022-06-30", "--shock", "SECTOR_FOO=-10%")
    assert "use one of SECTOR_" in sector.err


def test_the_path_of_a_scenario_is_walked_as_of_its_day_unless_another_is_asked_for(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "path.yaml"
    file.write_text(
        "title: Two steps\nnarrative: Shares fall.\nhorizon: 20\nas_of: 2021-03-31\npath:\n  steps:\n"
        "    - {days: 10, shocks: [{factor: EQUITY_US, move: -10%}]}\n"
        "    - {days: 10, shocks: [{factor: EQUITY_US, move: -5%}]}\n"
    )
    told = cli("stress", "--path", file, "--json").json
    assert told["as_of"] == "2021-03-31"
    assert told["total"] == cli("stress", "--path", file, "--as-of", "2021-03-31", "--json").json["total"]
    assert cli("stress", "--path", file, "--as-of", "2022-06-30", "--json").json["as_of"] == "2022-06-30"
    file.write_text(file.read_text() + "propagate: false\nage: true\ncurrency: EUR\nfactors: [XOM]\n")
    own = cli("stress", "--path", file, "--json").json
    assert (own["currency"], own["aged"]) == ("EUR", "2021-04-28")
    assert [row["factor"] for row in own["shocks"]] == ["EQUITY_US"]  # nothing is completed
    other = cli("stress", "--path", file, "--currency", "USD", "--no-age", "--propagate", "--json").json
    assert (other["currency"], other["aged"]) == ("USD", None)
    assert "XOM" in {row["factor"] for row in other["shocks"]}
    table = tmp_path / "path.csv"
    table.write_text("step,days,EQUITY_US\nfirst,10,-10%\n")
    assert cli("stress", "--path", table, "--json").json["as_of"] == "2022-12-28"
