"""A program that asks what the commands ask: through finllm.sessions, with no terminal library in the process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import finllm.sessions

PROGRAM = """
import json, sys
from finllm.sessions import ReverseQuestion, StressQuestion, answer_reverse, answer_stress, find_limits, read_inputs

inputs = read_inputs()
stressed = answer_stress(inputs, StressQuestion(shocks=("OIL_WTI=+40%", "EQUITY_US=-20%")), find_limits(None, None))
lost = answer_reverse(inputs, ReverseQuestion(loss="10%", answers=1))
print(json.dumps({
    "total": stressed.to_json()["total"], "breached": [one.subject for one in stressed.breaches],
    "distance": lost.result.answers[0].distance, "page": stressed.page()[:15],
    "terminal": [name for name in ("typer", "rich", "click", "finllm.cli") if name in sys.modules],
}))
"""


def test_a_program_asks_what_the_commands_ask_and_gets_the_same_answer() -> None:
    program = _python("-c", PROGRAM)
    assert program["terminal"] == []
    assert program["page"] == "<!doctype html>"
    shocks = ("--shock", "OIL_WTI=+40%", "--shock", "EQUITY_US=-20%")
    stress = _python("-m", "finllm.cli.main", "stress", *shocks, "--json")
    assert program["total"] == stress["total"]
    assert program["breached"] == [one["subject"] for one in stress["breaches"]]
    reverse = _python("-m", "finllm.cli.main", "reverse", "--loss", "10%", "--answers", "1", "--json")
    assert program["distance"] == reverse["answers"][0]["distance"]


def test_every_name_that_the_sessions_offer_is_there() -> None:
    for name in finllm.sessions.__all__:
        assert callable(getattr(finllm.sessions, name)), name


def _python(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
