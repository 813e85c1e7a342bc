"""What each contender says of the corpus's cases: the model, the second opinion, both, and the rivals."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.scorecard.rivals import Centroids, Majority, by_keywords, text_of
from finllm.agents.asking import Question as Asked
from finllm.agents.asking import Told, ask_all
from finllm.evaluation.evaluate import STEERED as OF_INJECTED
from finllm.evaluation.evaluate import THRESHOLD, pooled_odds, sanitised
from finllm.evaluation.guarded import Guards
from finllm.models.cards import AdapterCard
from finllm.models.embedding import Embedder
from finllm.models.second_opinion import INJECTION, Probabilities, SecondOpinion, two
from finllm.scheduler.backends import Backend
from finllm.scheduler.decoding.filling import best
from training.corpus.schema import InjectionItem, Item
from training.items import Question

ABSTAINED = "abstained"
STEERED = INJECTION
"""The group of injected against clean, which the rules and a threshold decide, and not the commonest verdict."""

Say = Mapping[str, str | None]


@dataclass(frozen=True)
class Case:
    item: Item
    asked: Question


@dataclass(frozen=True)
class Column:
    """What one contender says of each case, by field, with the odds it was chosen from; `seconds` of model time."""

    name: str
    said: Sequence[Say]
    odds: Sequence[Probabilities] = ()
    seconds: float = 0.0


def group_of(case: Case, name: str) -> str:
    """The row of the table that a case's field counts in."""
    task = case.asked.task
    if task == "injection":
        return STEERED
    if task in ("stance", "sanity"):
        return task
    if task == "compliance":
        return "compliance"
    if task == "validator":
        return f"validator {name}"
    return "directions" if name.endswith(".direction") else "sizes" if name.endswith(".size") else f"narrative {name}"


def expected_of(case: Case, name: str) -> str:
    return case.item.labels.injection if isinstance(case.item, InjectionItem) else case.asked.labels[name][0]


def pairs(cases: Sequence[Case], column: Column) -> Iterator[tuple[Case, str, str, str | None, Mapping[str, float]]]:
    """Every labelled field: its case, its group, what is right, what was said, and from which odds."""
    for at, (case, said) in enumerate(zip(cases, column.said, strict=True)):
        for name in case.asked.labels:
            if name in said:
                odds = column.odds[at].get(name, {}) if column.odds else {}
                yield case, group_of(case, name), expected_of(case, name), said[name], odds


def ask(
    name: str,
    cases: Sequence[Case],
    backend: Backend,
    progress: Callable[[str], None],
    *,
    card: AdapterCard | None = None,
) -> Column:
    """What a model says; a text on which an injection rule fires is injected without asking."""
    questions = [
        Asked(c.asked.agent, c.asked.inputs, tuple(c.asked.labels), {"because": c.asked.offered}) for c in cases
    ]
    progress(f"{name}: {len(questions)} judgements")
    told = asyncio.run(ask_all(backend, questions, card=card))
    threshold = THRESHOLD if card is None else card.thresholds.get(OF_INJECTED, THRESHOLD)
    return column_of(name, cases, told, threshold)


def column_of(name: str, cases: Sequence[Case], told: Sequence[Told], threshold: float = THRESHOLD) -> Column:
    """A model's answers; `threshold`: the probability from which on a text is called injected."""
    said: list[dict[str, str | None]] = []
    odds: list[Probabilities] = []
    for case, one in zip(cases, told, strict=True):
        if one.failure is not None:
            said.append(dict.fromkeys(case.asked.labels, ABSTAINED))
            odds.append({})
            continue
        choices = {field: dict(one.choices[field]) for field in case.asked.labels}
        if isinstance(case.item, InjectionItem):
            choices = {"verdict": two(1.0 if fires(case.item.inputs.text) else choices["verdict"]["injected"])}
        odds.append(choices)
        said.append({field: decided(case, row, threshold) for field, row in choices.items()})
    return Column(name, said, odds, sum(one.seconds for one in told))


