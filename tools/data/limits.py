"""Limits: how much a book may lose, by factor, sector and position, and how much of it must be stressed; from YAML."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from finllm.tools.data.yaml_files import read_yaml

LossCut = Literal["loss_by_factor", "loss_by_sector", "loss_by_position"]
LOSS_CUTS: tuple[LossCut, ...] = ("loss_by_factor", "loss_by_sector", "loss_by_position")
EACH = "each"
"""The name that stands for every one that has no limit of its own."""
SHOWN = 12
"""Names that a message lists where none is near."""
VERSION = 1
"""The version of the file's form that is understood."""

Usd = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=False)]


class Limits(BaseModel):
    """Largest losses allowed, positive, in `currency` (unset: that of the results).

    The key `each` stands for every name that has no limit of its own. `coverage`: the least share of the book that must
    be stressed. Names are matched whatever their case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: int | str
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    loss_by_factor: dict[str, Usd] = {}
    loss_by_sector: dict[str, Usd] = {}
    loss_by_position: dict[str, Usd] = {}
    total_loss: Usd | None = None
    var_975_1d: Usd | None = None
    es_975_1d: Usd | None = None
    coverage: Share | None = None
    restricted: list[str] = []

    @field_validator("version", mode="before")
    @classmethod
    def _number_or_word(cls, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(f"{value!r} is no version; write {VERSION}")
        return value

    @property
    def allow_all(self) -> bool:
        """Whether there is nothing here that a result could be held against."""
        return not (self.losses or any(one is not None for one in (self.total_loss, self.var_975_1d, self.es_975_1d,
                                                                   self.coverage)))  # fmt: skip

    @property
    def losses(self) -> dict[LossCut, dict[str, float]]:
        """The limits by factor, sector and position that are not empty."""
        return {cut: held for cut in LOSS_CUTS if (held := getattr(self, cut))}

    def holds(self, *names: str | None) -> bool:
        """Whether one of these names is restricted."""
        return any(name is not None and name.casefold() in self._forbidden for name in names)

    @cached_property
    def _forbidden(self) -> frozenset[str]:
        return frozenset(one.casefold() for one in self.restricted)


def load_limits(path: Path, factors: Collection[str] | None = None) -> Limits:
    """Read a YAML file of limits. `factors`: the names that a limit by factor may have; None where they are not known.

    Errors: InputError naming file, line and field.
    """

    def further(limits: Limits) -> Mapping[tuple[int | str, ...], str]:
        return _wrong_version(limits) | _repeated(limits) | (_unknown(limits, factors) if factors is not None else {})

    return read_yaml(
        path, Limits, "limits", needs="limits are a mapping with 'version' and the limits",
        example="name a YAML file of limits, such as 'version: 1' and 'loss_by_position: {each: 40000}'", check=further,
    )  # fmt: skip


def _wrong_version(limits: Limits) -> dict[tuple[int | str, ...], str]:
    if str(limits.version) == str(VERSION):
        return {}
    return {("version",): f"{limits.version!r} is not a version that this finllm reads; write {VERSION}"}


def _repeated(limits: Limits) -> dict[tuple[int | str, ...], str]:
    """Two names of one kind that differ in case alone: which of the limits holds would be chance."""
    found: dict[tuple[int | str, ...], str] = {}
    for cut, held in limits.losses.items():
        seen: dict[str, str] = {}
        for name in held:
            first = seen.setdefault(name.casefold(), name)
            if first != name:
                found[cut, name] = f"is the same name as {first!r}, as case is ignored; give one limit"
    return found


def _unknown(limits: Limits, factors: Collection[str]) -> dict[tuple[int | str, ...], str]:
    known = {one.casefold(): one for one in factors}
    found: dict[tuple[int | str, ...], str] = {}
    for name in limits.loss_by_factor:
        if name.casefold() in known or name == EACH:
            continue
        close = difflib.get_close_matches(name.upper(), list(factors), n=2, cutoff=0.5)
        listed = f"factors are {', '.join(list(factors)[:SHOWN])}"
        meant = f"did you mean {' or '.join(map(repr, close))}?" if close else listed
        found["loss_by_factor", name] = f"{name!r} is no factor; {meant}"
    return found
