"""Charts that were drawn before are those that would be drawn again; whatever their memory is, they are drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from finllm.review import drawn
from finllm.review.charts import Chart, waterfall
from finllm.review.drawn import DrawnBefore

FIGURES = {"EQUITY_US": -12.5, "OIL_WTI": 3.0}


def charts() -> list[Chart]:
    return [waterfall(FIGURES)]


def test_a_chart_is_drawn_once_and_comes_back_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = DrawnBefore(tmp_path / "drawn")
    first = memory.pictures(FIGURES, charts)
    assert first == drawn.draw(charts())
    asked: list[int] = []
    monkeypatch.setattr(drawn, "draw", lambda them: asked.append(len(them)) or first)
    assert memory.pictures(FIGURES, charts) == first
    assert not asked
    (file,) = (tmp_path / "drawn").iterdir()
    file.write_text(file.read_text()[:-40])
    assert memory.pictures(FIGURES, charts) == first
    assert asked == [1], "what is spoilt is drawn again"
    memory.pictures({**FIGURES, "GOLD": 1.0}, charts)
    assert asked == [1, 1], "other figures are other charts"


def test_old_charts_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = DrawnBefore(tmp_path)
    made = memory.pictures(0, charts)
    monkeypatch.setattr(drawn, "KEPT", 3)
    monkeypatch.setattr(drawn, "draw", lambda _them: made)
    for number in range(6):
        memory.pictures(number, charts)
    assert len(list(tmp_path.iterdir())) == 3
