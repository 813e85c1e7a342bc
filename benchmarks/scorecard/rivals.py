"""What the scorecard holds the agents against: the commonest label, keyword rules, and the nearest MiniLM centroid."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finllm.models.embedding import Embedder
from finllm.tools.data.factors import FACTOR_IDS
from finllm.tools.words.lexical import balance, read_factors
from training.corpus.schema import Item, SanityItem
from training.items import Question

HAWKISH = (
    "hike", "raise", "raised", "rise", "rising", "rose", "tighten", "tightening", "tighter", "higher", "restrictive",
    "restraint", "inflationary", "overheating", "accelerat\\w+", "strong", "strength\\w*", "robust", "upward",
    "elevated", "firming", "pressures?", "shortages?", "surg\\w+",
)  # fmt: skip
DOVISH = (
    "cut", "cuts", "lower", "lowered", "eas\\w+", "accommodat\\w+", "stimulus", "support", "slack", "weak\\w*",
    "slow\\w*", "soft\\w*", "declin\\w+", "fall", "falling", "fell", "unemployment", "recession", "downside", "subdued",
    "moderat\\w+", "patien\\w+", "deflation\\w*", "sluggish",
)  # fmt: skip
"""Words that speak for higher and for lower rates: a text has the stance of those that it holds more of."""


def _count(text: str, words: Sequence[str]) -> int:
    return len(re.findall(rf"\b(?:{'|'.join(words)})\b", text.lower()))


def by_keywords(item: Item, question: Question, field: str) -> str | None:
    """What simple rules say of a field, or None where there is none: words for stance, the lexical reading for a
    direction, the checks' counts for a source.
    """
    if field == "stance":
        return stance_by_words(question.inputs["narrative"])
    if field.startswith("factors.") and field.endswith(".direction"):
        mentions = read_factors(question.inputs["narrative"])
        said = {factor: balance(found) for factor, found in mentions.items()}
        way = said.get(field.split(".")[1], "none")  # type: ignore[call-overload]
        return way if way in ("up", "down") else "none"
    if isinstance(item, SanityItem):
        seen = item.inputs
        found = (
            ("injected", seen.injections),
            ("coordinated", seen.twins),
            ("contradicted", seen.opposing > seen.agreeing),
        )
        return next((verdict for verdict, holds in found if holds), "credible")
    return None


def stance_by_words(text: str) -> str:
    up, down = _count(text, HAWKISH), _count(text, DOVISH)
    return "hawkish" if up > down else "dovish" if down > up else "neutral"


class Majority:
    """The commonest label of the train split, field by field; directions of all factors are taken one by one."""

    def __init__(self, train: Sequence[Question]) -> None:
        counts: dict[str, Counter[str]] = {}
        for question in train:
            for field, right in question.labels.items():
                counts.setdefault(f"{question.task}.{field}", Counter())[right[0]] += 1
        self._top = {name: found.most_common(1)[0][0] for name, found in counts.items()}

    def say(self, question: Question, field: str) -> str:
        return self._top[f"{question.task}.{field}"]


class Remembering(Embedder):
    """An embedder that reads each text once, however often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, npt.NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        new = sorted({text for text in texts if text not in self._known})
        self._known |= dict(zip(new, super().embed(new), strict=True))
        return np.stack([self._known[text] for text in texts]) if texts else super().embed([])


class Centroids:
    """The label whose texts of the train split lie nearest on average, by the embedding of the text alone."""

    def __init__(self, train: Sequence[Question], embedder: Embedder) -> None:
        self._embedder = embedder
        kept = [question for question in train if text_of(question)]
        vectors = embedder.embed([text_of(question) for question in kept])
        sums: dict[str, dict[str, list[npt.NDArray[np.float32]]]] = {}
        for question, vector in zip(kept, vectors, strict=True):
            for field, right in question.labels.items():
                sums.setdefault(f"{question.task}.{field}", {}).setdefault(right[0], []).append(vector)
        self._means = {
            name: {label: _unit(np.mean(rows, axis=0)) for label, rows in labels.items()}
            for name, labels in sums.items()
        }

    def vectors(self, questions: Sequence[Question]) -> npt.NDArray[np.float32]:
        return self._embedder.embed([text_of(question) for question in questions])

    def say(self, question: Question, field: str, vector: npt.NDArray[np.float32]) -> str | None:
        means = self._means.get(f"{question.task}.{field}")
        return max(means, key=lambda label: float(means[label] @ vector)) if means and text_of(question) else None


def _unit(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def text_of(question: Question) -> str:
    """The text that an item is about; none for those about findings or checks."""
    return question.inputs.get("narrative") or question.inputs.get("text") or ""


def directions() -> list[str]:
    return [f"factors.{factor}.direction" for factor in FACTOR_IDS]
