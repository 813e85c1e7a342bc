"""The nodes that read: market-signal and narrative side by side, the deep re-reading, and the sanity-checker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from finllm.agents.agent import BUDGET, Agent, Offered, Opinion, abstained, expected_tokens
from finllm.agents.escalation import judge_escalating
from finllm.agents.escalations import Escalation
from finllm.agents.market_signal import MARKET_SIGNAL
from finllm.agents.narrative import NARRATIVE, Asked, Reading, asking
from finllm.agents.pooling import ByChannels, pooled, unasked
from finllm.agents.sanity_checker import SANITY_CHECKER
from finllm.agents.validator import VALIDATOR
from finllm.desk.desk import RunContext
from finllm.errors import BudgetExceeded
from finllm.events import EventBus, Judged
from finllm.graphs.rows import HeardSource, OpinionRow
from finllm.graphs.state import AfterIntake, AfterValidator, Update
from finllm.graphs.thrift import left_out, precedents_for, short_by
from finllm.guardrails.provenance import HEARSAY, REJECTED, SourceVerdict
from finllm.tools.evidence import EvidenceTable, show

LONGEST_SOURCE = 600
"""Most characters of one source that an agent reads."""
ALL_SOURCES = 7200
"""Characters of all sources together that the narrative agent reads, shared evenly; they fit the default context."""
LONGEST_NARRATIVE = 1500
BOTH = 0.9
"""Of what is left, the part that both first judgements may be expected to take: what they take is only known after."""
SURELY = 1.1
"""How many times over what is left the reading is expected to go where it surely does not fit."""
CLEARED: SourceVerdict = "credible"
"""The verdict by which the sanity-checker lifts the checks' doubt."""
OTHERS_EACH, OTHERS_IN_ALL = 120, 480
"""Characters of each other source, and of all of them, that the sanity-checker sees beside the one it judges."""


async def market_signal(state: AfterIntake, run: RunContext) -> Update:
    """What the series say. Where the budget does not reach for both, the event is read and the series are not.

    Errors: as `narrative`: nothing is kept of a run that stops there, so that a larger budget asks both.
    """
    table, bus = state.table(), run.desk.bus
    offered = [Offered(id, _line(table, id)) for row in state.market for id in row.cites]
    if not any(row.cites and row.factor == "EQUITY_US" for row in state.market):
        reason = f"not asked: no data of the equity market are current at {run.request.as_of}"
        return Update(opinions=(OpinionRow.of(abstained(MARKET_SIGNAL, reason, bus)),))

    reading = expected_tokens(*_question(state, run, _heard(state)))
    if why := short_by(run, lambda: reading, SURELY):
        _stop_without_shocks(run, why)

    def both() -> float:
        return expected_tokens(MARKET_SIGNAL, {}, offered) + reading

    if why := left_out(
        run, "market_signal", "the judgement of market-signal, so that the event can be read", both, BOTH
    ):
        return Update(opinions=(OpinionRow.of(abstained(MARKET_SIGNAL, f"{BUDGET}the reading comes first, {why}", bus,
                                                        short=True)),))  # fmt: skip
    opinion = await judge_escalating(MARKET_SIGNAL, {}, {"because": offered}, run.caller("market_signal"))
    return Update(opinions=(OpinionRow.of(opinion),))


async def narrative(state: AfterIntake, run: RunContext) -> Update:
    """The event as read. Errors: BudgetExceeded where the budget does not reach and nothing else gives a shock."""
    opinion = await _read(state, run, "narrative", _heard(state), floor=None)
    if opinion.short:
        _stop_without_shocks(run, opinion.reason or "")
    return Update(opinions=(OpinionRow.of(opinion),))


def _stop_without_shocks(run: RunContext, why: str) -> None:
    """Errors: BudgetExceeded, where a run whose event cannot be read has no shock of its own to compute with."""
    scenario = run.request.scenario
    if not (scenario.insisted or scenario.replay):
        told = f"the event was not read ({why}), and the scenario gives no shock of its own to compute with"
        raise BudgetExceeded(told, fix="resume the run with a larger --budget")


def _heard(state: AfterIntake) -> list[HeardSource]:
    """The sources of the first reading."""
    return [source for source in state.sources if source.verdict != HEARSAY and source.muted is None]


async def reread(state: AfterValidator, run: RunContext) -> Update:
    """The same reading on the finest deep backend that gives one, without the sources that the checks rejected; where
    it is unsure again, it is put to the vote.
    """
    kept = [s for s in state.sources if s.verdict not in REJECTED and s.muted is None]
    finest, *others = run.desk.deep_floors
    cause = _cause(state)
    opinion = await _read(state, run, "reread", kept, floor=finest, because=cause)
    for floor in others:
        if opinion.status == "abstained":
            opinion = await _read(state, run, "reread", kept, floor=floor, because=cause)
    return Update(opinions=(OpinionRow.of(opinion),))


