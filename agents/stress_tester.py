"""stress-tester: picks the closest historical analogue and says how plausible the shocks are and which to refuse."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.agents.agent import Agent


class StressChoice(BaseModel):
    """`closest` and `refuse` cite the precedents and shocks that were offered."""

    model_config = ConfigDict(extra="forbid")

    plausibility: Literal["plausible", "stretched", "implausible"]
    closest: tuple[str, ...]
    refuse: tuple[str, ...]


STRESS_TESTER = Agent("stress-tester", StressChoice, floor="pruned", value=2.0, picks=1)
