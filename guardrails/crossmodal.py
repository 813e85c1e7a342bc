"""Compares what the narrative agent read with the sources' words, with precedents and with the second opinion."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from finllm.tools.data.factors import FACTOR_IDS, Direction, FactorId

Heard = Literal["up", "down", "none", "mixed", "unmoved"]
"""`none`: nothing is said of it. `unmoved`: it is said to stand still."""
Support = Literal["supported", "contradicted", "unsupported", "missed", "silent"]


SURE = 0.7
"""From this probability on the second opinion's differing verdict is a divergence, not a doubt."""
SURER = 0.1
"""By so much its probability must be above the reading's own to count before that."""
_STANDS_ASIDE = {"none", "neutral"}


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
    read: Mapping[FactorId, Direction], words: Mapping[FactorId, Heard], precedents: Mapping[FactorId, Heard],
    explained: Collection[str] = (),
) -> list[FactorCheck]:  # fmt: skip
    """Check every factor. The words of the sources decide; where they are silent or mixed, the precedents do.
    Precedents do not move what the sources say stands still.

    `supported`: the same direction. `contradicted`: the opposite one. `unsupported`: read, but nothing speaks of it.
    `missed`: read as unmoved, though the words speak of a move. `silent`: unmoved, and nothing says otherwise. A factor
    of `explained`, for which a channel of the reviewed table speaks, is supported where nobody else says anything.
    """
    return [
        FactorCheck(
            factor=factor,
            read=read[factor],
            words=words.get(factor, "none"),
            precedents=precedents.get(factor, "none"),
            support=_support(read[factor], words.get(factor, "none"), precedents.get(factor, "none"),
                             factor in explained),
        )
        for factor in FACTOR_IDS
    ]  # fmt: skip


class SecondCheck(BaseModel):
    """One field of the reading beside the second opinion's value, whose `probability` is that value's.

    `own`: the reading's probability of what it read.
    """

    model_config = ConfigDict(frozen=True)

    field: str
    read: str
    second: str
    probability: float
    own: float = 1.0

    @property
    def diverged(self) -> bool:
        """Whether the second opinion names another event, or the opposite, and is sure or plainly surer."""
        opposite = self.field == "event" or _STANDS_ASIDE.isdisjoint((self.read, self.second))
        return self.read != self.second and opposite and self.probability >= min(SURE, self.own + SURER)


def check_second(
    read: Mapping[str, str], second: Mapping[str, tuple[str, float]], own: Mapping[str, float]
) -> list[SecondCheck]:
    """Each field that both judged, in the second opinion's order: `second` gives its value with the probability, `own`
    the reading's of what it read.
    """
    return [
        SecondCheck(field=field, read=read[field], second=value, probability=probability, own=own.get(field, 1.0))
        for field, (value, probability) in second.items()
        if field in read
    ]


def _support(read: Direction, words: Heard, precedents: Heard, explained: bool) -> Support:
    decisive = words if words in ("up", "down") else precedents
    if read == "none":
        return "missed" if words in ("up", "down") else "silent"
    if words == "unmoved":
        return "contradicted"
    if decisive == read:
        return "supported"
    if decisive in ("up", "down"):
        return "contradicted"
    return "supported" if explained else "unsupported"


def majority(directions: list[Direction]) -> Heard:
    """The direction that most say; `mixed` where up and down tie, `none` where neither is said."""
    up, down = directions.count("up"), directions.count("down")
    if up == down:
        return "mixed" if up else "none"
    return "up" if up > down else "down"