def decided(case: Case, odds: Mapping[str, float], threshold: float = THRESHOLD) -> str:
    if isinstance(case.item, InjectionItem):
        return "injected" if odds["injected"] >= threshold else "clean"
    return best(odds)


def fires(text: str) -> bool:
    """Whether the deterministic rules find an instruction in a text."""
    return any(removed.kind in ("injection", "template") for removed in sanitised(text).removed)


def with_second(
    name: str, cases: Sequence[Case], column: Column, second: Column, weigh: Callable[[str], float]
) -> Column:  # fmt: skip
    """A model's column pooled with the second opinion's: `weigh` gives the second one's weight by field.

    Whether a text is injected, the guards decide alone, as in a run.
    """
    said: list[Say] = []
    odds: list[Probabilities] = []
    for case, row, other in zip(cases, column.odds, second.odds, strict=True):
        steered = isinstance(case.item, InjectionItem)
        mixed = dict(other) if steered else {f: pooled_odds(p, other.get(f), weigh(f)) for f, p in row.items()}
        odds.append(mixed)
        told = {field: decided(case, p) for field, p in mixed.items()}
        said.append(told or dict.fromkeys(case.asked.labels, ABSTAINED))
    return Column(name, said, odds, column.seconds)


def second_column(cases: Sequence[Case], second: SecondOpinion) -> Column:
    """The second opinion alone, where it has one; of injections, the rules and the judge, as a run cuts."""
    texts = [text_of(case.asked) or "-" for case in cases]
    told = second.judge(texts)
    steered = [text for case, text in zip(cases, texts, strict=True) if isinstance(case.item, InjectionItem)]
    cut = iter(Guards().injected([sanitised(text) for text in steered]))
    said: list[Say] = []
    odds: list[Probabilities] = []
    for case, one in zip(cases, told, strict=True):
        if isinstance(case.item, InjectionItem):
            known = {"verdict": dict(next(cut))}
        else:
            known = {name: one[name] for name in case.asked.labels if name in one and text_of(case.asked)}
        odds.append(known)
        said.append({name: decided(case, p) for name, p in known.items()})
    return Column("second opinion", said, odds)


def rival_columns(cases: Sequence[Case], train: Sequence[Question], embedder: Embedder) -> list[Column]:
    majority, centroids = Majority(train), Centroids(train, embedder)
    vectors = centroids.vectors([case.asked for case in cases])
    by_rule: list[Say] = []
    by_top: list[Say] = []
    by_mean: list[Say] = []
    for case, vector in zip(cases, vectors, strict=True):
        names = list(case.asked.labels)
        if isinstance(case.item, InjectionItem):
            by_rule.append({"verdict": "injected" if fires(case.item.inputs.text) else "clean"})
        else:
            ruled = {name: by_keywords(case.item, case.asked, name) for name in names}
            by_rule.append({name: value for name, value in ruled.items() if value is not None})
        by_top.append({name: _two(case, majority.say(case.asked, name)) for name in names})
        near = {name: centroids.say(case.asked, name, vector) for name in names}
        by_mean.append({name: _two(case, value) for name, value in near.items() if value is not None})
    return [Column("majority", by_top), Column("keyword rules", by_rule), Column("MiniLM centroid", by_mean)]


def _two(case: Case, value: str) -> str:
    """An injection item's verdict as one of its two labels."""
    return value if not isinstance(case.item, InjectionItem) or value == "injected" else "clean"


def sampled(cases: Sequence[Case], each: int) -> list[Case]:
    """Up to `each` cases of every task, evenly drawn."""
    found: list[Case] = []
    for task in dict.fromkeys(case.asked.task for case in cases):
        of = [case for case in cases if case.asked.task == task]
        found += of[:: math.ceil(len(of) / each)] if each < len(of) else of
    return found
