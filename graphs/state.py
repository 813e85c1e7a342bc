"""The state of a stress-test run: typed for whoever reads it, JSON for the checkpoint, so that it holds only data.

LangGraph keeps `Channels`. Before a node they are read as the state that the node asks for (`AfterIntake`, …), and
the `Update` that it returns is written back as JSON.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, JsonValue

from finllm.agents.agent import Agent, J_co
from finllm.agents.narrative import NARRATIVE, Reading
from finllm.graphs.report import Report
from finllm.graphs.rows import (
    BreachRow,
    ClosestEvent,
    HeardSource,
    HeldToMarket,
    Json,
    Measured,
    OpinionRow,
    PastEvent,
    SecondAnswer,
    StateRow,
    StressRow,
    ThroughChannels,
    WantedShock,
)
from finllm.guardrails.crossmodal import FactorCheck, SecondCheck
from finllm.guardrails.rules import Finding
from finllm.scheduler.placement.task import canonical
from finllm.tools.data.books.book import Book
from finllm.tools.evidence import Evidence, EvidenceTable
from finllm.tools.pnl.limits import Unchecked

Verdict = Literal["aligned", "diverged", "unresolved"]
Answer = Literal["withhold", "accept"]
"""What a person says of the factors in dispute."""


UNREAD = "unread"
"""The kind of a run whose event nobody could read."""


class Channels(TypedDict):
    """What LangGraph carries from node to node, as JSON. Opinions are appended, so that nodes side by side do not
    overwrite each other; every other key is replaced."""

    evidence: list[Json]
    sources: list[Json]
    precedents: list[Json]
    second: list[Json]
    through: Json
    market: list[Json]
    book: Json
    passes: int
    opinions: Annotated[list[JsonValue], operator.add]
    checks: list[Json]
    second_checks: list[Json]
    verdict: str
    held: Json
    answer: str
    shocks: list[Json]
    stress: Json
    analogue: Json | None
    breaches: list[Json]
    unchecked: list[Json]
    findings: list[Json]
    report: Json


@dataclass(frozen=True)
class JudgedOpinion(Generic[J_co]):
    """An opinion that did not abstain, with its judgement."""

    opinion: OpinionRow
    judgement: J_co


class Start(StateRow):
    """Before intake: nothing but the request is known."""


class AfterIntake(StateRow):
    """The rows of the evidence table; the sources; what the market, the book and the past say; the opinions so far.

    `second`: the second opinion, field by field. `held`: the reading against the market, None before the validator has
    looked, and in a run of before this was done. `through`: the channels that the event opens, None where no reader of
    them was at hand. `passes`: how often the validator has looked. A source's verdict is
    the checks'; the sanity-checker adds its own beside it.
    """

    LATER = frozenset({"held", "through"})

    evidence: tuple[Evidence, ...]
    sources: tuple[HeardSource, ...]
    precedents: tuple[PastEvent, ...]
    second: tuple[SecondAnswer, ...] = ()
    through: ThroughChannels | None = None
    market: tuple[Measured, ...]
    book: Book
    passes: int = 0
    held: HeldToMarket | None = None
    opinions: tuple[OpinionRow, ...] = ()

    def table(self) -> EvidenceTable:
        """The evidence as a table of its own, to which rows may be added."""
        return EvidenceTable(self.evidence)

    def latest(self, agent: Agent) -> OpinionRow | None:
        """The newest opinion of an agent, abstained or not. The sanity-checker has one per source."""
        return next((one for one in reversed(self.opinions) if one.agent == agent.role), None)

    def said(self, agent: Agent[J_co]) -> J_co | None:
        """What an agent judged last; None where it was not asked, or abstained then."""
        opinion = self.latest(agent)
        judgement = opinion.judgement if opinion else None
        return judgement if isinstance(judgement, agent.judgement) else None

    def judged(self, agent: Agent[J_co]) -> list[JudgedOpinion[J_co]]:
        """Every opinion of an agent that did not abstain, oldest first."""
        return [
            JudgedOpinion(one, one.judgement)
            for one in self.opinions
            if one.agent == agent.role and isinstance(one.judgement, agent.judgement)
        ]

    @property
    def kind(self) -> str:
        """The kind of run that the agents' values are kept by: the event as read."""
        return self.reading.judgement.event if self.reading else UNREAD

    @property
    def reading(self) -> JudgedOpinion[Reading] | None:
        """The event as read: by the deep re-reading where there was one that did not abstain."""
        readings = self.readings
        return readings[-1] if readings else None

    @property
    def readings(self) -> list[JudgedOpinion[Reading]]:
        """Every reading that did not abstain, oldest first."""
        return [JudgedOpinion(one, one.judgement) for one in self.opinions
                if one.agent == NARRATIVE.role and isinstance(one.judgement, Reading)]  # fmt: skip


