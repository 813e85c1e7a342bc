"""Typed decoding: a judgement's schema becomes a template whose keys are forced and whose enums are decided by scoring.

A template never samples. `fill` walks it over a `Scorer` (a model with a position): forced text is fed, and at each
choice the allowed values are scored, so that every field comes with a probability per value. Values of one field start
with different tokens, so the first token decides exactly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, get_args, get_origin

from pydantic import BaseModel

from finllm.errors import BackendError


@dataclass(frozen=True)
class Unless:
    """Field metadata: when the sibling `field` was decided as `value`, this field is `then` and is not asked.

    Otherwise it is asked, and `then` is not among the values.
    """

    field: str
    value: str
    then: str


@dataclass(frozen=True)
class Force:
    """Text that is fed, never sampled."""

    text: str


@dataclass(frozen=True)
class Choose:
    """One of `values` for the dotted path `field`; `unless` holds a full dotted path."""

    field: str
    values: tuple[str, ...]
    unless: Unless | None = None


@dataclass(frozen=True)
class Pick:
    """At most `count` of `labels`, without replacement, in order of preference."""

    field: str
    labels: tuple[str, ...]
    count: int


Step = Force | Choose | Pick
Template = tuple[Step, ...]


def template_from(rows: Sequence[Mapping[str, Any]]) -> Template:
    """The template that a recorded task names: each row the step's type under `step`, and its fields."""
    return tuple(_step(dict(row)) for row in rows)


def _step(row: dict[str, Any]) -> Step:
    kind = row.pop("step")
    if kind == "Choose":
        unless = row.get("unless")
        return Choose(row["field"], tuple(row["values"]), None if unless is None else Unless(**unless))
    return Pick(row["field"], tuple(row["labels"]), row["count"]) if kind == "Pick" else Force(row["text"])


LEAST_PRIOR = 0.02
"""Priors below this count as this much, so that a value the model never says unasked cannot win by that alone."""


class Scorer(Protocol):
    """A model at a position in a text."""

    def feed(self, text: str) -> None:
        """Advance over `text`."""
        ...

    def score(self, field: str, values: Sequence[str]) -> list[float]:
        """Log-probability (any common offset) of each value of `field` as the continuation, without advancing."""
        ...


Choices = dict[str, dict[str, float]]
"""Probability of each allowed value, by field; the values of one field sum to 1."""


@dataclass(frozen=True)
class Filled:
    """A finished template: JSON text, and the probabilities behind every decided field."""

    text: str
    choices: Choices


def compile_template(judgement: type[BaseModel], picks: Mapping[str, Sequence[str]], *, count: int = 2) -> Template:
    """Turn a judgement type into a template.

    Supported fields: `Literal` of strings that JSON writes as they are (a choice), nested models and
    `dict[Literal, Model]` (objects), and `tuple[str, ...]` (a pick among `picks[path]`). Errors: TypeError for any
    other annotation or an `Unless` on a field that is not decided before it, KeyError for a pick without labels.
    """
    steps: list[Step] = []
    _object(judgement, "", picks, count, steps)
    merged: list[Step] = []
    for step in steps:
        if isinstance(step, Force) and merged and isinstance(merged[-1], Force):
            merged[-1] = Force(merged[-1].text + step.text)
        else:
            merged.append(step)
    return tuple(merged)


def _object(
    model: type[BaseModel], path: str, picks: Mapping[str, Sequence[str]], count: int, steps: list[Step]
) -> None:
    steps.append(Force("{"))
    for position, (name, field) in enumerate(model.model_fields.items()):
        steps.append(Force((", " if position else "") + json.dumps(name) + ": "))
        unless = next((m for m in field.metadata if isinstance(m, Unless)), None)
        if unless is not None and unless.field not in list(model.model_fields)[:position]:
            raise TypeError(f"field {name!r}: {unless.field!r} of its 'Unless' is not decided before it")
        if unless is not None and path:
            unless = Unless(f"{path}.{unless.field}", unless.value, unless.then)
        _value(field.annotation, f"{path}.{name}" if path else name, picks, count, steps, unless)
    steps.append(Force("}"))


