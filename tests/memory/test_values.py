"""The file of learned values: each run once, whole after every write, shared, and never in the way of a run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finllm.errors import RecordError
from finllm.memory.values import ValueFile


def test_a_run_is_counted_once_however_often_it_is_told(tmp_path: Path) -> None:
    values = ValueFile(tmp_path / "values.json")
    assert values.count("run-1", "war", {"a": 0.4, "b": 0.0})
    assert not values.count("run-1", "war", {"a": 9.0})
    assert not ValueFile(tmp_path / "values.json").count("run-1", "war", {"a": 9.0})
    learned = ValueFile(tmp_path / "values.json").learned()
    assert (learned.agents["a"].count, learned.agents["a"].mean) == (1, 0.4)
    assert learned.kinds["b", "war"].mean == 0.0


def test_runs_side_by_side_lose_nothing(tmp_path: Path) -> None:
    values = ValueFile(tmp_path / "values.json")
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda n: values.count(f"run-{n}", "war", {"a": 0.1}), range(32)))
    assert values.learned().agents["a"].count == 32
    assert sorted(path.name for path in tmp_path.iterdir()) == [".values.json.lock", "values.json"]


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2}', '{"rows": [{"agent": "a", "kind": null, "count": 0}]}'])
def test_a_damaged_file_is_named_and_not_used(tmp_path: Path, text: str) -> None:
    path = tmp_path / "values.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=r"values\.json"):
        ValueFile(path).count("run-1", "war", {"a": 0.4})
    assert ValueFile(path).value("a", 2.0) == 2.0
    assert path.read_text() == text
