"""What is remembered is what would be made again, and a spoilt memory costs time only."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from finllm.memory.vectors import Forgetful, Vectors


class Made(BaseModel):
    model_config = ConfigDict(frozen=True)

    value: float
    words: tuple[str, ...] = ()


def test_a_thing_is_made_once_for_the_same_content_and_maker(tmp_path: Path) -> None:
    made: list[str] = []

    def make(value: float) -> Made:
        made.append(str(value))
        return Made(value=value)

    file = tmp_path / "vectors.sqlite"
    for _ in range(2):
        assert Vectors(file).model(Made, "code 1", "series", lambda: make(0.1)) == Made(value=0.1)
    assert made == ["0.1"]
    assert Vectors(file).model(Made, "code 2", "series", lambda: make(0.2)).value == 0.2
    assert Vectors(file).model(Made, "code 1", "other", lambda: make(0.3)).value == 0.3
    assert Forgetful().model(Made, "code 1", "series", lambda: make(0.4)).value == 0.4


def test_what_is_spoilt_in_the_memory_is_made_again(tmp_path: Path) -> None:
    file = tmp_path / "vectors.sqlite"
    Vectors(file).model(Made, "code", "series", lambda: Made(value=1.0))
    with sqlite3.connect(file) as db:
        db.execute("UPDATE made SET data = ?", (b'{"value": 2.0}',))
    assert Vectors(file).model(Made, "code", "series", lambda: Made(value=1.0)).value == 1.0
    file.write_bytes(b"no database")
    assert Vectors(file).model(Made, "code", "series", lambda: Made(value=1.0)).value == 1.0


@given(st.floats(allow_nan=False, allow_infinity=False), st.lists(st.text(), max_size=3))
def test_a_remembered_figure_is_the_same_to_the_last_bit(value: float, words: list[str]) -> None:
    one = Made(value=value, words=tuple(words))
    memory = Forgetful()
    assert memory.model(Made, "", "", lambda: one) == one