def _value(
    annotation: Any, path: str, picks: Mapping[str, Sequence[str]], count: int, steps: list[Step], unless: Unless | None
) -> None:
    origin = get_origin(annotation)
    if origin is Annotated:
        _value(get_args(annotation)[0], path, picks, count, steps, unless)
    elif origin is Literal:
        values = tuple(v for v in get_args(annotation) if unless is None or v != unless.then)
        if not values or any(json.dumps(v, ensure_ascii=False) != f'"{v}"' for v in values):
            raise TypeError(f"field {path!r}: a judgement cannot choose among {values!r}")
        steps += [Force('"'), Choose(path, values, unless), Force('"')]
    elif origin is dict and get_origin(get_args(annotation)[0]) is Literal:
        keys, model = get_args(annotation)
        for position, key in enumerate(get_args(keys)):
            steps.append(Force(("{" if position == 0 else ", ") + json.dumps(key) + ": "))
            _value(model, f"{path}.{key}", picks, count, steps, None)
        steps.append(Force("}"))
    elif origin is tuple and get_args(annotation) == (str, Ellipsis):
        steps.append(Pick(path, tuple(picks[path]), count))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        _object(annotation, path, picks, count, steps)
    else:
        raise TypeError(f"field {path!r}: a judgement cannot hold {annotation}")


def fill(template: Template, scorer: Scorer, priors: Mapping[str, Mapping[str, float]] | None = None) -> Filled:
    """Decide every field of a template.

    `priors` are the probabilities of a content-free prompt; scores are divided by them, so that a value wins by what
    the text adds and not by how often the model says it (contextual calibration; Zhao et al. 2021, eq. 1–2). Errors:
    BackendError for scores that are not numbers.
    """
    text: list[str] = []
    choices: Choices = {}
    decided: dict[str, str] = {}

    def feed(piece: str) -> None:
        scorer.feed(piece)
        text.append(piece)

    for step in template:
        if isinstance(step, Force):
            feed(step.text)
        elif isinstance(step, Choose):
            if step.unless is not None and decided.get(step.unless.field) == step.unless.value:
                decided[step.field] = step.unless.then
                choices[step.field] = {step.unless.then: 1.0}
            else:
                choices[step.field] = _decide(scorer, step.field, step.values, (priors or {}).get(step.field))
                decided[step.field] = best(choices[step.field])
            feed(decided[step.field])
        else:
            _pick(step, scorer, (priors or {}).get(step.field), feed, choices)
    return Filled("".join(text), choices)


def _pick(
    step: Pick, scorer: Scorer, prior: Mapping[str, float] | None, feed: Callable[[str], None], choices: Choices
) -> None:
    """Feed `["A", "C"]`; the probabilities kept are those of the first decision, when every label was open."""
    left = list(step.labels)
    choices[step.field] = {}
    for position in range(min(step.count, len(left))):
        feed('["' if position == 0 else ', "')
        scores = _decide(scorer, step.field, left, prior)
        if position == 0:
            choices[step.field] = scores
        chosen = best(scores)
        feed(chosen + '"')
        left.remove(chosen)
    feed("]" if step.labels and step.count else "[]")


def _decide(scorer: Scorer, field: str, values: Sequence[str], prior: Mapping[str, float] | None) -> dict[str, float]:
    scores = scorer.score(field, values)
    if prior is not None:
        scores = [s - math.log(max(prior.get(v, 0.0), LEAST_PRIOR)) for s, v in zip(scores, values, strict=True)]
    top = max(scores)
    if not math.isfinite(top) or any(math.isnan(score) for score in scores):
        raise BackendError(f"the model gave no usable score for {field!r}", fix="check its weights: 'finllm doctor'")
    weights = [math.exp(score - top) for score in scores]
    total = sum(weights)
    return {value: weight / total for value, weight in zip(values, weights, strict=True)}


def best(probabilities: Mapping[str, float]) -> str:
    """The most probable value; of equals the first."""
    return max(probabilities, key=lambda value: probabilities[value])
