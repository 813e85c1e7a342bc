"""A reading on its own, without portfolio and sources: the agent's, the channels', and the two checks beside it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from finllm.agents.agent import Opinion, judge
from finllm.agents.narrative import Asked, Reading, asking
from finllm.agents.pooling import ByChannels, pooled, unasked
from finllm.desk.desk import Desk, adhoc_caller
from finllm.errors import BackendError
from finllm.events import Noted
from finllm.graphs.closest import PastEvents, event_of
from finllm.graphs.through import read_text
from finllm.guardrails.crossmodal import Heard, majority
from finllm.tools.data.factors import FACTOR_IDS, FactorId
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.shocks import JudgedShock, plan_shocks
from finllm.tools.pnl.sizes import FactorView
from finllm.tools.words.lexical import balance, read_factors, stands_still

NAME = "read"
"""The run id under which a reading's calls are on record."""
HORIZON = 20
"""Trading days over which the sizes that are read are compared with past events."""


@dataclass(frozen=True)
class EventRead:
    """How a text was read. `heard`: the channels, None where no reader of them is at hand.

    `words`: where its own words say that each factor went; `precedents`: where it went in the past events that did the
    like, none where the agent abstained. `closest`: the title of the nearest of these.
    """

    text: str
    opinion: Opinion[Reading]
    heard: ByChannels | None = None
    words: Mapping[FactorId, Heard] = field(default_factory=dict[FactorId, Heard])
    precedents: Mapping[FactorId, Heard] = field(default_factory=dict[FactorId, Heard])
    closest: str | None = None

    @property
    def bears(self) -> bool:
        """Whether any factor is read to move."""
        judged = self.opinion.judgement
        return judged is not None and any(call.direction != "none" for call in judged.factors.values())


async def read_event(text: str, desk: Desk) -> EventRead:
    """How an event is read in the user's own words; nothing is retrieved. What was asked is on record under `NAME`."""
    heard = _channels(text, desk)
    agent = asking(frozenset(Asked.model_fields) - unasked(heard))
    said = await judge(agent, {"narrative": text, "precedents": ""}, {"because": []}, adhoc_caller(desk, NAME))
    opinion = pooled(said, heard)
    words: dict[FactorId, Heard] = {
        factor: "unmoved" if stands_still(found) else balance(found) for factor, found in read_factors(text).items()
    }
    precedents, closest = _past(opinion.judgement, heard, desk) if opinion.judgement else ({}, None)
    return EventRead(text, opinion, heard, words, precedents, closest)


def _channels(text: str, desk: Desk) -> ByChannels | None:
    if desk.channels is None:
        return None
    try:
        return read_text(text, desk.channels, desk, run_id=NAME, node=NAME).heard
    except BackendError as error:
        told = f"without transmission channels, by the language model alone: {error.message}; {error.fix}"
        desk.bus.emit(Noted(level="warning", message=told))
        return None


def _past(
    reading: Reading, heard: ByChannels | None, desk: Desk
) -> tuple[dict[FactorId, Heard], str | None]:  # fmt: skip
    market = MarketStore()
    view = FactorView(FactorSet.default(market), market, dt.datetime.now(dt.UTC).date())
    judged = [JudgedShock(factor, call.direction, call.size) for factor, call in reading.factors.items()
              if call.size != "none" and view.size(factor, HORIZON).sigma]  # fmt: skip
    event = event_of(reading, plan_shocks(view, HORIZON, judged=judged), heard.opened if heard else ())
    past = PastEvents(desk.knowledge.precedents, view)
    nearest = past.nearest(event, 1) if judged else []
    found: dict[FactorId, Heard] = {
        factor: majority([one.factors[factor] for one in past.of_factor(event, factor)]) for factor in FACTOR_IDS
    }
    return found, nearest[0].past.title if nearest else None
