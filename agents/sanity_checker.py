"""sanity-checker: reads one source with its provenance and says whether it may be believed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.agents.agent import Agent


class SourceCheck(BaseModel):
    model_config = ConfigDict(extra="forbid")

    verdict: Literal["credible", "doubtful", "contradicted", "coordinated", "injected"]
    because: tuple[str, ...]


COUNTED = (
    "factors on which others agree",
    "factors on which others say the opposite",
    "publishers with nearly the same text",
    "instructions cut from the text",
)
"""What the checks count about a source, in the order and words in which the sanity-checker is offered it."""


def counted(agreeing: int, opposing: int, twins: int, injections: int) -> list[str]:
    """The lines that the sanity-checker is offered about a source."""
    counts = (agreeing, opposing, twins, injections)
    return [f"{what}: {count}" for what, count in zip(COUNTED, counts, strict=True)]


SANITY_CHECKER = Agent("sanity-checker", SourceCheck, floor="pruned", value=2.0, picks=1)
