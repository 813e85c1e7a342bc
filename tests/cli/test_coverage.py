"""Half a book at the command line: the first line says so, `--fail-on` answers for it, limits say what they saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finllm.graphs.report import Report
from finllm.tools.pnl.coverage import Coverage, Gap, Thresholds

from .acted import Flow
from .conftest import Cli

HEAD = "id,quantity,market_value,currency,asset_class,sector,beta\n"
STRESS = ("stress", "--shock", "EQUITY_US=-10%", "--as-of", "2022-06-30", "--quiet")
REVERSE = ("reverse", "--loss", "1000", "--answers", "1", "--as-of", "2022-06-30")


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A book of which 81 % have neither history nor beta."""
    book = tmp_path / "half.csv"
    book.write_text(f"{HEAD}MINE,,190000,USD,equity,Tech,1.1\nNEWCO,,500000,USD,equity,Tech,\n"
                    "OLDCO,,310000,USD,equity,Industrials,\n")  # fmt: skip
    return book


@pytest.mark.parametrize("command", [STRESS, REVERSE])
def test_the_first_line_is_the_gap_and_incomplete_exits_with_3(cli: Cli, half: Path, command: tuple[str, ...]) -> None:
    said = cli(*command, "-p", half)
    assert said.code == 0
    assert said.out.split("\n")[0] == "81 % of the book is not stressed (NEWCO, OLDCO), 19 % is covered"
    found = cli(*command, "-p", half, "--json", "--fail-on", "breach", "--fail-on", "block", "--fail-on", "incomplete")
    assert found.code == 3
    coverage = found.json["coverage"]
    assert (coverage["covered"], coverage["missing"]) == (pytest.approx(0.19), pytest.approx(0.81))
    assert [one["id"] for one in coverage["first_missing"]] == ["NEWCO", "OLDCO"]
    assert coverage["thresholds"]["least"] == 0.95
    assert cli(*command, "-p", half, "--fail-on", "block").code == 0


def test_a_whole_book_says_so_and_passes(cli: Cli) -> None:
    said = cli(*STRESS, "--fail-on", "incomplete")
    assert said.code == 0
    assert "100 % of the book is covered" in said.out.split("\n")[0]


def test_the_settings_say_what_is_enough_and_what_blocks(cli: Cli, half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINLLM_COVERAGE_LEAST", "0.15")
    assert cli(*STRESS, "-p", half, "--fail-on", "incomplete").code == 0
    monkeypatch.setenv("FINLLM_COVERAGE_LEAST", "0.5")
    monkeypatch.setenv("FINLLM_COVERAGE_BLOCK", "true")
    assert cli(*STRESS, "-p", half, "--fail-on", "block").code == 3


def test_a_limit_that_could_not_be_checked_exits_with_3_under_breach(cli: Cli, half: Path, tmp_path: Path) -> None:
    limits = tmp_path / "own.yaml"
    limits.write_text("version: 1\nloss_by_sector: {industrials: 1e9, Utilities: 1e9}\nloss_by_position: {mine: 1e9}\n")
    found = cli(*STRESS, "-p", half, "--limits", limits, "--json", "--fail-on", "breach")
    assert found.code == 3
    assert found.json["breaches"] == []
    assert {one["subject"]: one["why"] for one in found.json["unchecked"]} == {
        "industrials": "left out of it: OLDCO", "Utilities": "no sector of that name",
    }  # fmt: skip
    said = cli(*STRESS, "-p", half, "--limits", limits).out
    assert "Limits not checked" in said
    assert "no sector of that name" in said


def test_without_limits_nothing_was_checked(cli: Cli, half: Path) -> None:
    assert "Not checked: there are no limits." in cli(*STRESS, "-p", half).out


@pytest.mark.parametrize("command", [STRESS, REVERSE])
def test_a_restricted_name_blocks_here_too(cli: Cli, half: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    limits = tmp_path / "own.yaml"
    limits.write_text("version: 1\nrestricted: [newco]\n")
    found = cli(*command, "-p", half, "--limits", limits, "--json", "--fail-on", "block")
    assert found.code == 3
    assert found.json["restricted"] == ["NEWCO"]
    assert "NEWCO" in cli(*command, "-p", half, "--limits", limits).out.split("Restricted names held")[1]


def test_the_page_says_what_is_missing_and_not_checked(cli: Cli, half: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli(*STRESS, "-p", half, "--out", out).code == 0
    page = (out / "report.html").read_text()
    assert "81 % of the book is not stressed (NEWCO, OLDCO)" in page
    assert "limits: not checked" in page
    assert "of 19 % of the book" in page


@pytest.mark.parametrize(("text", "says"), [
    ("version: 1\nloss_by_factor: {EQUITY: 1}\n", "field 'loss_by_factor.EQUITY': 'EQUITY' is no factor; did you"),
    ("version: 1\nrestricted: [ON, NO, AAPL]\n", "write it in quotes: 'ON'"),
    ("version: 2\n", "2 is not a version"),
])  # fmt: skip
def test_limits_that_would_check_nothing_are_refused(cli: Cli, tmp_path: Path, text: str, says: str) -> None:
    limits = tmp_path / "own.yaml"
    limits.write_text(text)
    said = cli(*STRESS, "--limits", limits)
    assert said.code == 2
    assert says in said.err


def test_the_future_and_the_end_of_the_data_are_said_first(cli: Cli, half: Path) -> None:
    said = cli("stress", "--shock", "EQUITY_US=-10%", "--as-of", "2099-01-01", "-p", half)
    assert "which is in the future: the data end on 2022-12-28" in " ".join(said.out.split("\n")[:3])
    found = cli("stress", "--shock", "EQUITY_US=-10%", "--as-of", "2023-03-01", "--json", "--fail-on", "incomplete")
    assert found.code == 3
    assert found.json["coverage"]["day"] == "as of 2023-03-01, past the data: they end on 2022-12-28, 63 days before"
    assert found.json["coverage"]["stand_in"] > 0.5


def short(**changes: Any) -> Coverage:
    fields: dict[str, Any] = {
        "covered": 0.19, "stand_in": 0.0, "missing": 0.81, "counted": 0.19, "complete": False, "positions": 3,
        "stand_ins": 0, "left_out": 2, "unknown": 0, "first_missing": (Gap(id="NEWCO", reason="no beta", share=0.81),),
        "thresholds": Thresholds(),
    }  # fmt: skip
    return Coverage(**(fields | changes))


@pytest.mark.parametrize(("changes", "fail_on", "code"), [
    ({"coverage": short(), "breaches": ()}, ["incomplete"], 3),
    ({"coverage": short(complete=True), "breaches": ()}, ["incomplete"], 0),
    ({"coverage": short(), "breaches": ()}, ["breach", "block"], 0),
    ({"breaches": (), "unchecked": ("Tech (loss_by_sector): not checked: no sector of that name",)}, ["breach"], 3),
    ({"coverage": None, "breaches": ()}, ["incomplete"], 0),
])  # fmt: skip
@pytest.mark.parametrize("batch", [False, True])
def test_a_run_and_a_batch_answer_as_they_are_asked(
    cli: Cli, acted: Flow, report: Report, changes: dict[str, Any], fail_on: list[str], code: int, batch: bool
) -> None:
    acted.report = report.model_copy(update=changes)
    asked = [part for one in fail_on for part in ("--fail-on", one)]
    found = cli("run", "hormuz-blockade", "--quiet", *asked, *(["--jobs", "1"] if batch else []))
    assert found.code == code, found.err
    if changes.get("coverage") is not None and code:
        assert "81 % of the book is not stressed (NEWCO)" in found.out.split("\n")[0]
