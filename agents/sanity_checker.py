"""sanity-checker: reads one source with its provenance and says whether it may be believed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.agents.agent import Agent


class SourceCheck(BaseModel):
    model_config = ConfigDict(extra="forbid")

    verdict: Literal["credible", "doubtful", "contradicted", "coordinated", "injected"]
    because: tuple[str, ...]


SANITY_CHECKER = Agent("sanity-checker", SourceCheck, floor="Q4_0", value=2.0, picks=1)
