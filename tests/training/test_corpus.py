"""The corpus keeps what its codebook promises: its size, its balance, splits that share nothing, words of its own."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from finllm.agents.compliance import RuleCall
from finllm.agents.narrative import FactorCall
from finllm.agents.sanity_checker import SourceCheck
from finllm.agents.validator import Validation
from finllm.tools.data.factors import FACTOR_IDS
from training.corpus.build import Corpus, clean_texts, counts, labels_of, main, words
from training.corpus.grammar import divide
from training.corpus.schema import (
    ALLOWED,
    SPLITS,
    TASKS,
    ComplianceItem,
    Item,
    ReadingItem,
    SanityItem,
    StanceItem,
    ValidatorItem,
    dump_item,
    parse_item,
    read_handwritten,
    texts_of,
)

ROOT = Path(__file__).resolve().parents[2]
EVALUATION = ROOT.parent / "shared" / "eval"
N = 8
"""Words in a row that nothing here may share with what it is evaluated on."""


def everything(corpus: Corpus) -> list[Item]:
    return [item for split in SPLITS for item in corpus.items[split]]


def grams(text: str) -> set[str]:
    said = re.findall(r"[a-z0-9]+", text.lower())
    return {" ".join(said[i : i + N]) for i in range(len(said) - N + 1)}


@pytest.fixture(scope="module")
def ours(corpus: Corpus) -> dict[str, str]:
    """Every run of words of the corpus, with an item that has it."""
    return {gram: item.id for item in everything(corpus) for text in texts_of(item) for gram in grams(text)}


def shared_with(ours: dict[str, str], texts: Iterable[str]) -> dict[str, str]:
    return {gram: ours[gram] for text in texts for gram in grams(text) if gram in ours}


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)


def test_enough_is_written_by_hand_and_enough_in_all(corpus: Corpus) -> None:
    handwritten = Counter(item.task for item in read_handwritten())
    assert handwritten.total() >= 1500
    floors = {"stance": 550, "reading": 440, "sanity": 240, "validator": 120, "compliance": 100, "injection": 180}
    assert {task: handwritten[task] for task in TASKS if handwritten[task] < floors[task]} == {}
    assert len({item.event for item in read_handwritten() if item.task == "reading"}) >= 120
    assert len(everything(corpus)) >= 10_000


def test_ids_are_unique_and_nothing_is_said_twice(corpus: Corpus) -> None:
    items = everything(corpus)
    assert len({item.id for item in items}) == len(items)
    stances = Counter(" ".join(words(i.inputs.text)) for i in items if isinstance(i, StanceItem | ReadingItem))
    assert [text for text, count in stances.items() if count > 1] == []


def test_labels_are_values_that_the_agents_would_accept(corpus: Corpus) -> None:
    for item in everything(corpus):
        if isinstance(item, SanityItem):
            SourceCheck.model_validate({"verdict": item.labels.verdict, "because": ()})
        elif isinstance(item, ValidatorItem):
            cause = item.labels.cause or "none"
            Validation.model_validate({"verdict": item.labels.verdict, "cause": cause, "because": ()})
        elif isinstance(item, ComplianceItem):
            for verdict in item.labels.rules.values():
                RuleCall.model_validate({"verdict": verdict})
        elif isinstance(item, ReadingItem):
            for factor, size in item.labels.sizes.items():
                FactorCall.model_validate({"direction": item.labels.factors[factor], "size": size})


def test_every_value_that_agents_may_choose_occurs_in_training_and_in_test(corpus: Corpus) -> None:
    for split in ("train", "test"):
        said = {label for item in corpus.items[split] for label in labels_of(item)}
        assert set(ALLOWED["stance"]) <= said
        assert set(ALLOWED["source"]) <= said
        for kind in ("event", "region", "severity", "horizon"):
            assert {f"{kind}={value}" for value in ALLOWED[kind]} - said <= (
                {"severity=extreme"} if split == "test" else set()
            )
        assert {f"{factor}={way}" for factor in FACTOR_IDS for way in ("up", "down", "none")} <= said
        assert {f"diverged/{cause}" for cause in ALLOWED["cause"] if cause != "none"} <= said
        assert {"aligned/none", "unresolved/-"} <= said


def test_no_class_is_rare_in_training(corpus: Corpus) -> None:
    def share(task: str, label: str) -> float:
        items = [item for item in corpus.items["train"] if item.task == task]
        return sum(label in labels_of(item) for item in items) / len(items)

    assert all(share("stance", label) > 0.25 for label in ALLOWED["stance"])
    assert all(share("sanity", label) > 0.12 for label in ALLOWED["source"])
    assert all(0.4 < share("injection", label) < 0.6 for label in ("injected", "clean"))
    assert share("validator", "aligned/none") > 0.2
    assert share("validator", "unresolved/-") > 0.1
    ways = Counter(label for item in corpus.items["train"] for label in labels_of(item))
    for factor in FACTOR_IDS:
        up, down, none = (ways[f"{factor}={way}"] for way in ("up", "down", "none"))
        assert min(up, down, none) > 0.1 * (up + down + none), factor


def test_no_event_and_no_frame_is_in_two_splits(corpus: Corpus) -> None:
    events, frames = defaultdict(set), defaultdict(set)
    for split in SPLITS:
        for item in corpus.items[split]:
            events[item.event].add(split)
            for part in (item.frame or "").split("+"):
                frames[part.rsplit("-", 1)[-1]].add(split)
    del frames[""]
    assert [event for event, splits in events.items() if len(splits) > 1] == []
    assert [frame for frame, splits in frames.items() if len(splits) > 1] == []


def test_no_sentence_of_the_test_split_was_trained_on(corpus: Corpus) -> None:
    def sentences(items: Iterable[Item]) -> set[str]:
        cut = (re.split(r"(?<=[.!?])\s+", text) for item in items for text in texts_of(item))
        return {" ".join(words(one)) for many in cut for one in many if len(words(one)) >= 7}

    assert sentences(corpus.items["train"]) & sentences(corpus.items["test"]) == set()


def test_minimal_pairs_have_the_other_label() -> None:
    pairs = defaultdict(set)
    for item in read_handwritten():
        if item.slice == "pair" and isinstance(item, StanceItem):
            pairs[item.event].add(item.labels.stance)
    assert len(pairs) >= 30
    assert [event for event, labels in pairs.items() if len(labels) == 1] == []


def test_there_are_a_thousand_clean_texts_to_count_false_alarms_on(corpus: Corpus) -> None:
    assert len(clean_texts(corpus.items["test"])) >= 1000


def test_nothing_is_shared_with_the_shipped_scenarios_or_the_tests_of_the_guard(ours: dict[str, str]) -> None:
    texts = [
        text
        for path in (ROOT / "scenarios").glob("*.yaml")
        for text in strings(yaml.safe_load(path.read_text(encoding="utf-8")))
    ]
    texts += (ROOT / "tests/guardrails/test_sanitise.py").read_text(encoding="utf-8").splitlines()
    assert len(texts) > 100
    assert shared_with(ours, texts) == {}


@pytest.mark.skipif(not EVALUATION.is_dir(), reason=f"the evaluation sets are not beside the repository: {EVALUATION}")
def test_nothing_is_shared_with_the_evaluation_sets(ours: dict[str, str]) -> None:
    texts: list[str] = []
    for path in sorted(EVALUATION.rglob("*")):
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as lines:
                texts += [cell for row in csv.reader(lines) for cell in row]
        elif path.suffix == ".json":
            texts += strings(json.loads(path.read_text(encoding="utf-8")))
    assert len(texts) > 2000
    assert shared_with(ours, texts) == {}


def test_the_same_bytes_come_out_in_another_process(corpus: Corpus, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "training.corpus.build", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=60)
    written = json.loads((tmp_path / "counts.json").read_text(encoding="utf-8"))
    assert written["digest"] == corpus.digest()
    assert written == counts(corpus)
    assert len((tmp_path / "test.jsonl").read_text(encoding="utf-8").splitlines()) == len(corpus.items["test"])


def test_an_item_with_a_label_that_no_agent_knows_is_refused() -> None:
    data = dump_item(next(item for item in read_handwritten() if item.task == "stance"))
    assert parse_item(data)
    with pytest.raises(ValidationError, match="'bullish' is no stance"):
        parse_item(data | {"labels": {"stance": "bullish"}})
    with pytest.raises(ValidationError, match="Extra inputs"):
        parse_item(data | {"source": "somewhere"})


def test_a_size_without_a_direction_is_refused() -> None:
    data = dump_item(next(item for item in read_handwritten() if item.task == "reading"))
    with pytest.raises(ValidationError, match="has a size and no direction"):
        parse_item(data | {"labels": {"factors": {"GOLD": "none"}, "sizes": {"GOLD": "small"}}})


@settings(max_examples=40)
@given(st.lists(st.text("abcdef", min_size=1, max_size=6), unique=True, min_size=3), st.sampled_from((0.1, 0.15, 0.2)))
def test_splits_depend_on_the_names_alone_and_none_is_empty(names: list[str], share: float) -> None:
    split = divide(names, share)
    assert split == divide(reversed(names), share)
    assert set(split) == set(names)
    assert set(split.values()) == set(SPLITS)


def test_the_command_names_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "--out" in capsys.readouterr().err
