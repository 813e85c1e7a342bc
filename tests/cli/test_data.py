"""`finllm data import fed`: files in, series that the engine then uses."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from finllm.tools.data.fed import _DOMESTIC, _INTERNATIONAL  # pyright: ignore[reportPrivateUsage]

from .conftest import Cli

QUARTERS = [f"{year} Q{quarter}" for year in range(1990, 2023) for quarter in (1, 2, 3, 4)]


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """The two historical tables in the Federal Reserve's form, with made-up figures."""
    folder = tmp_path / "fed"
    folder.mkdir()
    files = (("1A_Historic_Domestic", _DOMESTIC, 0), ("1B_Historic_International", _INTERNATIONAL, 5))
    for name, columns, offset in files:
        with (folder / f"2025-Table_{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["Scenario Name", "Date", *columns])
            for at, quarter in enumerate(QUARTERS):
                cells = [10 + (at * (column + 3) + offset) % 17 / 4 for column in range(len(columns))]
                table.writerow(["Actual", quarter, *cells])
    return folder


def test_imported_rates_have_a_history_from_then_on(cli: Cli, home: Path, tables: Path) -> None:
    before = cli("stress", "--shock", "RATE_US_10Y=+50bp", "--shock", "USD_BROAD=+2%", "--json").json
    said = cli("data", "import", "fed", tables, "--json")
    assert said.code == 0
    assert (said.json["variables"], said.json["quarters"]) == (28, len(QUARTERS))
    assert Path(said.json["folder"]) == home / "data" / "fed"
    after = cli("stress", "--shock", "RATE_US_10Y=+50bp", "--shock", "USD_BROAD=+2%", "--json").json
    windows = [{row["factor"]: row["window"] for row in found["shocks"]} for found in (before, after)]
    assert "FED_UST_10Y" not in windows[0]["RATE_US_10Y"]
    assert "FED_UST_10Y" in windows[1]["RATE_US_10Y"]
    assert cli("stress", "--shock", "HOUSE_PRICES=-10%", "--json").code == 0


def test_without_an_import_house_prices_are_unknown(cli: Cli) -> None:
    said = cli("stress", "--shock", "HOUSE_PRICES=-10%", "--json")
    assert (said.code, said.json["error"]["message"]) == (2, "unknown factor 'HOUSE_PRICES'")


def test_the_line_says_what_was_imported(cli: Cli, tables: Path) -> None:
    out = cli("data", "import", "fed", tables).out
    assert f"28 variables over {len(QUARTERS)} quarters, 1990-01-01 to 2022-10-01" in out
    assert "2025-Table_1A_Historic_Domestic.csv" in out


def test_bad_input_exits_with_2_and_leaves_nothing(cli: Cli, home: Path, tmp_path: Path, tables: Path) -> None:
    missing = cli("data", "import", "fed", tmp_path / "nowhere", "--json")
    assert (missing.code, "nowhere" in missing.json["error"]["message"]) == (2, True)
    (tables / "2025-Table_1B_Historic_International.csv").write_text("not,a,table\n")
    broken = cli("data", "import", "fed", tables, "--json")
    assert broken.code == 2
    assert "1B_Historic_International.csv: row 1" in broken.json["error"]["message"]
    assert not (home / "data").exists()


@pytest.mark.parametrize("group", [("data",), ("data", "import")])
def test_a_group_alone_shows_its_help(cli: Cli, group: tuple[str, ...]) -> None:
    said = cli(*group)
    assert said.code == 0
    assert "fed" in said.out or "import" in said.out
