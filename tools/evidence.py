"""The evidence table: every number or quoted span that a report may use, with where it came from."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from finllm.tools.data.currencies import KNOWN

Money = Annotated[str, Field(pattern=r"^[a-z]{3}$")]
"""An amount's currency: its code in small letters."""
Measure = Literal["return", "bp", "points", "usd", "sigma", "ratio", "years", "probability", "days", "count", "text"]
Unit = Measure | Money
"""Units of a value. `return`: decimal return (0.01 is 1 %); `bp`: basis points; `points`: index or volatility points;
`usd`, `eur`, …: money; `sigma`: standard deviations; `ratio`, `probability`: pure numbers; `text`: the value is a span.
"""


class Source(BaseModel):
    """Where a value was read: a uri, the sha256 of what was read, and a pointer into it (row, date, characters)."""

    model_config = ConfigDict(frozen=True)

    uri: str
    sha256: str
    pointer: str


class Evidence(BaseModel):
    """One row. It has a `source` (observed) or a `formula` over other rows (derived), or both."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(pattern=r"^E[1-9][0-9]*$")
    value: Annotated[float, Field(allow_inf_nan=False)] | str
    unit: Unit
    entity: str
    what: str
    period: str
    as_of: dt.date
    source: Source | None = None
    formula: str | None = None

    def model_post_init(self, _context: object) -> None:
        if self.source is None and self.formula is None:
            raise ValueError(f"evidence {self.id!r} has neither a source nor a formula")
        if isinstance(self.value, str) != (self.unit == "text"):
            raise ValueError(f"evidence {self.id!r}: a text value has unit 'text' and a number has another")


class EvidenceTable:
    """Rows in the order in which they were added; ids are E1, E2, … without gaps."""

    def __init__(self, rows: Iterable[Evidence] = ()) -> None:
        self._rows: dict[str, Evidence] = {}
        for row in rows:
            if row.id != f"E{len(self._rows) + 1}":
                raise ValueError(f"evidence {row.id!r} is out of order: E{len(self._rows) + 1} was expected")
            self._rows[row.id] = row

    def add(
        self,
        value: float | str,
        unit: Unit,
        *,
        entity: str,
        what: str,
        period: str,
        as_of: dt.date,
        source: Source | None = None,
        formula: str | None = None,
    ) -> str:
        """Append a row and return its id. Either `source` or `formula` is required."""
        row = Evidence(
            id=f"E{len(self._rows) + 1}",
            value=value,
            unit=unit,
            entity=entity,
            what=what,
            period=period,
            as_of=as_of,
            source=source,
            formula=formula,
        )
        self._rows[row.id] = row
        return row.id

    def __getitem__(self, id: str) -> Evidence:
        return self._rows[id]

    def __contains__(self, id: object) -> bool:
        return id in self._rows

    def __iter__(self) -> Iterator[Evidence]:
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def to_json(self) -> list[dict[str, object]]:
        return [row.model_dump(mode="json") for row in self]

    @classmethod
    def from_json(cls, rows: Iterable[dict[str, object]]) -> EvidenceTable:
        return cls(Evidence.model_validate(row) for row in rows)


def sha256_of(data: bytes | str) -> str:
    """Hex sha256 of bytes, or of a text as UTF-8."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def money(currency: str) -> Unit:
    """The unit of an amount in a currency: `eur` for EUR."""
    return currency.lower()


def is_money(unit: Unit) -> bool:
    """Whether a unit is a currency."""
    return unit.upper() in KNOWN


def show(value: float | str, unit: Unit) -> str:
    """A value as a person reads it: `-39.89 %`, `75 bp`, `-1,234,567 USD`, `2.1 σ`."""
    if isinstance(value, str):
        return value
    match unit:
        case "return":
            return f"{value * 100:+.2f} %"
        case "bp":
            return f"{value:+.0f} bp"
        case "points":
            return f"{value:+.2f} points"
        case "sigma":
            return f"{value:+.1f} σ"
        case "probability":
            return f"{value * 100:.0f} %"
        case "years":
            return f"{value:.1f} years"
        case "days":
            return f"{value:.0f} days"
        case "count":
            return f"{value:.0f}"
        case _:
            return f"{value:+,.0f} {unit.upper()}" if is_money(unit) else f"{value:.3g}"
