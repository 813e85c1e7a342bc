"""Typed decoding: a judgement's schema becomes a template of forced text, choices and, where it asks for it, prose.

Keys and punctuation are forced, enums are choices among their values, and only prose is written freely, under its own
grammar. How a template is filled stands in `filling`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from finllm.scheduler.prose import Prose


@dataclass(frozen=True)
class Unless:
    """Field metadata: when the sibling `field` was decided as `value`, this field is `then` and is not asked.

    Otherwise it is asked, and `then` is not among the values.
    """

    field: str
    value: str
    then: str


@dataclass(frozen=True)
class Written:
    """Field metadata of a `str`: prose of at most `tokens` tokens that may hold `names` with digits in them."""

    tokens: int
    names: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class Write:
    """Free text for the dotted path `field`: at most `tokens` tokens, greedy at temperature 0, else sampled by seed.

    `prose` bounds what may be written; without it the text is whatever the model says until it ends.
    """

    field: str
    tokens: int
    prose: Prose | None
    temperature: float = 0.0


Step = Force | Choose | Pick | Write
Template = tuple[Step, ...]


def template_from(rows: Sequence[Mapping[str, Any]]) -> Template:
    """The template that a recorded task names: each row the step's type under `step`, and its fields."""
    return tuple(_step(dict(row)) for row in rows)


def _step(row: dict[str, Any]) -> Step:
    kind = row.pop("step")
    if kind == "Choose":
        unless = row.get("unless")
        return Choose(row["field"], tuple(row["values"]), None if unless is None else Unless(**unless))
    if kind == "Write":
        prose = row["prose"]
        told = None if prose is None else Prose(tuple(prose["references"]), tuple(prose["names"]))
        return Write(row["field"], row["tokens"], told, row["temperature"])
    return Pick(row["field"], tuple(row["labels"]), row["count"]) if kind == "Pick" else Force(row["text"])


def compile_template(judgement: type[BaseModel], picks: Mapping[str, Sequence[str]], *, count: int = 2) -> Template:
    """Turn a judgement type into a template: JSON without spaces, whose punctuation takes the fewest tokens.

    Supported fields: `Literal` of strings that JSON writes as they are (a choice), nested models and
    `dict[Literal, Model]` (objects), `tuple[str, ...]` (a pick among `picks[path]`), and `str` annotated with `Written`
    (prose that may refer to `picks[path]`). Errors: TypeError for any other annotation or an `Unless` on a field that
    is not decided before it, KeyError for a pick without labels.
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
        steps.append(Force(("," if position else "") + json.dumps(name) + ":"))
        unless = next((m for m in field.metadata if isinstance(m, Unless)), None)
        if unless is not None and unless.field not in list(model.model_fields)[:position]:
            raise TypeError(f"field {name!r}: {unless.field!r} of its 'Unless' is not decided before it")
        if unless is not None and path:
            unless = Unless(f"{path}.{unless.field}", unless.value, unless.then)
        where = f"{path}.{name}" if path else name
        written = next((m for m in field.metadata if isinstance(m, Written)), None)
        if written is not None and field.annotation is str:
            steps += [Force('"'), Write(where, written.tokens, Prose(tuple(picks[where]), written.names)), Force('"')]
        else:
            _value(field.annotation, where, picks, count, steps, unless)
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
            steps.append(Force(("{" if position == 0 else ",") + json.dumps(key) + ":"))
            _value(model, f"{path}.{key}", picks, count, steps, None)
        steps.append(Force("}"))
    elif origin is tuple and get_args(annotation) == (str, Ellipsis):
        steps.append(Pick(path, tuple(picks[path]), count))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        _object(annotation, path, picks, count, steps)
    else:
        raise TypeError(f"field {path!r}: a judgement cannot hold {annotation}")
