"""The rows of a run's state: one frozen model per kind of thing that a node finds, read by attribute.

A field that ends in an evidence id holds `E7`, a row of the evidence table, which has the number itself.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from finllm.agents.agent import Opinion
from finllm.agents.narrative import NARRATIVE, Reading
from finllm.agents.pooling import ByChannels
from finllm.agents.roles import AGENTS, EARLIER
from finllm.guardrails.crossmodal import Heard
from finllm.guardrails.provenance import SourceVerdict
from finllm.tools.channels import Opened, with_columns
from finllm.tools.data.factors import Direction, FactorId, Origin
from finllm.tools.forecasts.text_market import AgainstMarket
from finllm.tools.pnl.outcome import EngineResult

Json = dict[str, JsonValue]
_JUDGEMENTS: dict[str, type[BaseModel]] = {agent.role: agent.judgement for agent in AGENTS} | {NARRATIVE.role: Reading}


class StateRow(BaseModel):
    """A frozen row. Fields named in `LATER` are in its JSON only once somebody has set them, be it to None."""

    model_config = ConfigDict(frozen=True)
    LATER: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_what_is_to_come(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        to_come = self.LATER - self.model_fields_set
        return {name: value for name, value in dump(self).items() if name not in to_come}


class HeardSource(StateRow):
    """A source as the agents may read it, and what the checks say of it.

    `published_at`: ISO 8601. `removed`: what was cut from its text, and by which rule. `left_out`: why it is not read;
    then it has no `evidence`. `says`: what its own words say per factor. `provenance`: evidence ids of what was counted
    about it. `hearsay`: its claims that nobody is named for, or that it reads like a rumour. `open`: the checks doubt
    it and are not sure, so that the sanity-checker is asked; None in a run that asked about every source.
    `flagged`: what of it none but the rules could read for instructions, and why. `agent_verdict`: what the
    sanity-checker said, None where it was not asked or abstained. `muted`: who wants it weighed beside the
    others but not read, and why.
    """

    LATER = frozenset({"hearsay", "agent_verdict", "open", "flagged", "muted"})

    id: str
    publisher: str
    published_at: str
    text: str
    removed: tuple[str, ...]
    left_out: str | None
    says: dict[FactorId, Heard]
    verdict: SourceVerdict | Literal["refused"]
    provenance: tuple[str, ...]
    evidence: str | None
    hearsay: tuple[str, ...] = ()
    open: bool | None = None
    flagged: str | None = None
    agent_verdict: SourceVerdict | None = None
    muted: str | None = None


class PastEvent(StateRow):
    """A precedent from the knowledge base. `similarity`: cosine, to the scenario; `line`: as an agent reads it."""

    id: str
    title: str
    start: dt.date
    end: dt.date
    factors: dict[FactorId, Direction]
    similarity: float
    evidence: str
    line: str


class Measured(StateRow):
    """What was measured of a factor's market: `cites` are the evidence ids."""

    factor: FactorId
    cites: tuple[str, ...]


class HeldToMarket(StateRow):
    """The reading held against the market, with the evidence ids of its figures.

    `moves` and `surprises` by `key` of day and factor, `shares` (of a move that came late) by day, `verdicts` by
    factor. `liquidity`: by factor and measure, the row of its value and, where it has one, of how rare it is.
    """

    result: AgainstMarket
    moves: dict[str, str]
    surprises: dict[str, str]
    shares: dict[str, str]
    verdicts: dict[str, str]
    liquidity: dict[str, tuple[str, str | None]] = {}

    @staticmethod
    def key(day: dt.date, factor: str) -> str:
        return f"{day} {factor}"

    @staticmethod
    def measure(factor: str, measure: str) -> str:
        return f"{factor} {measure}"


class ChannelRow(StateRow):
    """A channel that the event and its sources open, all in all: `evidence` is the row of its probability.

    `words`: the sentence that it was read from, `source` whose it is, None where it is the event's own; `others` are
    the further sources that speak of it.
    """

    opened: Opened
    evidence: str
    words: str
    source: str | None = None
    others: tuple[str, ...] = ()


class ThroughChannels(StateRow):
    """The event as the channel reader has it: the channels, and the odds of each field of the event by its values.

    `digest`: of the reader; `columns`: what a user's own factors do by channel, by factor.
    """

    digest: str
    rows: tuple[ChannelRow, ...]
    fields: dict[str, dict[str, float]]
    columns: dict[str, dict[str, int]] = {}

    @property
    def opened(self) -> tuple[Opened, ...]:
        return tuple(row.opened for row in self.rows)

    @property
    def heard(self) -> ByChannels:
        """The same as what is pooled with the language model's word."""
        return ByChannels(self.opened, self.fields, with_columns(self.columns))

    def moving(self, factor: str) -> list[ChannelRow]:
        """The channels that move a factor, the likeliest first."""
        table = with_columns(self.columns)
        return [row for row in self.rows if table[row.opened.channel].moves.get(factor)]


