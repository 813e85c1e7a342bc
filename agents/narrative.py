"""narrative: reads the event and its sources, and says what kind it is and which way each factor moves.

What the model is asked (`Asked`) is not all that is read: where a channel reader is at hand, its word is pooled with
the model's (see `pooling`), and the `Reading` is what comes of both.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, create_model, field_validator, model_validator

from finllm.agents.agent import Agent
from finllm.scheduler.decoding.template import Unless
from finllm.tools.data.factors import Direction, FactorId

Kind = Literal[
    "war", "blockade", "policy", "run", "default", "pandemic", "outage", "tariffs", "ceasefire", "recession", "data",
    "election", "disaster", "accounting", "cyber", "regulation", "strike", "property", "technology", "supply",
    "currency", "fiscal", "none",
]  # fmt: skip
"""What kind of event it is: `policy` is a central bank's, `run` a bank's or fund's, `outage` of market plumbing, `data`
a release, `supply` the producers' decisions, `none` no event that bears on markets."""
NO_EVENT = {"routine": "none"}
"""What the language model's adapter was trained to call a kind, where readings call it otherwise."""
Region = Literal["us", "europe", "asia", "mideast", "global"]
Stance = Literal["hawkish", "dovish", "neutral"]
Severity = Literal["low", "medium", "high", "extreme"]
Horizon = Literal["days", "weeks", "months"]


class FactorCall(BaseModel):
    """Direction of a factor and the size bucket of its move; no direction, no size."""

    model_config = ConfigDict(extra="forbid")

    direction: Direction
    size: Annotated[
        Literal["none", "small", "medium", "large", "extreme"], Unless("direction", value="none", then="none")
    ]

    @model_validator(mode="after")
    def _sized_if_moving(self) -> FactorCall:
        if (self.direction == "none") != (self.size == "none"):
            raise ValueError("'size' is 'none' exactly when 'direction' is 'none'")
        return self


class Asked(BaseModel):
    """All that the language model may be asked of an event, with the kinds that its adapter was trained on."""

    model_config = ConfigDict(extra="forbid")

    event: Literal[
        "war", "blockade", "policy", "run", "default", "pandemic", "outage", "tariffs", "ceasefire", "routine"
    ]
    region: Region
    stance: Stance
    severity: Severity
    horizon: Horizon
    factors: dict[FactorId, FactorCall]
    because: tuple[str, ...]


class Reading(BaseModel):
    """The event as read, by everybody who was heard."""

    model_config = ConfigDict(extra="forbid")

    event: Kind
    region: Region
    stance: Stance
    severity: Severity
    horizon: Horizon
    factors: dict[FactorId, FactorCall]
    because: tuple[str, ...]

    @field_validator("event", mode="before")
    @classmethod
    def _named_as_now(cls, value: Any) -> Any:
        return NO_EVENT.get(value, value) if isinstance(value, str) else value

    def event_fields(self) -> dict[str, str]:
        """What is read of the event as a whole, by field."""
        return {"event": self.event, "region": self.region, "stance": self.stance, "severity": self.severity,
                "horizon": self.horizon}  # fmt: skip


EVENT_FIELDS = ("event", "region", "stance", "severity", "horizon")
NARRATIVE = Agent("narrative", Asked, floor="pruned", value=3.0, votes=True)


def asking(fields: Collection[str]) -> Agent[BaseModel]:
    """The agent as it is asked these fields of `Asked` alone, in their order; what it cites is always asked."""
    wanted = tuple(name for name in Asked.model_fields if name in fields or name == "because")
    return replace(NARRATIVE, judgement=_part(wanted))  # type: ignore[arg-type]


@cache
def _part(names: tuple[str, ...]) -> type[BaseModel]:
    if names == tuple(Asked.model_fields):
        return Asked
    fields: dict[str, Any] = {name: (Asked.model_fields[name].annotation, ...) for name in names}
    return create_model("Asked", __config__=ConfigDict(extra="forbid"), **fields)
