"""Typed decoding: a judgement's schema becomes a template of forced text, choices and, where it asks for it, prose.

Keys and punctuation are forced, enums are choices among their values, and only prose is written freely, under its own
grammar. A choice has a stem of its own behind the prompt, so that the fields of a judgement are asked side by side and
none copies the one before it. How a template is filled stands in `filling`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from finllm.scheduler.decoding.prose import Prose


@dataclass(frozen=True)
class Unless:
    """Field metadata: when the sibling `field` was decided as `value`, this field is `then` and is not asked.

    Otherwise it is asked, and `then` is not among the values.
    """

    field: str
    value: str
    then: str


@dataclass(frozen=True)
class FreeText:
    """Field metadata of a `str`: prose of at most `tokens` tokens that may hold `names` with digits in them."""

    tokens: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Force:
    """Text that is fed, never sampled."""

    text: str


@dataclass(frozen=True)
class Choose:
    """One of `values` for the dotted path `field`; `unless` holds a full dotted path.

    `stem`: the text at which it is asked, behind the template's opening (its first forced text) or, where `after` names
    a field, behind that one's stem and value. None: it is asked in place, behind all the text before it.
    """

    field: str
    values: tuple[str, ...]
    unless: Unless | None = None
    stem: str | None = None
    after: str | None = None


@dataclass(frozen=True)
class Pick:
    """The `count` most probable of `labels`, or all of them where there are fewer; `stem` as in `Choose`."""

    field: str
    labels: tuple[str, ...]
    count: int
    stem: str | None = None


@dataclass(frozen=True)
class Write:
    """Free text for the dotted path `field`: at most `tokens` tokens, greedy at temperature 0, else sampled by seed.

    `prose` bounds what may be written; without it the text is whatever the model says until it ends.
    """

    field: str
    tokens: int
    prose: Prose | None
    temperature: float = 0.0


TemplateStep = Force | Choose | Pick | Write
Template = tuple[TemplateStep, ...]


def template_from(rows: Sequence[Mapping[str, Any]]) -> Template:
    """The template that a recorded task names: each row the step's type under `step`, and its fields."""
    return tuple(_step(dict(row)) for row in rows)


def _step(row: dict[str, Any]) -> TemplateStep:
    kind = row.pop("step")
    if kind == "Choose":
        unless = row.get("unless")
        told = None if unless is None else Unless(**unless)
        return Choose(row["field"], tuple(row["values"]), told, row.get("stem"), row.get("after"))
    if kind == "Write":
        prose = row["prose"]
        grammar = None if prose is None else Prose(tuple(prose["references"]), tuple(prose["names"]))
        return Write(row["field"], row["tokens"], grammar, row["temperature"])
    if kind == "Pick":
        return Pick(row["field"], tuple(row["labels"]), row["count"], row.get("stem"))
    return Force(row["text"])


def part_of(template: Template, fields: Collection[str]) -> Template:
    """The questions of some fields with those that they come after, without the text between them.

    Their scores are those of the whole template, since each is asked at its own stem. Errors: ValueError for a field
    that the template has not, or that is asked in place.
    """
    steps = {step.field: step for step in template if isinstance(step, Choose | Pick)}
    if unknown := set(fields) - set(steps):
        raise ValueError(f"the template has no field {sorted(unknown)}")
    wanted = set(fields)
    wanted |= {
        step.after for step in steps.values() if step.field in wanted and isinstance(step, Choose) and step.after
    }
    if in_place := sorted(field for field in wanted if steps[field].stem is None):
        raise ValueError(f"{in_place} are asked in place")
    opening = template[:1] if isinstance(template[0], Force) else ()
    return (*opening, *(step for step in steps.values() if step.field in wanted))


