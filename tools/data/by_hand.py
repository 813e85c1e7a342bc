"""What a person decided about a scenario, each with who and why: readings, disputes, trades, sources left out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from finllm.tools.data.factors import Direction, Size

Reason = Annotated[str, Field(min_length=1, max_length=500)]
Person = Annotated[str, Field(min_length=1, max_length=100)]
FactorName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]


class Strict(BaseModel):
    """A frozen model of a file: what it does not know is an error. Fields in `LATER` are written only where set."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Told(Strict):
    """What has a reason: `because`, and `by` whom. Neither is written where there is none."""

    because: Reason | None = None
    by: Person | None = None

    @model_serializer(mode="wrap")
    def _without_what_there_is_not(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(dump(self), because=None, by=None, use="on")

    @property
    def why(self) -> str:
        """Who decided it and why, in words."""
        return f"{self.by or 'a person'}: {self.because or 'no reason given'}"


class Decided(Strict):
    """What a person decided, which has a reason in any case."""

    because: Reason
    by: Person

    @property
    def why(self) -> str:
        """Who decided it and why, in words."""
        return f"{self.by}: {self.because}"


def without_defaults(dumped: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """A dump without the fields that came later and hold what they hold where nobody sets them."""
    return {name: value for name, value in dumped.items() if name not in defaults or value != defaults[name]}


class ReadEntry(Decided):
    """A factor that a person reads otherwise than the agents: a human judgement, which moves the book as its size."""

    factor: FactorName
    direction: Direction
    size: Size | Literal["none"] = "medium"

    @model_validator(mode="before")
    @classmethod
    def _unmoved_has_no_size(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {**value, "size": "none"} if value.get("direction") == "none" else value


class DisputeEntry(Decided):
    """What a person says of a read factor: its shock is accepted against the checks, or withheld in spite of them."""

    factor: FactorName
    answer: Literal["accept", "withhold"]


class TradeEntry(Told):
    """So much of a position or of a share of the market more, negative sold; the book is stressed with it."""

    id: str = Field(min_length=1, max_length=200)
    quantity: float = Field(allow_inf_nan=False)


class Lineage(Strict):
    """Where a scenario was made: a session's version, whose run is on record, and who saved it."""

    session: str
    version: int
    run: str
    by: str
