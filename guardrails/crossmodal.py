"""Cross-modal checks: what the narrative agent read, held against the sources' own words and the precedents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.tools.factors import FACTOR_IDS, Direction, FactorId

Heard = Literal["up", "down", "none", "mixed"]
Support = Literal["supported", "contradicted", "unsupported", "missed", "silent"]


class FactorCheck(BaseModel):
    """One factor: the agent's direction beside the sources' words and the precedents' moves, and what follows."""

    model_config = ConfigDict(frozen=True)

    factor: FactorId
    read: Direction
    words: Heard
    precedents: Heard
    support: Support

    @property
    def diverged(self) -> bool:
        return self.support in ("contradicted", "missed")


def check_factors(
    read: Mapping[FactorId, Direction], words: Mapping[FactorId, Heard], precedents: Mapping[FactorId, Heard]
) -> list[FactorCheck]:
    """Check every factor. The words of the sources decide; where they are silent or mixed, the precedents do.

    `supported`: the same direction. `contradicted`: the opposite one. `unsupported`: read, but nothing speaks of it.
    `missed`: read as unmoved, though the words speak of a move. `silent`: unmoved, and nothing says otherwise.
    """
    return [
        FactorCheck(
            factor=factor,
            read=read[factor],
            words=words.get(factor, "none"),
            precedents=precedents.get(factor, "none"),
            support=_support(read[factor], words.get(factor, "none"), precedents.get(factor, "none")),
        )
        for factor in FACTOR_IDS
    ]


def _support(read: Direction, words: Heard, precedents: Heard) -> Support:
    decisive = words if words in ("up", "down") else precedents
    if read == "none":
        return "missed" if words in ("up", "down") else "silent"
    if decisive == read:
        return "supported"
    return "contradicted" if decisive in ("up", "down") else "unsupported"


def majority(directions: list[Direction]) -> Heard:
    """The direction that most say; `mixed` where up and down tie, `none` where neither is said."""
    up, down = directions.count("up"), directions.count("down")
    if up == down:
        return "mixed" if up else "none"
    return "up" if up > down else "down"
