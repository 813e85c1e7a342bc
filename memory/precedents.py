"""Precedents: dated historical events, in our words, with the direction in which each factor moved."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from finllm.errors import InputError
from finllm.tools.channels import known_channel
from finllm.tools.data.factors import Direction, FactorId

ChannelName = Annotated[str, AfterValidator(known_channel)]
PRECEDENTS_PATH = Path(__file__).parent / "precedents.yaml"


class Precedent(BaseModel):
    """One event from `start` to `end` (both included). It may be read only by a run whose `as_of` is `end` or later.

    `channels`: the transmission channels that it opened, none where it opened none or nobody said.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    title: str = Field(min_length=1, max_length=200)
    start: dt.date
    end: dt.date
    region: str = Field(min_length=1, max_length=100)
    kind: str = Field(min_length=1, max_length=100)
    channels: Annotated[tuple[ChannelName, ...], Strict(strict=False)] = ()
    summary: str = Field(min_length=1, max_length=4000)
    factors: dict[FactorId, Direction] = Field(min_length=1)
    source: str = Field(min_length=1, max_length=2000)

    @model_validator(mode="after")
    def _ordered(self) -> Precedent:
        if self.end < self.start:
            raise ValueError("'end' must not come before 'start'")
        return self

    def as_text(self) -> str:
        """What is embedded and searched."""
        return f"{self.title} ({self.kind}, {self.region}). {self.summary}"


_LIST = TypeAdapter(list[Precedent])


def load_precedents(path: Path = PRECEDENTS_PATH) -> tuple[Precedent, ...]:
    """Read a YAML list of precedents, or a mapping that holds it under `precedents`; in the file's order.

    Errors: InputError naming the file, the item and the field.
    """
    fix = "correct the file: a YAML list of precedents, each with id, title, start, end, region, kind, summary, factors"
    try:
        data: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise InputError(f"cannot read precedents from {str(path)!r}: {error}", fix=fix) from error
    if isinstance(data, dict):
        data = data.get("precedents")
    try:
        precedents = tuple(_LIST.validate_python(data))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the list"
        raise InputError(f"{str(path)!r}: precedent {where!r}: {first['msg']}", fix=fix) from error
    ids = [precedent.id for precedent in precedents]
    repeated = sorted({key for key in ids if ids.count(key) > 1})
    if repeated:
        raise InputError(f"{str(path)!r}: duplicate precedent id {repeated[0]!r}", fix="give each precedent its own id")
    if not precedents:
        raise InputError(f"{str(path)!r} holds no precedent", fix=fix)
    return precedents
