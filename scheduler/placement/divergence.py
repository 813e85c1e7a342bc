"""When an answer is too doubtful, and what is asked then: the next precision up, or a vote in another order.

Pure rules over probabilities, thresholds and templates; whoever knows what the fields mean passes these in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from finllm.scheduler.decoding.filling import Choices, best, fill
from finllm.scheduler.decoding.template import Choose, Pick, Template
from finllm.scheduler.placement.task import PRECISIONS

VOTES = 3
"""Most answers that a vote at full depth counts, the first one among them."""
T = TypeVar("T")


@dataclass(frozen=True)
class Divergence:
    """A field whose chosen value was held with a `probability` (0 to 1) under the conformal `threshold` for it."""

    field: str
    probability: float
    threshold: float


@dataclass(frozen=True)
class Tally:
    """What votes came to: the `text` of the decided template, and the mean probability of each value by field.

    `split`: fields of which no value was chosen by more than half of the votes, with the values that were.
    """

    text: str
    choices: Choices
    split: Mapping[str, tuple[str, ...]]


def divergences(choices: Choices, thresholds: Mapping[str, float]) -> tuple[Divergence, ...]:
    """The fields that diverge, the one farthest under its threshold first. A field without a threshold never does.

    Under a conformal threshold chosen values are wrong more often than the calibration's bound allows (conformal risk
    control; Angelopoulos et al. 2024, eq. 5).
    """
    found = [
        Divergence(field, max(choices[field].values()), least)
        for field, least in thresholds.items()
        if choices.get(field) and max(choices[field].values()) < least
    ]
    return tuple(sorted(found, key=lambda one: (one.probability - one.threshold, one.field)))


def shortfall(found: Iterable[Divergence], length: int) -> float:
    """By how much fields are under their thresholds, summed, for every 1,000 characters of the prompt.

    Where a threshold is the share that a finer precision has right, this is what asking it gains, by what it costs.
    """
    return 1000 * sum(one.threshold - one.probability for one in found) / max(length, 1)


def finer(precision: str, offered: Iterable[str]) -> tuple[str, ...]:
    """The offered precisions finer than this one, the next one up first. Errors: ValueError for an unknown one."""
    at = PRECISIONS.index(precision)
    return tuple(sorted({one for one in offered if PRECISIONS.index(one) > at}, key=PRECISIONS.index))


def turned(items: Sequence[T], turn: int) -> tuple[T, ...]:
    """The items in the order that starts `turn` places on; 0 leaves it. So each item leads once in as many turns."""
    at = turn % len(items) if items else 0
    return (*items[at:], *items[:at])


def permuted(template: Template, turn: int) -> Template:
    """The template with the values of each choice turned: the same questions, but another task.

    Each value is scored by itself, so the order decides ties and no more; what else a vote puts in another order is
    for its caller to say.
    """
    return tuple(
        replace(step, values=turned(step.values, turn)) if isinstance(step, Choose) else step for step in template
    )


def tally(template: Template, votes: Sequence[Choices]) -> Tally:
    """Decide each field by the mean of the votes' probabilities, among the values that a vote chose.

    A field that depends on another's value is averaged over the votes that were asked for it. Errors: ValueError
    without votes, KeyError for a vote that lacks a field, TypeError for a template with prose.
    """
    if not votes:
        raise ValueError("there are no votes")
    means: Choices = {}
    chosen: dict[str, set[str]] = {}
    split: dict[str, tuple[str, ...]] = {}
    for step in template:
        if isinstance(step, Choose):
            asked = [vote[step.field] for vote in votes if step.unless is None or _asked(vote[step.field], step)]
            means[step.field] = _mean(asked, step.values)
            told = Counter(best(one) for one in asked)
            chosen[step.field] = set(told)
            if step.unless is None and 2 * max(told.values()) <= len(votes):
                split[step.field] = tuple(value for value, _count in told.most_common())
        elif isinstance(step, Pick):
            means[step.field] = _mean([vote[step.field] for vote in votes], step.labels)
            chosen[step.field] = set(step.labels)
    filled = fill(template, _Means(means, chosen))
    asked_last = {field: means[field] if len(odds) > 1 else odds for field, odds in filled.choices.items()}
    return Tally(filled.text, asked_last, split)


def _asked(odds: Mapping[str, float], step: Choose) -> bool:
    return step.unless is None or step.unless.then not in odds


def _mean(votes: Sequence[Mapping[str, float]], values: Sequence[str]) -> dict[str, float]:
    return {value: sum(vote[value] for vote in votes) / len(votes) for value in values} if votes else {}


@dataclass(frozen=True)
class _Means:
    """A scorer that says what the votes said."""

    means: Choices
    chosen: Mapping[str, set[str]]

    def score(self, text: str, field: str, values: Sequence[str]) -> list[float]:
        del text
        means, chosen = self.means[field], self.chosen[field]
        return [math.log(max(means[value], 1e-300)) if value in chosen else -math.inf for value in values]
