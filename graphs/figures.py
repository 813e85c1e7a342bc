"""A number as a report shows it, with the row of evidence that holds it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from finllm.tools.evidence import Unit, show


class Figure(BaseModel):
    """A number as the report shows it: the value of evidence row `evidence`, in its unit."""

    model_config = ConfigDict(frozen=True)

    value: float
    unit: Unit
    evidence: str

    def __str__(self) -> str:
        return show(self.value, self.unit)

    @property
    def cited(self) -> str:
        """The number with its evidence id."""
        return f"{self} [{self.evidence}]"
