"""Labelled files: both forms are read; whatever is wrong is refused with the file, the line and the mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.evaluation.labelled import LONGEST_TEXT, read_directions, read_labelled

LABELS = ("hawkish", "dovish", "neutral")


def written(tmp_path: Path, name: str, text: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    as_csv = written(
        tmp_path, "a.csv", 'Year,text,label\n1996,"Rates, again, rise",Hawkish\n\n1997,"two\nlines",neutral\n'
    )
    rows = [(row.line, row.text, row.right["label"]) for row in read_labelled(as_csv, LABELS)]
    assert rows == [(2, "Rates, again, rise", "hawkish"), (5, "two\nlines", "neutral")]
    lines = [{"text": "Rates, again, rise", "label": "hawkish"}, {"text": "two\nlines", "label": "NEUTRAL", "id": 3}]
    as_json = written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n")
    assert [(row.text, row.right) for row in read_labelled(as_json, LABELS)] == [
        (text, {"label": label}) for _, text, label in rows
    ]


def test_directions_hold_only_the_factors_named(tmp_path: Path) -> None:
    path = written(tmp_path, "d.jsonl", '{"text": "Oil leaps", "signs": {"OIL_WTI": "+", "VIX": "0"}}\n')
    (row,) = read_directions(path)
    assert row.right == {"OIL_WTI": "+", "VIX": "0"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "", "no rows"),
        ("a.csv", "text,label\n", "no rows"),
        ("a.csv", "sentence,label\nx,hawkish\n", "line 1: the columns are sentence, label"),
        ("a.csv", "text,label\nfine,hawkish\nodd,bullish\n", "line 3: unknown label 'bullish'"),
        ("a.csv", "text,label\nfine,hawkish\n ,hawkish\n", "line 3: no 'text'"),
        ("a.csv", "text,label\na,b,hawkish\n", "line 2: 3 cells under 2 columns"),
        ("a.csv", 'text,label\n"open,hawkish\n', "unexpected end of data"),
        ("a.csv", b"text,label\n\xff\xfe,hawkish\n", "not UTF-8"),
        ("a.csv", f"text,label\n{'x' * (LONGEST_TEXT + 1)},hawkish\n", "line 2: the text has 20001 characters"),
        ("a.jsonl", '{"text": "x", "label": "hawkish"}\n{"text": \n', "line 2: no JSON"),
        ("a.jsonl", "[1]\n", "line 1: no JSON object"),
        ("a.jsonl", '{"text": "x"}\n', "line 1: no 'label'"),
        ("a.jsonl", "x" * (5 * LONGEST_TEXT), "line 1: the line has 80000 characters or more"),
        ("a.jsonl", "[" * 70000, "line 1: no JSON"),
        ("a.jsonl", '{"text": "\\ud800", "label": "hawkish"}', "line 1: the text holds half a character"),
        ("a.txt", "text,label\n", "neither CSV nor JSON lines"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(")) as caught:
        list(read_labelled(written(tmp_path, name, content), LABELS))
    assert name in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "x", "signs": {}}', "no 'signs'"),
        ('{"text": "x", "signs": ["+"]}', "no 'signs'"),
        ('{"text": "x", "signs": {"SILVER": "+"}}', "unknown factor 'SILVER'"),
        ('{"text": "x", "signs": {"GOLD": "up"}}', "unknown sign 'up' of GOLD"),
        ('{"text": "x", "signs": {"GOLD": ["+"]}}', "unknown sign"),
        ('{"text": "x", "label": "hawkish"}', "no 'signs'"),
    ],
)
def test_a_wrong_sign_is_named_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    good = '{"text": "x", "signs": {"GOLD": "-"}}\n'
    with pytest.raises(InputError, match=f"line 2: {said}"):
        list(read_directions(written(tmp_path, "d.jsonl", good + line + "\n")))


def test_directions_as_csv_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no signs"):
        list(read_directions(written(tmp_path, "d.csv", "text,label\nx,+\n")))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none\.csv"):
        list(read_labelled(tmp_path / "none.csv", LABELS))


@given(st.integers(0, 30), st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=8))
def test_a_bad_label_in_any_row_is_found(tmp_path_factory: pytest.TempPathFactory, at: int, label: str) -> None:
    if label.strip().lower() in LABELS:
        return
    rows = [{"text": f"text {row}", "label": label if row == at else "dovish"} for row in range(31)]
    path = written(tmp_path_factory.mktemp("rows"), "a.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match=f"line {at + 1}: unknown label"):
        list(read_labelled(path, LABELS))
