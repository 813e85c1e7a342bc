"""`finllm backtest`: the table that a risk committee asks for first."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path

from .conftest import Cli


def test_json_has_eight_windows_with_bias_mae_and_rank(cli: Cli) -> None:
    said = cli("backtest", "--json")
    assert said.code == 0
    found = said.json
    assert [one["window"]["start"] for one in found["windows"]] == [
        "1998-07-17", "2008-09-12", "2011-07-22", "2013-05-21", "2015-08-17", "2018-01-26", "2020-02-19", "2022-01-03",
    ]  # fmt: skip
    assert found["signs_right"] == 8
    for one in found["windows"]:
        assert {"bias", "mae", "rank", "rank_returns", "rank_naive", "predicted", "realised"} <= set(one)
        assert len(one["positions"]) == 20


def test_the_table_says_what_sizes_alone_rank(cli: Cli) -> None:
    out = " ".join(cli("backtest").out.split())
    assert "8 of 8 signs are right" in out
    assert "0.75 of P&L, where the sizes of the positions alone give 0.77; 0.16 of returns" in out
    assert "WTI_FRONT is not compared" in out


def test_a_book_of_ones_own_in_equal_weights(cli: Cli, tmp_path: Path) -> None:
    book = tmp_path / "book.csv"
    names = ("AAPL", "BAC", "JNJ", "XOM", "KO")
    book.write_text("id,market_value,currency,asset_class\n" + "".join(f"{name},1000,USD,equity\n" for name in names))
    found = cli("backtest", "--portfolio", book, "--method", "components", "--out", tmp_path / "out", "--json")
    assert found.code == 0
    assert all(one["rank"] == one["rank_returns"] for one in found.json["windows"])
    assert json.loads((tmp_path / "out" / "backtest.json").read_text()) == found.json
    with (tmp_path / "out" / "windows.csv").open() as file:
        rows = {row["window"]: Decimal(row["realised"]) for row in csv.DictReader(file)}
    assert rows == {one["window"]["id"]: Decimal(str(one["realised"])) for one in found.json["windows"]}


def test_bad_input_exits_with_2_and_the_mend(cli: Cli, tmp_path: Path) -> None:
    bonds = tmp_path / "bonds.csv"
    bonds.write_text("id,market_value,currency,asset_class,duration\nB,1000,USD,bond,5\n")
    for arguments, names in (
        (("--portfolio", bonds), "no window can be back-tested"),
        (("--portfolio", "no.csv"), "'no.csv'"),
        (("--method", "magic"), "magic"),
        (("--format", "pdf"), "'pdf'"),
    ):
        said = cli("backtest", *arguments, "--json")
        assert said.code == 2
        assert names in said.json["error"]["message"]
        assert said.json["error"]["fix"]
