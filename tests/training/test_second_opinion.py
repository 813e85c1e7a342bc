"""Fitting the second opinion: partial labels, temperatures, pool weights; and a small fit from end to end, resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finllm.models.embedding import Embedder
from finllm.models.second_opinion import NAME, SecondOpinion
from training.corpus.build import Corpus
from training.corpus.schema import SPLITS, InjectionItem, Item, ReadingItem, Split, StanceItem
from training.pool import Pair, fit_weight
from training.second_examples import FIELDS, Plan, example_of, examples_of
from training.second_opinion import fit, temperature

SMALL = Plan(frozen=5, rank=2, epochs=2, drawn=4)


@pytest.fixture(scope="module")
def small(corpus: Corpus) -> Corpus:
    kinds = (StanceItem, ReadingItem, InjectionItem)
    drawn: dict[Split, list[Item]] = {
        split: [item for kind in kinds for item in corpus.items[split] if isinstance(item, kind)] for split in SPLITS
    }
    return Corpus({split: items[:: len(items) // 40] for split, items in drawn.items()}, 0)


def test_an_item_teaches_only_what_it_is_labelled_with(corpus: Corpus) -> None:
    plan = Plan()
    for item in corpus.items["train"]:
        told = example_of(item, plan)
        if isinstance(item, StanceItem):
            assert told is not None
            assert set(told.labels) == {"stance", "injection"}
            assert told.labels["stance"][1] == (plan.by_hand if item.author == "finllm" else 1.0)
        elif isinstance(item, ReadingItem):
            assert told is not None
            named = {name for name in told.labels if name.startswith("factors.")}
            assert named == {f"factors.{factor}.direction" for factor in item.labels.factors}
        elif not isinstance(item, InjectionItem):
            assert told is None


def test_a_temperature_calms_the_sure_and_wrong() -> None:
    logits = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
    assert temperature(logits, np.array([0, 0, 0, 1])) > 2
    assert temperature(logits / 8, np.array([0, 0, 0, 1])) < 1
    assert temperature(logits, np.array([], dtype=np.int64)) == 1.0


def test_the_pool_listens_to_the_one_that_is_right() -> None:
    right, wrong = {"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.8}
    assert fit_weight([Pair(right, wrong, "a", 1.0)]) == 0.0
    assert fit_weight([Pair(wrong, right, "a", 1.0)]) == 1.0
    both = [Pair(right, wrong, "a", 1.0), Pair(wrong, right, "a", 1.0), Pair({"a": 0.4, "b": 0.6}, right, "a", 1.0)]
    assert 0.0 < fit_weight(both) <= 1.0
    assert fit_weight([]) == 0.0


def test_a_fit_goes_on_where_it_was_stopped_and_says_what_it_is(
    small: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import training.second_opinion as module

    whole = fit(small, SMALL, tmp_path / "whole")
    kept: list[Any] = []
    saved = module.torch.save

    def stop(state: Any, path: Path) -> None:
        saved(state, path)
        kept.append(state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.torch, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(small, SMALL, tmp_path / "parts")
    resumed = fit(small, SMALL, tmp_path / "parts")
    assert len(kept) == 1
    assert resumed.sha256 == whole.sha256
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [f"{NAME}.json", f"{NAME}.safetensors"]
    second = SecondOpinion(Embedder(), tmp_path / "parts")
    assert second.card.corpus_sha256 == small.digest()
    assert list(second.judge(["Rates rose."])[0]) == list(FIELDS)
    assert len(examples_of(small.items["test"], SMALL)) > 20
