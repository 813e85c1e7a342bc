"""Fit when full depth is worth asking instead of the pruned rung, or after it; on the validation split.

`python -m training.escalation` asks both about validation items and writes into the pruned adapter's card what share of
each field full depth has right (`thresholds`) and the pruned rung (`accuracy`), and how much of the first an answer
must be short of, by length of its prompt (`worth`), so that full depth reads at most `SHARE` of the text. A question of
which the average answer is as short is not put to the pruned rung at all. About five minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finllm.agents.roles import judgement_fields
from finllm.files import write_atomically
from finllm.models.cards import adapter_for
from finllm.models.ladder import PRUNED
from finllm.models.registry import default_source
from finllm.scheduler.decoding.filling import Choices, best
from finllm.scheduler.placement.divergence import divergences, shortfall
from finllm.settings import load_settings
from training.corpus.build import build_corpus
from training.corpus.schema import InjectionItem, Item
from training.items import Question, question
from training.packing import pooled
from training.pool import answers

SHARE = 0.3
"""Of all text that is asked about, what full depth may read: the rest at half the cost then saves about a third."""
MARGIN = 0.9
"""Part of it that is used: other days differ."""
EACH = 100
"""Validation items of each task."""


@dataclass(frozen=True)
class Fitted:
    """`thresholds`, `accuracy` and `worth` as on the card."""

    thresholds: Mapping[str, float]
    accuracy: Mapping[str, float]
    worth: float


def drawn(items: Sequence[Item], each: int) -> list[Question]:
    """Up to `each` questions of every task, evenly drawn; attacks apart, which have rules of their own."""
    by_task: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if not isinstance(item, InjectionItem):
            by_task[item.task].append(item)
    return [question(item) for of in by_task.values() for item in of[:: math.ceil(len(of) / each)]]


def right(asked: Question, said: Choices) -> dict[str, bool]:
    """Whether the likeliest value of each labelled field is a right one; a field without an answer is wrong."""
    return {field: bool(said.get(field)) and best(said[field]) in wanted for field, wanted in asked.labels.items()}


def levels_of(questions: Sequence[Question], told: Sequence[Choices]) -> dict[str, float]:
    """The share right by `role.kind of field`, as if one more answer there were right and one wrong."""
    found: dict[str, list[bool]] = defaultdict(list)
    for asked, said in zip(questions, told, strict=True):
        for field, good in right(asked, said).items():
            found[_kind(f"{asked.agent.role}.{field}")].append(good)
    return {name: (sum(of) + 1) / (len(of) + 2) for name, of in found.items()}


def fit(questions: Sequence[Question], edge: Sequence[Choices], deep: Sequence[Choices]) -> Fitted:
    """What each has right, and the least shortfall, found or expected, at which full depth reads its share of text."""
    least, own = (by_field(levels_of(questions, told)) for told in (deep, edge))
    lengths = np.array([len(asked.prompt.user) for asked in questions], dtype=np.float64)
    found = ((short(q, said, least), short(q, average(q, own), least)) for q, said in zip(questions, edge, strict=True))
    behind = np.array([max(both) for both in found])
    order = np.argsort(-behind, kind="stable")
    read = np.cumsum(lengths[order]) / lengths.sum()
    at = min(int(np.searchsorted(read, MARGIN * SHARE)), max(int(np.count_nonzero(behind)) - 1, 0))
    return Fitted(least, own, float(behind[order[at]]))


def short(asked: Question, said: Choices, thresholds: Mapping[str, float]) -> float:
    """By how much an answer is under a card's thresholds, of the fields that were asked, for 1,000 characters."""
    named = {field: f"{asked.agent.role}.{field}" for field in asked.labels}
    least = {field: thresholds[name] for field, name in named.items() if name in thresholds}
    return shortfall(divergences(said, least), len(asked.prompt.user))


def average(asked: Question, accuracy: Mapping[str, float]) -> Choices:
    """An answer as sure as a card's precision is right on average."""
    named = {field: f"{asked.agent.role}.{field}" for field in asked.labels}
    return {field: {"right": accuracy[name]} for field, name in named.items() if name in accuracy}


def by_field(levels: Mapping[str, float]) -> dict[str, float]:
    """The levels by `role.field`, those of one kind alike."""
    return {name: round(levels[kind], 4) for name in judgement_fields() if (kind := _kind(name)) in levels}


def _kind(name: str) -> str:
    role, _, field = name.partition(".")
    return f"{role}.{pooled(field)}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.escalation", description=__doc__)
    parser.add_argument("--keep", type=Path, help="a folder for the models' answers, so that they are asked for once")
    arguments = parser.parse_args(argv)
    settings = load_settings().settings
    adapter, _card = adapter_for(default_source(settings), settings, PRUNED)
    if adapter is None or adapter.layers is None:
        sys.exit("there is no adapter of fewer layers; train one: docs/design/0017-pruned-rung.md")
    questions = drawn(build_corpus().items["validation"], EACH)
    edge, deep = (
        answers(questions, settings, precision, arguments.keep) for precision in (PRUNED, settings.deep_precision)
    )
    found = fit(questions, edge, deep)
    path = adapter.path.with_suffix(".json")
    card = json.loads(path.read_text(encoding="utf-8"))
    card |= {"thresholds": found.thresholds, "accuracy": found.accuracy, "worth": round(found.worth, 4)}
    write_atomically(path, json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    for name, level in found.thresholds.items():
        sys.stdout.write(f"{name} {found.accuracy[name]:.3f}, full depth {level:.3f}\n")
    sys.stdout.write(f"worth {found.worth:.4f}\n")


if __name__ == "__main__":
    main()
