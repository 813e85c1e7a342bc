"""`finllm eval`: figures on stdout, talk on stderr, bad files refused with 2 and their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Cli

ROWS = "text,label\nRates will have to rise,hawkish\nThere is room to cut,dovish\nThe hall was painted,neutral\n"


READINGS = (
    "text,label\nReading: equities fall | Market: equities fell 4%,aligned\n"
    "Reading: equities rise | Market: equities fell 4%,diverged\n"
)


def steps(err: str, what: str) -> list[tuple[int, int]]:
    """The progress of one thing that the lines on stderr tell, as (done, of how many)."""
    told = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    return [(one["done"], one["total"]) for one in told if one["kind"] == "progress" and one["what"] == what]


def written(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_labelled_file_is_scored_by_the_real_model(cli: Cli, tmp_path: Path) -> None:
    path = written(tmp_path, ROWS)
    said = cli("eval", "--task", "stance", "--data", path, "--json")
    assert said.code == 0, said.out
    assert said.json["n"] == 3
    assert {"accuracy", "macro_f1", "weighted_f1"} <= set(said.json)
    assert steps(said.err, "reading the texts") == [(3, 3)]
    assert "asking" not in said.err  # the channel reader alone decides a stance
    judged = cli("eval", "--task", "validity", "--data", written(tmp_path, READINGS), "--json")
    assert judged.code == 0, judged.out
    assert steps(judged.err, "asking calibration:SmolLM2-135M-Instruct:Q4_0")[-1] == (2, 2)
    written(tmp_path, ROWS)
    plain = cli("eval", "--task", "stance", "--data", path, "--quiet")
    assert plain.out.splitlines()[:3] == ["task stance", "n 3", f"accuracy {said.json['accuracy']:.4f}"]
    assert plain.err == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ROWS + "Odd,bullish\n", "line 5: unknown label 'bullish'"),
        ("", "no rows"),
        ("sentence,label\nx,hawkish\n", "line 1: the columns are sentence, label"),
    ],
)
def test_a_bad_file_is_the_users_to_mend(cli: Cli, tmp_path: Path, content: str, said: str) -> None:
    found = cli("eval", "--task", "stance", "--data", written(tmp_path, content), "--json")
    assert found.code == 2
    assert said in found.json["error"]["message"]


def test_options_that_do_not_fit_are_refused(cli: Cli, tmp_path: Path) -> None:
    path = written(tmp_path, ROWS)
    for arguments in (
        ("--task", "stance"),
        ("--data", path),
        ("--task", "mood", "--data", path),
        ("--with-second-opinion",),
        ("--task", "stance", "--data", tmp_path / "none.csv"),
        ("a.gguf", "--model", "b.gguf"),
        ("none.gguf",),
        ("--rung", "Q1_X"),
    ):
        assert cli("eval", *arguments).code == 2, arguments
