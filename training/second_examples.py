"""What the second opinion is fitted on: the plan of a fit, and examples with their labels from the corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finllm.models.second_opinion import (
    INJECTION,
    SHORTEST,
    sentences,
)
from finllm.tools.data.factors import FACTOR_IDS
from training.corpus.schema import ALLOWED, InjectionItem, Item, ReadingItem, StanceItem

DIRECTIONS = ("up", "down", "none")
FIELDS: dict[str, tuple[str, ...]] = {
    "stance": ALLOWED["stance"],
    "event": ALLOWED["event"],
    "region": ALLOWED["region"],
    **{f"factors.{factor}.direction": DIRECTIONS for factor in FACTOR_IDS},
    INJECTION: ("injected", "clean"),
}
"""Named as the narrative agent's fields are, but for the last."""
APART = "sentence"
"""The task of examples that are one sentence of an injection item."""


@dataclass(frozen=True)
class Plan:
    """How it is trained. `frozen`: lower layers left as they are; `drawn`: generated items per epoch and task.

    `by_hand`: weight of a hand-written item; `aside`: weight of a label that its item was not written for.
    """

    frozen: int = 3
    rank: int = 16
    epochs: int = 4
    batch: int = 32
    rate: float = 5e-4
    head_rate: float = 5e-3
    dropout: float = 0.1
    by_hand: float = 4.0
    aside: float = 0.25
    drawn: int = 1500
    seed: int = 0


@dataclass(frozen=True)
class Example:
    """A text with its label's place by field, each with its weight; `task` is that of the corpus item."""

    text: str
    labels: Mapping[str, tuple[int, float]]
    task: str
    by_hand: bool


def examples_of(items: Sequence[Item], plan: Plan) -> list[Example]:
    """What items teach; one whose text alone decides nothing teaches nothing."""
    return [found for item in items if (found := example_of(item, plan)) is not None]


def apart(items: Sequence[Item], plan: Plan) -> list[Example]:
    """The sentences of the texts with attacks, and of those that look alike, each by itself, as `suspicions` reads."""
    found: dict[str, Example] = {}
    for item in items:
        if not isinstance(item, InjectionItem):
            continue
        spans = item.labels.spans if item.labels.injection == "injected" else ()
        clean = item.inputs.text
        for span in spans:
            clean = clean.replace(span, "\n")
        for said, texts in (("injected", spans), ("clean", sentences(clean) or [clean])):
            for text in texts:
                if len(text.split()) >= SHORTEST:
                    place = FIELDS[INJECTION].index(said), plan.by_hand / 2 if item.author == "finllm" else 0.5
                    found.setdefault(text, Example(text, {INJECTION: place}, APART, item.author == "finllm"))
    return list(found.values())


def example_of(item: Item, plan: Plan) -> Example | None:
    """What an item's text teaches, or None where it alone decides nothing."""
    told: dict[str, tuple[str, float]] = {}
    if isinstance(item, StanceItem):
        told = {"stance": (item.labels.stance, 1.0), "injection": ("clean", plan.aside)}
    elif isinstance(item, ReadingItem):
        said = item.labels
        told = {name: (value, 1.0) for name in ("event", "region") if (value := getattr(said, name))}
        told |= {f"factors.{factor}.direction": (way, 1.0) for factor, way in said.factors.items()}
        told |= {"stance": (said.stance, plan.aside)} if said.stance else {}
        told["injection"] = ("clean", plan.aside)
    elif isinstance(item, InjectionItem):
        told = {"injection": (item.labels.injection, 1.0)}
    else:
        return None
    by_hand = item.author == "finllm"
    weight = plan.by_hand if by_hand else 1.0
    places = {name: (FIELDS[name].index(value), weight * share) for name, (value, share) in told.items()}
    return Example(item.inputs.text, places, item.task, by_hand)
