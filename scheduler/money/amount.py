"""A quantity of joules, grams or dollars that keeps its provenance (measured, modelled, table) through every sum."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from finllm.errors import InputError

JOULES_PER_KWH = 3.6e6

Provenance = Literal["measured", "modelled", "table"]
"""`measured`: a counter read it. `modelled`: computed from what was measured. `table`: a published or given figure."""

IntensityKind = Literal["average", "marginal"]
"""`average`: all of a grid's generation over all of its load. `marginal`: of the plant that answers one more kWh."""

_WEAKER: tuple[Provenance, ...] = ("measured", "modelled", "table")


def weakest(*parts: Provenance) -> Provenance:
    """What a figure may call itself that is made of figures of these provenances; `measured` of none."""
    return _WEAKER[max((_WEAKER.index(part) for part in parts), default=0)]


@dataclass(frozen=True)
class Amount:
    """`value` in the unit of the field that holds it. `basis`: where it comes from, in words."""

    value: float
    provenance: Provenance
    basis: str

    def __add__(self, other: Amount) -> Amount:
        """The sum is as good as its weakest part, and names what all parts are based on."""
        return Amount(self.value + other.value, weakest(self.provenance, other.provenance), _both(self, other))

    def times(self, factor: float, provenance: Provenance, basis: str) -> Amount:
        """The amount by a factor of its own provenance, such as a price."""
        return Amount(self.value * factor, weakest(self.provenance, provenance), f"{self.basis}; {basis}")


@dataclass(frozen=True)
class Grams(Amount):
    """gCO₂e by one kind of grid intensity. Errors of `+`: InputError for grams of the other kind."""

    kind: IntensityKind

    def __add__(self, other: Amount) -> Grams:
        if not isinstance(other, Grams) or other.kind != self.kind:
            theirs = other.kind if isinstance(other, Grams) else "no"
            raise InputError(
                f"grams by {self.kind} and by {theirs} grid intensity have no sum",
                fix="use one kind: set FINLLM_CARBON_KIND as it was for the other figures",
            )
        provenance = weakest(self.provenance, other.provenance)
        return Grams(self.value + other.value, provenance, _both(self, other), self.kind)


def total(amounts: Iterable[Amount | None]) -> Amount | None:
    """The sum of those that are known; None where none is."""
    summed: Amount | None = None
    for one in amounts:
        if one is not None:
            summed = one if summed is None else summed + one
    return summed


def grams_total(amounts: Iterable[Grams | None]) -> Grams | None:
    """As `total`. Errors: InputError for grams of two kinds."""
    summed: Grams | None = None
    for one in amounts:
        if one is not None:
            summed = one if summed is None else summed + one
    return summed


def checked_amount(value: float, what: str, fix: str) -> float:
    """`value`, where it is a number from 0 up. Errors: InputError for a negative or endless one, or none at all."""
    if not math.isfinite(value) or value < 0:
        raise InputError(f"{what} is {value:g}", fix=fix)
    return value


def _both(one: Amount, other: Amount) -> str:
    parts = [*one.basis.split(" | "), *other.basis.split(" | ")]
    return " | ".join(dict.fromkeys(part for part in parts if part))