def _cause(state: AfterValidator) -> Escalation:
    """What sent the reading back: the checks of its directions first, then the second opinion, then the validator."""
    read, said = state.latest(NARRATIVE), state.said(VALIDATOR)
    before = read.precision if read else None
    against = [check.factor for check in state.checks if check.diverged]
    if against:
        return Escalation(cause="checks", before=before, to=None, field=", ".join(against))
    doubts = [check for check in state.second_checks if check.diverged]
    if doubts:
        surest = max(doubts, key=lambda one: one.probability)
        return Escalation(
            cause="second opinion", before=before, to=None, field=surest.field, probability=surest.probability
        )
    verdict = said.verdict if said else "abstained"
    return Escalation(cause="validator", before=before, to=None, field=verdict)


async def _read(
    state: AfterIntake, run: RunContext, node: str, sources: Iterable[HeardSource], *, floor: str | None,
    because: Escalation | None = None,
) -> Opinion[Reading]:  # fmt: skip
    caller = run.caller(node)
    if because is not None:
        caller = replace(caller, escalate=caller.escalate | {NARRATIVE.role})
        because = because.model_copy(update={"to": floor})
    stronger = because is not None and run.desk.stronger
    agent, inputs, offered = _question(state, run, sources, stronger=stronger)
    past = [one.line for one in state.precedents[:2]]
    inputs["precedents"] = precedents_for(run, node, agent, inputs, offered, past)
    opinion = await judge_escalating(
        agent, inputs, {"because": offered}, caller, floor=floor, because=because, before=state.opinions
    )
    heard = state.through.heard if state.through else None
    return told(pooled(opinion, heard, stronger=stronger), heard, run.desk.bus)


def _question(
    state: AfterIntake, run: RunContext, sources: Iterable[HeardSource], *, stronger: bool = False
) -> tuple[Agent, dict[str, str], list[Offered]]:
    """Who reads the event, and what that agent is given, past events apart; `stronger`: than the channels' reader."""
    texts = [(source.evidence, source.text) for source in sources if source.evidence is not None]
    longest = min(LONGEST_SOURCE, ALL_SOURCES // max(len(texts), 1))
    heard = state.through.heard if state.through else None
    agent = asking(frozenset(Asked.model_fields) - unasked(heard, stronger=stronger))
    inputs = {"narrative": run.request.scenario.narrative[:LONGEST_NARRATIVE], "precedents": ""}
    return agent, inputs, [Offered(evidence, text[:longest]) for evidence, text in texts]


def told(opinion: Opinion[Reading], heard: ByChannels | None, bus: EventBus) -> Opinion[Reading]:
    """The same opinion, of which whoever watches is told what came of pooling it with the channels."""
    if heard is not None and opinion.judgement is not None:
        bus.emit(Judged(agent=NARRATIVE.role, judgement=opinion.judgement.model_dump(mode="json")))
    return opinion


async def sanity_checker(state: AfterIntake, run: RunContext) -> Update:
    """One judgement per source that the checks doubt and are not sure of: it clears the source, or the doubt stands.

    Asked about every source it doubted a third of the honest ones; where the checks are sure they answer better.
    """
    table = state.table()
    opinions: list[OpinionRow] = []
    sources: list[HeardSource] = []
    for source in state.sources:
        if not source.open:
            sources.append(source)
            continue
        offered = [Offered(id, _count(table, id)) for id in source.provenance]
        opinion = await judge_escalating(
            SANITY_CHECKER,
            {
                "text": source.text[:LONGEST_SOURCE],
                "publisher": source.publisher,
                "others": _others(source, state.sources),
            },
            {"because": offered},
            run.caller("sanity_checker"),
            before=[*state.opinions, *opinions],
        )
        opinions.append(OpinionRow.of(opinion, about=source.id))
        said = opinion.judgement.verdict if opinion.judgement else None
        cleared = {"verdict": CLEARED} if said == CLEARED else {}
        sources.append(source.model_copy(update={"agent_verdict": said, **cleared}))
    if sources and not opinions:
        reason = "not asked: the source checks are sure of every source"
        opinions.append(OpinionRow.of(abstained(SANITY_CHECKER, reason, run.desk.bus)))
    return Update(opinions=tuple(opinions), sources=tuple(sources))


def _others(source: HeardSource, sources: Sequence[HeardSource]) -> str:
    """What the other sources say, in short; hearsay and what carries instructions is not quoted beside the honest."""
    said = [
        f"{other.publisher}: {' '.join(other.text.split())[:OTHERS_EACH]}"
        for other in sources
        if other.id != source.id and other.left_out is None and other.verdict not in ("injected", HEARSAY)
    ]
    return " / ".join(said)[:OTHERS_IN_ALL]


def _count(table: EvidenceTable, id: str) -> str:
    """What was counted about the one source that is judged; its name would only lengthen the prompt."""
    return f"{table[id].what}: {show(table[id].value, table[id].unit)}"


def _line(table: EvidenceTable, id: str) -> str:
    row = table[id]
    return f"{row.what}, {row.entity}: {show(row.value, row.unit)}"
