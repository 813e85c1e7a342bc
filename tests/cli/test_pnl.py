"""`finllm pnl explain`: books, days and runs, and what is refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from finllm.graphs.report import Report
from finllm.guardrails.audit import open_recorder
from finllm.settings import Settings
from tests.cli.conftest import Cli
from tests.desks import request_for

DAYS = ("--from", "2022-05-31", "--to", "2022-06-30")


def test_a_book_between_two_days_and_its_files(cli: Cli, tmp_path: Path) -> None:
    book = tmp_path / "book.csv"
    book.write_text("id,quantity,currency,asset_class\nAAPL,100,USD,equity\nKO,50,USD,equity\n")
    shown = cli("pnl", "explain", book, *DAYS, "--json", "--out", tmp_path / "out")
    assert shown.code == 0
    assert sum(one["amount"] for one in shown.json["parts"]) == pytest.approx(shown.json["difference"])
    assert json.loads((tmp_path / "out" / "pnl.json").read_text("utf-8")) == shown.json
    assert (tmp_path / "out" / "parts.csv").read_text("utf-8").startswith("kind,name,amount")
    assert "EQUITY_US" in cli("pnl", "explain", book, *DAYS).out


def test_two_runs_on_record_and_what_is_no_pair(cli: Cli, report: Report, home: Path, tmp_path: Path) -> None:
    shocks = tuple(one for one in report.shocks if one.factor == "OIL_WTI")
    with contextlib.closing(open_recorder(Settings(home=home))) as ledger:
        for at, (id, total) in enumerate((("run-old", -1000.0), ("run-new", -3000.0))):
            figure = report.total.model_copy(update={"value": total})
            made = report.model_copy(update={"run_id": id, "total": figure, "shocks": shocks[at:]})
            ledger.start_run(id, request_for("hormuz-blockade").model_dump(mode="json"))
            ledger.end_run(id, "finished", made.model_dump(mode="json"))
    told = cli("pnl", "explain", "run-old", "run-new", "--json").json
    assert told["difference"] == -2000.0
    assert {one["kind"] for one in told["parts"]} == {"shock", "residual"}
    assert sum(one["amount"] for one in told["parts"]) == pytest.approx(-2000.0)
    (tmp_path / "b.csv").write_text("id,quantity,currency,asset_class\nAAPL,100,USD,equity\n")
    assert cli("pnl", "explain", tmp_path / "b.csv", "run-old").code == 2
    assert cli("pnl", "explain", tmp_path / "b.csv").code == 2
    assert cli("pnl", "explain", "run-old", "nobody").code == 2


def test_what_has_no_value_on_a_day_is_named_and_the_coverage_told(cli: Cli, tmp_path: Path) -> None:
    book = tmp_path / "book.csv"
    rows = "AAPL,100,,USD,equity,\nNOSUCH,50,,USD,equity,\nBOND,,1750000,USD,bond,5\n"
    book.write_text(f"id,quantity,market_value,currency,asset_class,duration\n{rows}")
    asked = ("pnl", "explain", book, "--from", "2022-12-20", "--to", "2026-06-30")
    told = cli(*asked, "--json").json
    assert [one["left_out"] for one in told["coverage"]] == [1, 2]
    assert [one["id"] for one in told["exclusions_after"]] == ["AAPL", "NOSUCH"]
    (gone,) = [one["amount"] for one in told["parts"] if one["kind"] == "one day"]
    assert gone == told["by_position"]["AAPL"] == told["difference"] < 0  # its price has gone: no trade, and no loss
    out = " ".join(cli(*asked).out.split())
    assert "2026-06-30: Positions of unknown value: 2 (AAPL, NOSUCH)" in out
    assert "left out on both days: NOSUCH" in out
    assert "left out on 2026-06-30: AAPL: its last price, of 2022-12-28," in out
    book.write_text("id,quantity,currency,asset_class\nAAPL,100,USD,equity\n")
    assert "100 % of the book is covered, on both days" in cli("pnl", "explain", book, *DAYS).out