def compile_template(judgement: type[BaseModel], picks: Mapping[str, Sequence[str]], *, count: int = 2) -> Template:
    """Turn a judgement type into a template: JSON without spaces, whose punctuation takes the fewest tokens.

    Supported fields: `Literal` of strings that JSON writes as they are (a choice), nested models and
    `dict[Literal, Model]` (objects), `tuple[str, ...]` (a pick among `picks[path]`), and `str` annotated `FreeText`
    (prose that may refer to `picks[path]`, written behind all that was decided). Every choice is asked at a stem of its
    own: the object as if it began with this field, a mapping's own name left out. Errors: TypeError for any other
    annotation or an `Unless` on a field that is not decided before it, KeyError for a pick without labels.
    """
    steps: list[TemplateStep] = []
    _object(judgement, _Place("", ""), picks, count, steps)
    merged: list[TemplateStep] = [Force(_OPENING)]
    for step in steps:
        if isinstance(step, Force) and len(merged) > 1 and isinstance(merged[-1], Force):
            merged[-1] = Force(merged[-1].text + step.text)
        else:
            merged.append(step)
    return tuple(merged)


_OPENING = '{"'
"""What every judgement begins with; the stems go on behind it."""


@dataclass(frozen=True)
class _Place:
    """Where a value stands: its dotted path, and the stem that leads to it."""

    path: str
    stem: str

    def field(self, name: str) -> _Place:
        return _Place(f"{self.path}.{name}" if self.path else name, f'{self.stem}{name}":')


def _object(
    model: type[BaseModel], place: _Place, picks: Mapping[str, Sequence[str]], count: int, steps: list[TemplateStep]
) -> None:
    """The fields of an object behind its `{"`, up to its end."""
    for position, (name, field) in enumerate(model.model_fields.items()):
        if json.dumps(name) != f'"{name}"':
            raise TypeError(f"field {name!r}: JSON does not write its name as it is")
        steps.append(Force((',"' if position else "") + f'{name}":'))
        unless = next((m for m in field.metadata if isinstance(m, Unless)), None)
        if unless is not None and unless.field not in list(model.model_fields)[:position]:
            raise TypeError(f"field {name!r}: {unless.field!r} of its 'Unless' is not decided before it")
        if unless is not None:
            unless = Unless(place.field(unless.field).path, unless.value, unless.then)
        where = place.field(name)
        written = next((m for m in field.metadata if isinstance(m, FreeText)), None)
        if written is not None and field.annotation is str:
            prose = Prose(tuple(picks[where.path]), written.names)
            steps += [Force('"'), Write(where.path, written.tokens, prose), Force('"')]
        elif unless is not None:
            _value(field.annotation, _Place(where.path, f'","{name}":'), picks, count, steps, unless)
        else:
            _value(field.annotation, where, picks, count, steps, None)
    steps.append(Force("}"))


def _value(
    annotation: Any, place: _Place, picks: Mapping[str, Sequence[str]], count: int, steps: list[TemplateStep],
    unless: Unless | None,
) -> None:  # fmt: skip
    origin = get_origin(annotation)
    if origin is Annotated:
        _value(get_args(annotation)[0], place, picks, count, steps, unless)
    elif origin is Literal:
        values = tuple(v for v in get_args(annotation) if unless is None or v != unless.then)
        if not values or any(json.dumps(v, ensure_ascii=False) != f'"{v}"' for v in values):
            raise TypeError(f"field {place.path!r}: a judgement cannot choose among {values!r}")
        after = None if unless is None else unless.field
        steps += [Force('"'), Choose(place.path, values, unless, f'{place.stem}"', after), Force('"')]
    elif origin is dict and get_origin(get_args(annotation)[0]) is Literal:
        keys, model = get_args(annotation)
        steps.append(Force("{"))
        for position, key in enumerate(get_args(keys)):
            steps.append(Force(("," if position else "") + json.dumps(key) + ":"))
            _value(model, _Place(f"{place.path}.{key}", f'{key}":'), picks, count, steps, None)
        steps.append(Force("}"))
    elif origin is tuple and get_args(annotation) == (str, Ellipsis):
        steps.append(Pick(place.path, tuple(picks[place.path]), count, f'{place.stem}["'))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        steps.append(Force(_OPENING))
        _object(annotation, _Place(place.path, f"{place.stem}{_OPENING}"), picks, count, steps)
    else:
        raise TypeError(f"field {place.path!r}: a judgement cannot hold {annotation}")
