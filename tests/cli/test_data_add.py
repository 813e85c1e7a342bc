"""`finllm data add | list | show | check | remove`: files in, series that every command then uses."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pytest

from finllm.tools.data.market import packaged_series
from tests.tools.data.market.made import column, days, series, walk

from .conftest import Cli

BOOK = "id,quantity,currency,asset_class,sector\nAAPL,1000,USD,equity,Tech\nACME,1000,USD,equity,Tech\n"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Prices up to the end of 2023: the index and a stock that come packaged, and a stock of one's own."""
    found: dict[str, Path] = {}
    for name, file in (("SP500", "^GSPC"), ("AAPL", "AAPL")):
        old = packaged_series()[name].values.iloc[-60:]
        new = pd.Series(walk(250, seed=len(name), start=float(old.iloc[-1])), index=days(250, "2022-12-29"))
        found[name] = column(tmp_path / f"{file}.csv", pd.concat([old, new]), "Close", "Date")
    found["ACME"] = column(tmp_path / "ACME.csv", series(400, "2022-06-01", seed=9), "Price", "Date")
    (tmp_path / "book.csv").write_text(BOOK)
    return found


def test_added_prices_bring_the_book_to_today(cli: Cli, home: Path, tmp_path: Path, files: dict[str, Path]) -> None:
    stress = ("stress", "--portfolio", tmp_path / "book.csv", "--shock", "EQUITY_US=-10%", "--json")
    before = cli(*stress).json
    assert [row["id"] for row in before["exclusions"]] == ["ACME"]
    said = cli("data", "add", *files.values(), "--json")
    assert said.code == 0
    rows = {row["name"]: row for row in said.json["added"]}
    assert set(rows) == {"SP500", "AAPL", "ACME"}
    assert (rows["SP500"]["factor"], rows["SP500"]["last"]) == ("EQUITY_US", "2023-12-13")
    assert rows["AAPL"]["extends"].startswith("AAPL (pkg:pypi/skfolio@")
    assert rows["ACME"]["extends"] is None
    assert sorted(path.name for path in (home / "data" / "market").iterdir()) == [
        "AAPL.parquet", "ACME.parquet", "SP500.parquet",
    ]  # fmt: skip
    after = cli(*stress).json
    assert (after["as_of"], after["exclusions"]) == ("2023-12-13", [])
    assert "2023-12-13" in next(row for row in after["shocks"] if row["factor"] == "EQUITY_US")["window"]


def test_what_was_added_is_listed_shown_checked_and_removed(cli: Cli, files: dict[str, Path]) -> None:
    assert "nothing was added" in cli("data", "list").out
    cli("data", "add", *files.values())
    assert [row["name"] for row in cli("data", "list", "--json").json["series"]] == ["AAPL", "ACME", "SP500"]
    shown = cli("data", "show", "^GSPC", "--json").json
    assert (shown["name"], shown["file"]) == ("SP500", str(files["SP500"]))
    assert len(shown["sha256"]) == len(shown["file_sha256"]) == 64
    assert "60 days in common agree within 0.5%" in " ".join(shown["notes"])
    checked = cli("data", "check", "ACME", "--as-of", "2024-06-28", "--json").json
    assert [row["kind"] for row in checked["findings"]] == ["stale"]
    assert cli("data", "check", "ACME", "--as-of", "2023-12-13", "--json").json["findings"] == []
    assert "1 series checked, 0 with something to look at" in cli("data", "check", "ACME", "--as-of", "2023-12-13").out
    assert cli("data", "remove", "ACME", "--json").json == {"removed": ["ACME"]}
    gone = cli("data", "show", "ACME", "--json")
    assert (gone.code, gone.json["error"]["message"]) == (2, "no series 'ACME' was added")
    assert cli("data", "remove", "AAPL", "ACME").code == 2
    assert cli("data", "show", "AAPL").code == 0


def test_what_is_found_is_said_when_it_is_added_and_in_reports(cli: Cli, tmp_path: Path) -> None:
    values = series(300, "2021-05-03", seed=9)
    values.iloc[150:] /= 4
    path = column(tmp_path / "ACME.csv", values, "ACME")
    (tmp_path / "book.csv").write_text(BOOK)
    said = cli("data", "add", path).out
    assert "4:1 split on" in said
    assert "give adjusted prices or --splits" in " ".join(said.split())
    stress = ("stress", "--portfolio", tmp_path / "book.csv", "--shock", "EQUITY_US=-10%", "--as-of", "2022-06-30",
              "--json")  # fmt: skip
    assert any("4:1 split on" in note for note in cli(*stress).json["notes"])
    day = str(values.index[150])[:10]
    added = cli("data", "add", path, "--splits", f"{day}=4:1", "--json").json["added"][0]
    assert not any(row["kind"] == "split" for row in added["findings"])
    assert not any("split on" in note for note in cli(*stress).json["notes"])


