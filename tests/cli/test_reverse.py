"""`finllm reverse`: what would lose the amount, the nearest first."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from finllm.scenarios import PORTFOLIOS_DIR
from finllm.sessions.reverse import parse_loss

from .conftest import Cli

INDEX = PORTFOLIOS_DIR / "index-only.csv"


def test_answers_lose_the_target_and_the_nearest_comes_first(cli: Cli) -> None:
    said = cli("reverse", "--loss", "10%", "--json")
    assert said.code == 0
    found = said.json
    assert found["target"] == pytest.approx(0.1 * found["book_value"], abs=0.01)
    assert found["answers"]
    for one in found["answers"]:
        assert one["loss"] == pytest.approx(found["target"], rel=1e-5)
        assert one["explanation"]
    distances = [one["distance"] for one in found["answers"]]
    assert all(near <= far for near, far in itertools.pairwise(distances))


def test_dollars_and_the_share_that_they_are_give_the_same_answer(cli: Cli) -> None:
    share = cli("reverse", "-p", INDEX, "--loss", "10%", "--answers", "1", "--json").json["answers"][0]
    usd = cli("reverse", "-p", INDEX, "--loss", "1000000", "--answers", "1", "--json").json["answers"][0]
    moves = {move["factor"]: move["move"] for move in usd["moves"]}
    assert moves["EQUITY_US"] == pytest.approx(-0.1, abs=1e-6)
    assert share["distance"] == pytest.approx(usd["distance"], abs=1e-9)


def test_a_fixed_shock_is_in_every_answer_and_bounds_hold(cli: Cli) -> None:
    found = cli("reverse", "--loss", "10%", "--shock", "OIL_WTI=-30%", "--bound", "EQUITY_US=-12%:+12%", "--json").json
    for one in found["answers"]:
        moves = {move["factor"]: move for move in one["moves"]}
        assert moves["OIL_WTI"]["move"] == pytest.approx(-0.30)
        assert moves["OIL_WTI"]["fixed"]
        assert moves["EQUITY_US"]["move"] >= -0.12 - 1e-6


def test_out_holds_the_answers(cli: Cli, tmp_path: Path) -> None:
    said = cli("reverse", "-p", INDEX, "--loss", "10%", "--out", tmp_path / "out", "--format", "csv,xlsx", "--json")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "answers.csv", "moves.csv", "reverse.xlsx", "reverse.json"}  # fmt: skip
    assert json.loads((tmp_path / "out" / "reverse.json").read_text()) == said.json


def test_the_table_explains_each_answer(cli: Cli) -> None:
    out = cli("reverse", "--loss", "10%").out
    assert "What loses 2,225,520 USD of default" in out
    assert "EQUITY_US gives" in out


@pytest.mark.parametrize(("text", "loss"), [("10%", 0.1), ("0.5 %", 0.005), ("500000", 500_000.0), ("1,000,000", 1e6),
                                            ("2_500.50", 2500.5)])  # fmt: skip
def test_a_loss_is_a_share_or_dollars(text: str, loss: float) -> None:
    assert parse_loss(text) == pytest.approx(loss)


BAD = {
    "no loss": ((), "--loss"),
    "loss unreadable": (("--loss", "a lot"), "'10%'"),
    "loss negative": (("--loss", "-10%"), "'10%'"),
    "loss of all": (("--loss", "100%"), "'100%'"),
    "loss of cents": (("--loss", "0.5"), "an amount below 1"),
    "bound unreadable": (("--loss", "10%", "--bound", "OIL_WTI=50%"), "LOW:HIGH"),
    "bound in sigmas": (("--loss", "10%", "--bound", "OIL_WTI=-3sigma:+3sigma"), "return"),
    "bound reversed": (("--loss", "10%", "--bound", "OIL_WTI=+5%:-5%"), "lower end first"),
    "bound twice": (("--loss", "10%", "--bound", "GOLD=-5%:+5%", "--bound", "GOLD=-5%:+5%"), "bounded twice"),
    "bound of unknown": (("--loss", "10%", "--bound", "SILVER=-5%:+5%"), "'SILVER'"),
    "fixed unknown": (("--loss", "10%", "--shock", "SILVER=+5%"), "'SILVER'"),
    "answers": (("--loss", "10%", "--answers", "0"), "--answers"),
    "horizon": (("--loss", "10%", "--horizon", "0"), "horizon"),
    "format": (("--loss", "10%", "--format", "docx"), "'docx'"),
    "out of reach": (
        ("--portfolio", str(INDEX), "--loss", "50%", "--bound", "EQUITY_US=-10%:+10%"),
        "widen the bounds",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_exits_with_2_and_the_mend(cli: Cli, name: str) -> None:
    arguments, names = BAD[name]
    said = cli("reverse", *arguments, "--json")
    assert said.code == 2
    error = said.json["error"]
    assert names in error["message"] + error["fix"]
    assert error["fix"]
