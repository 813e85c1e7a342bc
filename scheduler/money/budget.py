"""What a call, a run or a tenant may spend: limits by dimension, each a hard stop."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from finllm.errors import InputError

Dimension = Literal["seconds", "tokens", "deep_tokens", "joules", "grams", "usd"]

DIMENSIONS: tuple[Dimension, ...] = ("seconds", "tokens", "deep_tokens", "joules", "grams", "usd")

SAID: dict[Dimension, str] = {
    "seconds": "seconds", "tokens": "tokens", "deep_tokens": "deep tokens", "joules": "joules", "grams": "gCO₂e",
    "usd": "USD",
}  # fmt: skip
"""How a message names each dimension."""


@dataclass(frozen=True)
class Budget:
    """Wall-clock s, tokens (prompt and output) and those of the deep tier, J, gCO₂e, USD. None: no limit; 0: nothing.

    Errors: InputError for a negative limit, or one that is no number.
    """

    seconds: float | None = None
    tokens: int | None = None
    deep_tokens: int | None = None
    joules: float | None = None
    grams: float | None = None
    usd: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            limit = getattr(self, field.name)
            if limit is not None and not (math.isfinite(limit) and limit >= 0):
                raise InputError(
                    f"a budget of {limit:g} {SAID[field.name]} is impossible",  # type: ignore[index]
                    fix="give a number above 0, or leave it out for no limit",
                )

    def limit(self, dimension: Dimension) -> float:
        """The limit in a dimension; infinity where there is none."""
        limit = getattr(self, dimension)
        return math.inf if limit is None else float(limit)
