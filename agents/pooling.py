"""What the language model says of an event and what the channel reader says, made one reading with one probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from finllm.agents.agent import Opinion
from finllm.agents.narrative import EVENT_FIELDS, NO_EVENT, Asked, FactorCall, Reading
from finllm.models.second_opinion import log_pool
from finllm.scheduler.decoding.filling import Choices, best
from finllm.tools.channels import Channel, Opened, directions, sizes
from finllm.tools.data.factors import FACTOR_IDS

READER_WEIGHT: dict[str, float] = {"event": 1.0, "region": 0.7, "stance": 1.0, "severity": 1.0, "factors": 1.0}
"""How much the channel reader counts beside the language model, by what is read: at 1 the model is not asked.
Measured on validation (note 42)."""
STRONGER_WEIGHT = 0.5
"""The same beside a model that is stronger than the default one, of which nothing was measured here."""
STRAIGHT = 0.65
"""How much a direction that is read straight from the text counts beside the table's, in their mean (note 41)."""
STEP = {"low": -1, "medium": 0, "high": 0, "extreme": 1}
"""By how many sizes a move is smaller or larger than its channel's own, by the severity of the event."""
_SIZES = ("small", "medium", "large", "extreme")


@dataclass(frozen=True)
class ByChannels:
    """What the channel reader says of an event: the channels that it opens, and the odds of each field by its values.

    A field named as a factor has the odds of its direction, read straight from the text: the second voice beside
    the table's. `table`: the channels and what they move, the shipped one where none is given.
    """

    opened: Sequence[Opened]
    fields: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])
    table: Mapping[str, Channel] | None = None

    def directions(self, factors: Sequence[str] = FACTOR_IDS) -> dict[str, dict[str, float]]:
        """By factor the odds of each direction: the table's, with those read straight at `STRAIGHT` where there are."""
        by_table = directions(self.opened, factors, self.table)
        return {name: _beside(odds, self.fields.get(name)) for name, odds in by_table.items()}

    def sizes(self, factors: Sequence[str] = FACTOR_IDS) -> dict[str, dict[str, float]]:
        """The odds of each size, given that it moves: the channels', a step larger or smaller by the severity."""
        severity = self.fields.get("severity") or {"medium": 1.0}
        return {name: _stepped(odds, severity) for name, odds in sizes(self.opened, factors, self.table).items()}


def unasked(heard: ByChannels | None, *, stronger: bool = False) -> frozenset[str]:
    """The fields of `Asked` that the language model need not be asked, as the reader alone decides them."""
    if heard is None or stronger:
        return frozenset()
    known = {*heard.fields, "factors"}
    return frozenset(name for name, weight in READER_WEIGHT.items() if weight >= 1.0 and name in known)


def pooled(opinion: Opinion[Any], heard: ByChannels | None, *, stronger: bool = False) -> Opinion[Reading]:
    """The opinion as a reading, with the reader's odds pooled in by field (`log_pool`); an abstention stays one.

    Without a reader it is the model's own. What the model was not asked is the reader's. Every field's value is the
    likeliest of the pooled odds, and these stand in `choices`.
    """
    if opinion.judgement is None:
        return Opinion[Reading].model_validate({**dict(opinion), "judgement": None})
    said: BaseModel = opinion.judgement
    known = opinion.choices
    choices: Choices = {}
    values: dict[str, Any] = {"because": getattr(said, "because", ())}
    for name in EVENT_FIELDS:
        odds = pool_field(name, known.get(name), heard, stronger=stronger)
        choices[name] = odds
        values[name] = best(odds)
    calls = said.factors if isinstance(said, Asked) else None
    ways, far = (heard.directions(), heard.sizes()) if heard else ({}, {})
    values["factors"] = {}
    for factor in FACTOR_IDS:
        direction = f"factors.{factor}.direction"
        odds = pool(known.get(direction), ways.get(factor), weight_of("factors", stronger=stronger))
        choices[direction] = odds
        choices[f"factors.{factor}.size"] = _size(factor, best(odds), known, far, calls is not None, stronger)
        size = "none" if best(odds) == "none" else best(choices[f"factors.{factor}.size"])
        values["factors"][factor] = FactorCall.model_validate({"direction": best(odds), "size": size})
    choices |= {name: dict(odds) for name, odds in known.items() if name == "because"}
    return Opinion[Reading].model_validate({**dict(opinion), "judgement": Reading(**values), "choices": choices})


def pool_field(
    name: str, model: Mapping[str, float] | None, heard: ByChannels | None, *, stronger: bool = False
) -> dict[str, float]:  # fmt: skip
    """The odds of one field of the event, by both."""
    model = None if model is None else _renamed(name, model)
    reader = heard.fields.get(name) if heard else None
    weight = weight_of(name, stronger=stronger)
    if name != "event" or model is None or reader is None or weight >= 1.0:
        return pool(model, reader, weight)
    shared = {kind: p for kind, p in reader.items() if kind in model}
    mass = sum(shared.values())
    if mass <= 0:
        return dict(reader)
    both = log_pool({kind: p / mass for kind, p in shared.items()}, model, 1 - weight)
    return {kind: both[kind] * mass if kind in both else p for kind, p in reader.items()}


def pool(model: Mapping[str, float] | None, reader: Mapping[str, float] | None, weight: float) -> dict[str, float]:
    """The odds of both; of one where the other has none. `weight` is the reader's."""
    if model is None or reader is None:
        return dict(model or reader or {})
    return dict(reader) if weight >= 1.0 else log_pool(model, reader, weight)


def weight_of(name: str, *, stronger: bool = False) -> float:
    """The reader's weight beside the model's."""
    return STRONGER_WEIGHT if stronger else READER_WEIGHT.get(name, 1.0)


def _size(
    factor: str, direction: str, known: Choices, far: Mapping[str, Mapping[str, float]], asked: bool, stronger: bool
) -> dict[str, float]:  # fmt: skip
    if direction == "none":
        return {"none": 1.0}
    model = known.get(f"factors.{factor}.size") if asked else None
    model = {size: p for size, p in (model or {}).items() if size != "none" and p > 0} or None
    odds = pool(model, far.get(factor) or None, weight_of("factors", stronger=stronger))
    return odds or {"small": 1.0}


def _beside(by_table: Mapping[Any, float], straight: Mapping[str, float] | None) -> dict[str, float]:
    """The mean of both: a table that says nothing of a factor is no veto, nor is its certainty."""
    if not straight:
        return dict(by_table)
    return {way: (1 - STRAIGHT) * p + STRAIGHT * straight.get(way, 0.0) for way, p in by_table.items()}


def _stepped(odds: Mapping[Any, float], severity: Mapping[str, float]) -> dict[str, float]:
    if not odds:
        return {}
    found: dict[str, float] = dict.fromkeys(_SIZES, 0.0)
    for at, size in enumerate(_SIZES):
        for grade, chance in severity.items():
            to = min(max(at + STEP.get(grade, 0), 0), len(_SIZES) - 1)
            found[_SIZES[to]] += odds.get(size, 0.0) * chance
    return found


def _renamed(name: str, odds: Mapping[str, float]) -> dict[str, float]:
    return {NO_EVENT.get(value, value): p for value, p in odds.items()} if name == "event" else dict(odds)