class AfterValidator(AfterIntake):
    """`checks`: the reading against words and precedents; `second_checks`: against the second opinion.

    `verdict` is over these checks. `answer`: a person's, where one was asked.
    """

    LATER = frozenset({"answer", "held", "through"})

    checks: tuple[FactorCheck, ...]
    second_checks: tuple[SecondCheck, ...] = ()
    verdict: Verdict
    answer: Answer | None = None


class AfterStress(AfterValidator):
    """`shocks`: those that were wanted, with what was refused; `analogue`: the closest past event."""

    shocks: tuple[WantedShock, ...]
    stress: StressRow
    analogue: ClosestEvent | None = None


class AfterCompliance(AfterStress):
    """`unchecked`: the limits that could not be checked."""

    breaches: tuple[BreachRow, ...]
    unchecked: tuple[Unchecked, ...] = ()
    findings: tuple[Finding, ...]


class Finished(AfterCompliance):
    report: Report


class Update(BaseModel):
    """What a node found: the fields that it gives are written, and no others. `opinions` are added to those before."""

    model_config = ConfigDict(frozen=True)

    evidence: tuple[Evidence, ...] = ()
    sources: tuple[HeardSource, ...] = ()
    precedents: tuple[PastEvent, ...] = ()
    second: tuple[SecondAnswer, ...] = ()
    through: ThroughChannels | None = None
    market: tuple[Measured, ...] = ()
    book: Book | None = None
    passes: int = 0
    opinions: tuple[OpinionRow, ...] = ()
    checks: tuple[FactorCheck, ...] = ()
    second_checks: tuple[SecondCheck, ...] = ()
    verdict: Verdict = "aligned"
    held: HeldToMarket | None = None
    answer: Answer = "withhold"
    shocks: tuple[WantedShock, ...] = ()
    stress: StressRow | None = None
    analogue: ClosestEvent | None = None
    breaches: tuple[BreachRow, ...] = ()
    unchecked: tuple[Unchecked, ...] = ()
    findings: tuple[Finding, ...] = ()
    report: Report | None = None

    def to_json(self) -> Json:
        """The fields that were given. What a run spent is no part of its state, which is the same computed again."""
        return self.model_dump(mode="json", include=self.model_fields_set, exclude={"report": {"spent"}})


def after(state: Mapping[str, JsonValue], out: Json) -> Json:
    """The channels once a node has returned `out`: opinions appended, every other key replaced."""
    merged = {**state, **out}
    if "opinions" in out:
        merged["opinions"] = [*_rows(state.get("opinions")), *_rows(out["opinions"])]
    return merged


def changed(before: Json, after: Json) -> Json:
    """What a node found: the channels that it wrote, and of the opinions those that it added."""
    found = {name: value for name, value in after.items() if name not in before or before[name] != value}
    if "opinions" in found:
        found["opinions"] = [*_rows(found["opinions"])[len(_rows(before.get("opinions"))) :]]
    return found


def digests_of(channels: Json) -> dict[str, list[str]]:
    """Hex sha256 of what each channel holds; of the opinions, one for each."""
    return {
        name: [hashlib.sha256(canonical({name: one})).hexdigest()
               for one in (_rows(value) if name == "opinions" else [value])]
        for name, value in channels.items()
    }  # fmt: skip


def _rows(value: JsonValue) -> Sequence[JsonValue]:
    return value if isinstance(value, list) else []


def state_hash(state: Mapping[str, JsonValue]) -> str:
    """Hex sha256 of a state as canonical JSON."""
    return hashlib.sha256(canonical(dict(state))).hexdigest()
