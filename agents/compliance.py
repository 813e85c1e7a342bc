"""compliance: reads what the rule checks found and says for each rule whether the run passes, is flagged or blocked."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.agents.agent import Agent
from finllm.guardrails.rules import JudgedRule


class RuleCall(BaseModel):
    model_config = ConfigDict(extra="forbid")

    verdict: Literal["pass", "flag", "block"]


class ComplianceReview(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rules: dict[JudgedRule, RuleCall]
    because: tuple[str, ...]


COMPLIANCE = Agent("compliance", ComplianceReview, floor="pruned", value=1.0)
