"""Fit how much the second opinion counts beside the language model: one weight per field, on the validation split.

`python -m training.pool` asks the default model (with its adapter) about the validation
items and writes the weights into the second opinion's card. Weight 0 means that it is not heard.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finllm.agents.asking import Question as Asked
from finllm.agents.asking import ask_all
from finllm.graphs.calibrate import open_llama
from finllm.models.cards import adapter_for
from finllm.models.embedding import Embedder
from finllm.models.ladder import ensure_rung
from finllm.models.registry import default_source
from finllm.models.second_opinion import HEADS, SecondOpinion, log_pool
from finllm.settings import load_settings
from training.corpus.build import build_corpus
from training.corpus.schema import InjectionItem, ReadingItem, StanceItem
from training.items import question
from training.second_opinion import Plan, write_card

GRID = tuple(step / 20 for step in range(21))


@dataclass(frozen=True)
class Pair:
    """Both models' probabilities of one field, the right value, and how much the item counts."""

    model: Mapping[str, float]
    other: Mapping[str, float]
    right: str
    weight: float


def fit_weight(pairs: Sequence[Pair]) -> float:
    """The weight that makes the labels most likely; of equals the smallest. 0 without pairs."""
    if not pairs:
        return 0.0

    def loss(weight: float) -> float:
        return -sum(
            pair.weight * math.log(max(log_pool(pair.model, pair.other, weight)[pair.right], 1e-9)) for pair in pairs
        )

    return min(GRID, key=loss)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.pool", description=__doc__)
    parser.add_argument("--rung", help="precision to ask  [default: the edge's]")
    parser.add_argument("--heads", type=Path, default=HEADS)
    arguments = parser.parse_args(argv)
    settings = load_settings().settings
    items = [item for item in build_corpus().items["validation"]
             if isinstance(item, StanceItem | ReadingItem | InjectionItem)]  # fmt: skip
    questions = [question(item) for item in items]
    source = default_source(settings)
    adapter, card = adapter_for(source, settings)
    rung = ensure_rung(source, arguments.rung or settings.edge_precision, settings, adapter=adapter)
    second = SecondOpinion(Embedder(), arguments.heads)
    with contextlib.ExitStack() as closing:
        backend = closing.enter_context(open_llama(source, rung, settings))
        asked = [Asked(q.agent, q.inputs, tuple(q.labels), {"because": q.offered}) for q in questions]
        told = asyncio.run(ask_all(backend, asked, card=card))
    opinions = second.judge([item.inputs.text for item in items])
    pairs: dict[str, list[Pair]] = {}
    for item, asking, said, opinion in zip(items, questions, told, opinions, strict=True):
        weight = Plan.by_hand if item.author == "finllm" else 1.0
        if said.failure is not None:
            continue
        for field, right in asking.labels.items():
            if isinstance(item, InjectionItem):
                sure = said.choices["verdict"]["injected"]
                odds, name, label = {"injected": sure, "clean": 1 - sure}, "injection", item.labels.injection
            elif field not in opinion or (field == "stance" and not isinstance(item, StanceItem)):
                continue
            else:
                odds, name, label = said.choices[field], field, right[0]
            pairs.setdefault(name, []).append(Pair(odds, opinion[name], label, weight))
    pool = {name: fit_weight(found) for name, found in pairs.items()}
    write_card(arguments.heads, second.card.model_copy(update={"pool": pool}))
    for name, weight in pool.items():
        sys.stdout.write(f"{name} {weight:.2f} (n {len(pairs[name])})\n")


if __name__ == "__main__":
    main()
