"""The reviewed sizes of moves that stand in where a factor has no history, read from `size_table.yaml`."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from finllm.tools.data.factors import MoveUnit, Size, factor_table

SIZE_TABLE_PATH = Path(__file__).with_name("size_table.yaml")


class SizeRow(BaseModel):
    """Reviewed sizes of one factor over the table's horizon, in its own unit (return, bp or points), all positive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: MoveUnit
    sigma: float = Field(gt=0)
    small: float = Field(gt=0)
    medium: float = Field(gt=0)
    large: float = Field(gt=0)
    extreme: float = Field(gt=0)
    basis: str


class Review(BaseModel):
    """Who reviewed the sizes, and when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    on: dt.date


class SizeTable(BaseModel):
    """The reviewed sizes that stand in where a factor has no history; `horizon` in trading days."""

    model_config = ConfigDict(frozen=True)

    version: int | str
    reviewed: Review
    horizon: int = Field(gt=0)
    factors: dict[str, SizeRow]

    @model_validator(mode="after")
    def _of_known_factors_in_their_units(self) -> SizeTable:
        known = factor_table()
        wrong = [name for name, row in self.factors.items() if name not in known or row.unit != known[name].unit]
        if wrong:
            raise ValueError(f"unknown, or not in the factor's unit: {', '.join(wrong)}")
        return self


@dataclass(frozen=True)
class Reviewed:
    """A factor's reviewed sizes scaled to a horizon: σ and the sizes by name in its own unit, and where from."""

    sigma: float
    sizes: dict[Size, float]
    words: str


@cache
def size_table() -> SizeTable:
    """The reviewed table that ships with the package (`size_table.yaml`)."""
    text = SIZE_TABLE_PATH.read_text(encoding="utf-8")
    return SizeTable.model_validate(yaml.load(text, Loader=yaml.CBaseLoader))  # strings only: the key `on` is no bool


def reviewed(factor: str, horizon: int) -> Reviewed | None:
    """The factor's row, scaled by √(horizon / table horizon); None for a factor that has none."""
    table = size_table()
    row = table.factors.get(factor)
    if row is None:
        return None
    scale = math.sqrt(horizon / table.horizon)
    words = f"size table {table.version}, reviewed {table.reviewed.on}, {table.horizon} days × {scale:.2f}: {row.basis}"
    sizes: dict[Size, float] = {"small": row.small, "medium": row.medium, "large": row.large, "extreme": row.extreme}
    return Reviewed(row.sigma * scale, {name: amount * scale for name, amount in sizes.items()}, words)
