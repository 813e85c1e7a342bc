"""narrative: reads the event and its sources, and says what kind it is and which way each factor moves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from finllm.agents.agent import Agent
from finllm.scheduler.decoding.template import Unless
from finllm.tools.data.factors import Direction, FactorId


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


class Reading(BaseModel):
    """The event as read. `event`: `policy` is a central bank's, `run` a bank's or fund's, `outage` market plumbing."""

    model_config = ConfigDict(extra="forbid")

    event: Literal[
        "war", "blockade", "policy", "run", "default", "pandemic", "outage", "tariffs", "ceasefire", "routine"
    ]
    region: Literal["us", "europe", "asia", "mideast", "global"]
    stance: Literal["hawkish", "dovish", "neutral"]
    severity: Literal["low", "medium", "high", "extreme"]
    horizon: Literal["days", "weeks", "months"]
    factors: dict[FactorId, FactorCall]
    because: tuple[str, ...]

    def event_fields(self) -> dict[str, str]:
        """What is read of the event as a whole, by field."""
        return {"event": self.event, "region": self.region, "stance": self.stance, "severity": self.severity,
                "horizon": self.horizon}  # fmt: skip


NARRATIVE = Agent("narrative", Reading, floor="pruned", value=3.0, votes=True)
