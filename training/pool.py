"""Fits the weight of the second opinion beside the language model, one per field, on the validation split.

`python -m training.pool` asks the default model (with its adapter) about the validation items and writes the weights
into the second opinion's card. Weight 0 means that it is not heard. About a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finllm.agents.asking import Question as Asked
from finllm.agents.asking import ask_all
from finllm.models.cards import adapter_for
from finllm.models.embedding import Embedder
from finllm.models.ladder import ensure_rung
from finllm.models.registry import default_source
from finllm.models.second_opinion import HEADS, SecondOpinion, log_pool
from finllm.scheduler.decoding.filling import Choices
from finllm.settings import Settings, load_settings
from training.corpus.build import build_corpus
from training.corpus.schema import ReadingItem, StanceItem
from training.items import Question, question
from training.kept import open_kept
from training.second_examples import Plan
from training.second_opinion import write_card

GRID = tuple(step / 20 for step in range(21))


@dataclass(frozen=True)
class Pair:
    """Both models' probabilities of one field, the right value, and how much the item counts."""

    model: Mapping[str, float]
    other: Mapping[str, float]
    right: str
    weight: float


Pairs = dict[str, list[Pair]]


def fit_weight(pairs: Sequence[Pair]) -> float:
    """The weight that makes the labels most likely; of equals the smallest. 0 without pairs."""
    if not pairs:
        return 0.0

    def loss(weight: float) -> float:
        return -sum(
            pair.weight * math.log(max(log_pool(pair.model, pair.other, weight)[pair.right], 1e-9)) for pair in pairs
        )

    return min(GRID, key=loss)


def answers(questions: Sequence[Question], settings: Settings, precision: str, folder: Path | None) -> list[Choices]:
    """What the default model says to each question, calibrated; empty where it failed. `folder` keeps its answers.

    Errors: InputError for a model, adapter or precision that cannot be used; BackendError.
    """
    source = default_source(settings)
    adapter, card = adapter_for(source, settings, precision)
    rung = ensure_rung(source, precision, settings, adapter=adapter)
    asked = [Asked(q.agent, q.inputs, tuple(q.labels), {"because": q.offered}) for q in questions]
    with open_kept(source, rung, settings, folder) as backend:
        found = asyncio.run(ask_all(backend, asked, _progress(len(asked)), card=card))
    return [{} if one.failure is not None else one.choices for one in found]


def read_pairs(items: Sequence[StanceItem | ReadingItem], told: Sequence[Choices], second: SecondOpinion) -> Pairs:
    """By field what both say of the items that were written for it."""
    pairs: Pairs = {}
    opinions = second.judge([item.inputs.text for item in items])
    for item, said, opinion in zip(items, told, opinions, strict=True):
        weight = Plan.by_hand if item.author == "finllm" else 1.0
        for field, right in question(item).labels.items():
            if field in said and field in opinion and (field != "stance" or isinstance(item, StanceItem)):
                pairs.setdefault(field, []).append(Pair(said[field], opinion[field], right[0], weight))
    return pairs


def _progress(total: int) -> Callable[[int], None]:
    def done(count: int) -> None:
        if count % 100 == 0:
            sys.stderr.write(f"{count} of {total} asked\n")

    return done


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.pool", description=__doc__)
    parser.add_argument("--rung", help="precision to ask  [default: the edge's]")
    parser.add_argument("--heads", type=Path, default=HEADS)
    parser.add_argument("--keep", type=Path, help="a folder for the model's answers, so that they are asked for once")
    arguments = parser.parse_args(argv)
    settings = load_settings().settings
    precision = arguments.rung or settings.edge_precision
    validation = build_corpus().items["validation"]
    items = [item for item in validation if isinstance(item, StanceItem | ReadingItem)]
    second = SecondOpinion(Embedder(), arguments.heads)
    pairs = read_pairs(items, answers([*map(question, items)], settings, precision, arguments.keep), second)
    pool = {name: fit_weight(found) for name, found in pairs.items()}
    write_card(arguments.heads, second.card.model_copy(update={"pool": pool}))
    for name, weight in pool.items():
        sys.stdout.write(f"{name} {weight:.2f} (n {len(pairs[name])})\n")


if __name__ == "__main__":
    main()