def test_a_later_file_goes_on_and_a_longer_one_takes_the_place(cli: Cli, tmp_path: Path) -> None:
    whole = series(400, "2022-06-01", seed=9)
    add = ("data", "add", tmp_path / "ACME.csv", "--json")
    column(tmp_path / "ACME.csv", whole.iloc[:300], "ACME")
    cli(*add)
    column(tmp_path / "ACME.csv", whole.iloc[200:], "ACME")
    assert cli(*add).json["added"][0]["rows"] == 400
    column(tmp_path / "ACME.csv", whole * 0.9, "ACME")
    assert cli(*add).json["added"][0]["rows"] == 400
    wrong = whole.iloc[200:].copy()
    wrong.iloc[7] *= 1.3
    column(tmp_path / "ACME.csv", wrong * 0.9, "ACME")
    refused = cli(*add)
    assert refused.code == 2
    assert f"on {str(wrong.index[7])[:10]}" in refused.json["error"]["message"]


def test_a_file_without_a_new_day_changes_nothing(cli: Cli, tmp_path: Path) -> None:
    whole = series(400, "2022-06-01", seed=9)
    cli("data", "add", column(tmp_path / "ACME.csv", whole, "ACME"))
    before = cli("data", "show", "ACME", "--json").json
    again = cli("data", "add", column(tmp_path / "part.csv", whole.iloc[50:300], "ACME"), "--json")
    assert again.json["added"][0]["sha256"] == before["sha256"]


def test_all_files_are_kept_or_none(cli: Cli, home: Path, tmp_path: Path, files: dict[str, Path]) -> None:
    (tmp_path / "bad.csv").write_text("date,X\nsoon,1\n")
    assert cli("data", "add", files["ACME"], tmp_path / "bad.csv").code == 2
    wrong = column(tmp_path / "MSFT.csv", series(300, "2021-06-01"), "MSFT")
    refused = cli("data", "add", files["ACME"], wrong, "--json")
    assert refused.code == 2
    assert "'MSFT' of pkg:" in refused.json["error"]["message"]
    assert not (home / "data" / "market").exists()
    assert cli("data", "add", wrong, "--as", "MSFT=MINE", "--json").json["added"][0]["name"] == "MINE"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--splits", "2021-13-01=4:1"), "--splits '2021-13-01=4:1' cannot be read"),
        (("--splits", "2022-07-02=4:1"), "has no move on 2022-07-02"),
        (("--as", "A", "--as", "B"), "--as 'B' gives no name, or a second one"),
        (("--as", "NOPE=A"), "has no column 'NOPE'"),
        (("--zone", "Mars/Olympus"), "unknown zone 'Mars/Olympus'"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(
    cli: Cli, files: dict[str, Path], options: tuple[str, ...], says: str
) -> None:
    said = cli("data", "add", files["ACME"], *options, "--json")
    assert said.code == 2
    assert says in said.json["error"]["message"]


def test_a_name_with_yahoos_marks_is_a_name(cli: Cli, files: dict[str, Path]) -> None:
    row = cli("data", "add", files["ACME"], "--as", "NQ=F", "--json").json["added"][0]
    assert row["name"] == "NQ=F"
    assert cli("data", "show", "NQ=F").code == 0


def test_a_damaged_series_is_named_with_the_mend(cli: Cli, home: Path, files: dict[str, Path]) -> None:
    cli("data", "add", files["ACME"])
    path = home / "data" / "market" / "ACME.parquet"
    path.write_bytes(path.read_bytes()[:-200])
    said = cli("stress", "--shock", "EQUITY_US=-10%", "--json")
    assert said.code == 2
    assert "ACME.parquet: not a series that finllm keeps" in said.json["error"]["message"]


def test_thirty_years_of_days_are_added_in_two_seconds(cli: Cli, tmp_path: Path) -> None:
    path = column(tmp_path / "LONG.csv", series(7_800, "1995-01-02"), "LONG")
    cli("data", "list")
    started = time.perf_counter()
    assert cli("data", "add", path).code == 0
    assert time.perf_counter() - started < 2
