"""The scorecard beyond the corpus's labels: Fed sentences, and injections found against false alarms."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.scorecard.columns import Case, fires
from benchmarks.scorecard.rivals import Centroids, stance_by_words
from benchmarks.scorecard.tables import figures
from finllm.evaluation.evaluate import TaskName, evaluate_rows, pooled_odds, sanitised
from finllm.evaluation.guarded import Guards
from finllm.evaluation.labelled import Labelled
from finllm.events import EventBus
from finllm.models.cards import AdapterCard
from finllm.models.embedding import Embedder
from finllm.models.second_opinion import SecondOpinion
from finllm.scheduler.backends import Backend
from finllm.scheduler.decoding.filling import best
from training.corpus.schema import InjectionItem, Item
from training.items import Question, question

EVALUATION = Path(__file__).resolve().parents[3] / "shared" / "eval"
HALF = 0.5


@dataclass
class Missing:
    """What could not be measured, and why."""

    lines: list[str] = field(default_factory=list)


def fomc_rows(most: int | None = None) -> list[Labelled]:
    """Fed sentences of 1996–2019 with their labels; evenly drawn where `most` is fewer."""
    with (EVALUATION / "fomc" / "sentences_1996_2019.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            Labelled(at, row["sentence"], {"label": row["label"]}) for at, row in enumerate(csv.DictReader(file), 2)
        ]
    return rows if most is None or most >= len(rows) else rows[:: math.ceil(len(rows) / most)]


def planted(carriers: Sequence[str]) -> list[str]:
    """Indirect attacks of the development set, without the honest request around them, each inside clean news."""
    items = json.loads((EVALUATION / "injection" / "prompt_injection.json").read_text(encoding="utf-8"))
    found = []
    for at, item in enumerate(one for one in items if one["injection_type"] == "indirect"):
        asked_for = re.sub(r"\A[^:?]*\??[:,][^:'\"<]*:?\s*", "", item["user_input"], count=1)
        attack = asked_for or item["user_input"]
        first, second = carriers[2 * at % len(carriers)], carriers[(2 * at + 1) % len(carriers)]
        found.append(f"{first} {attack} {second}")
    return found


def fomc_rivals(
    rows: Sequence[Labelled], second: SecondOpinion | None, train: Sequence[Question], embedder: Embedder
) -> dict[str, list[str]]:
    expected = [row.right["label"] for row in rows]
    texts = [row.text for row in rows]
    centroids = Centroids(train, embedder)
    asked = [_stance_question(train[0], text) for text in texts]
    near = [
        centroids.say(one, "stance", vector) or "" for one, vector in zip(asked, centroids.vectors(asked), strict=True)
    ]
    found = {
        "majority": figures(expected, [max(set(expected), key=expected.count)] * len(rows)),
        "keyword rules": figures(expected, [stance_by_words(text) for text in texts]),
        "MiniLM centroid": figures(expected, near),
    }
    if second is not None:
        found["second opinion"] = figures(expected, [best(one["stance"]) for one in second.judge(texts)])
    return found


def fomc_of(
    name: str, rows: Sequence[Labelled], backend: Backend, second: SecondOpinion | None, *, card: AdapterCard | None
) -> dict[str, list[str]]:
    """A model on the Fed sentences, and pooled with the second opinion where that is heard."""
    judged = evaluate_rows(TaskName.stance, iter(rows), backend, EventBus(), total=len(rows), card=card).judged
    expected = [one.expected for one in judged]
    found = {name: figures(expected, [one.said for one in judged])}
    if second is not None:
        weight = second.card.weight_of("stance")
        told = second.judge([row.text for row in rows])
        said = [best(pooled_odds(one.odds, other["stance"], weight)) if one.odds else one.said
                for one, other in zip(judged, told, strict=True)]  # fmt: skip
        found[f"{name} + second (weight {weight:.2f})"] = figures(expected, said)
    return found


def corpus_stance(items: Sequence[Item]) -> list[Question]:
    return [question(item) for item in items if item.task == "stance"]


def _stance_question(like: Question, text: str) -> Question:
    from dataclasses import replace

    return replace(like, inputs={"narrative": text, "precedents": ""})


def injection_sets(clean: Sequence[str], cases: Sequence[Case], missing: Missing) -> dict[str, list[str]]:
    """Clean texts, the corpus's injected texts, and attacks planted in clean news, by name."""
    own = [case.item.inputs.text for case in cases
           if isinstance(case.item, InjectionItem) and case.item.labels.injection == "injected"]  # fmt: skip
    if (EVALUATION / "injection").is_dir():
        return {"clean": list(clean), "own": own, "planted": planted([text for text in clean if not fires(text)])}
    missing.lines.append("no injection set: ../shared/eval/injection is not there")
    return {"clean": list(clean), "own": own, "planted": []}


def injection_row(name: str, alarms: Mapping[str, Sequence[bool]]) -> list[str]:
    """The share that was called injected, of each set."""
    return [name, *(f"{sum(one) / len(one):.2%} of {len(one)}" if one else "–" for one in alarms.values())]


def injections_of(sets: Mapping[str, Sequence[str]], most: int, say: Callable[[str], None]) -> list[list[str]]:
    """What the rules find alone, and what a run cuts: by the rules and by the judge of instructions."""
    asked = {key: list(texts[:: math.ceil(len(texts) / most)]) if texts else [] for key, texts in sets.items()}
    rules: dict[str, list[bool]] = {}
    both: dict[str, list[bool]] = {}
    guards = Guards()
    for key, texts in asked.items():
        say(f"{len(texts)} texts, injected or clean")
        rules[key] = [fires(text) for text in texts]
        both[key] = [odds["injected"] > HALF for odds in guards.injected([sanitised(text) for text in texts])]
    return [injection_row("rules, the same texts", rules), injection_row("rules and judge, as a run cuts", both)]