class SecondAnswer(StateRow):
    """The second opinion's value of a field of the reading; its probability is the evidence row."""

    field: str
    value: str
    evidence: str


class OpinionRow(Opinion, StateRow):
    """An agent's opinion, whose judgement is of the type of its role. `about`: the source, where it is of one."""

    LATER = frozenset({"about", "short"})

    judgement: SerializeAsAny[BaseModel] | None
    about: str | None = None

    @field_validator("judgement", mode="before")
    @classmethod
    def _typed(cls, value: object, info: ValidationInfo) -> object:
        if value is None or isinstance(value, BaseModel):
            return value
        role = info.data.get("agent")
        if role not in _JUDGEMENTS:
            raise ValueError(f"no agent {role!r}: one of {', '.join(_JUDGEMENTS)}")
        try:
            return _JUDGEMENTS[role].model_validate(value)
        except ValidationError:
            if role not in EARLIER:
                raise
            return EARLIER[role].model_validate(value)

    def cited(self, field: str) -> tuple[str, ...] | None:
        """The evidence ids in a field of the judgement that cites; None where there is no such field."""
        return getattr(self.judgement, field, None)

    @classmethod
    def of(cls, opinion: Opinion, **about: str) -> OpinionRow:
        known = {name: value for name, value in dict(opinion).items() if name != "short" or value}
        return cls.model_validate({**known, **about})


class WantedShock(StateRow):
    """A shock and whether it is applied: `refused` says why not. `move`, `sigma`: evidence ids.

    `extrapolated`: it is larger than anything its factor's history shows. `implied`: evidence id of the move that the
    other shocks imply for its factor, and `off` of how far it is from that in σ, where there are others.
    """

    LATER = frozenset({"implied", "off"})

    factor: str
    move: str
    sigma: str | None
    origin: Origin
    window: str
    extrapolated: bool
    refused: str | None = None
    implied: str | None = None
    off: str | None = None


class PathStepRow(StateRow):
    """A step of the scenario's path: its `label`, the trading days to it, and the evidence ids of what it adds to the
    P&L and of the P&L from today. `worst`: the result is at this step."""

    label: str
    days: int
    step: str
    total: str
    worst: bool


class StressRow(StateRow):
    """The stress test's `result`, and the evidence id of each of its numbers. `interval`: its lower and upper end.

    `gross_value` is None where the book's value is its gross value too, `total_share` where that is nothing.

    `moved`: what the judgements did to it; None in runs of before they did anything.

    `covered`, `stand_in` and `missing`: shares of the book; `unknown`: how many positions no value is known of; `day`:
    what `as_of` is where it is no day of the data. `path`: the steps of a scenario that has several.
    """

    LATER = frozenset({"gross_value", "interval_level", "interval_method", "interval_parts", "es_975_1d", "covered",
                       "stand_in", "missing", "unknown", "day", "moved", "path"})  # fmt: skip

    book_value: str
    gross_value: str | None = None
    by_position: dict[str, str]
    total: str
    total_share: str | None
    by_factor: dict[str, str]
    by_sector: dict[str, str]
    horizon: str
    interval: tuple[str, str] | None
    interval_level: str | None = None
    interval_method: str | None = None
    interval_parts: dict[str, str] = {}
    var_975_1d: str | None
    es_975_1d: str | None = None
    covered: str | None = None
    stand_in: str | None = None
    missing: str | None = None
    unknown: str | None = None
    day: str | None = None
    path: tuple[PathStepRow, ...] = ()
    notes: tuple[str, ...]
    moved: MovedBy | None = None
    result: EngineResult


class ClosestEvent(StateRow):
    """The closest past event; `total` is the evidence id of the P&L were it to repeat, or `why` there is none.

    `how` says who or what found it the closest.
    """

    LATER = frozenset({"how"})

    id: str
    title: str
    start: dt.date
    end: dt.date
    evidence: str
    total: str | None = None
    why: str | None = None
    how: str | None = None


class MovedBy(StateRow):
    """What the judgements did to the numbers, with evidence ids.

    `stressed`: the others are completed by the covariance of stress, as the `regime` is judged (None: nobody judged).
    `weight` of the text against the series, where market-signal leans (`lean`) the other way; `width`: how many times
    as wide the band is, for the `plausibility` of the shocks, unless they `happened` or are `usual`: within most past
    moves. `nearer`: the share of these that went less far; None where nobody can tell, and in older records.
    """

    regime: str | None = None
    regime_probability: str | None = None
    stressed: bool = False
    lean: str | None = None
    lean_probability: str | None = None
    weight: str | None = None
    plausibility: str | None = None
    plausibility_probability: str | None = None
    width: str | None = None
    happened: bool = False
    usual: bool = False
    nearer: str | None = None


class BreachRow(StateRow):
    """A limit that is breached, by kind and subject; `loss` and `limit` are evidence ids."""

    subject: str
    kind: str
    loss: str | None
    limit: str

    @property
    def cites(self) -> tuple[str, ...]:
        return (self.limit,) if self.loss is None else (self.loss, self.limit)
