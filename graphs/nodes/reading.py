"""The nodes that read: market-signal and narrative side by side, the deep re-reading, and the sanity-checker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from finllm.agents.agent import Escalation, Offered, Opinion
from finllm.agents.escalation import judge_escalating
from finllm.agents.market_signal import MARKET_SIGNAL
from finllm.agents.narrative import NARRATIVE
from finllm.agents.sanity_checker import SANITY_CHECKER
from finllm.agents.validator import VALIDATOR
from finllm.desk.desk import RunContext
from finllm.graphs.state import Row, State, latest
from finllm.guardrails.crossmodal import FactorCheck, SecondCheck
from finllm.guardrails.provenance import HEARSAY, REJECTED
from finllm.tools.evidence import EvidenceTable, show

LONGEST_SOURCE = 600
"""Most characters of one source that an agent reads."""
ALL_SOURCES = 7200
"""Characters of all sources together that the narrative agent reads, shared evenly; they fit the default context."""
LONGEST_NARRATIVE = 1500
OTHERS_EACH, OTHERS_IN_ALL = 120, 480
"""Characters of each other source, and of all of them, that the sanity-checker sees beside the one it judges."""


async def market_signal(state: State, run: RunContext) -> Row:
    table = EvidenceTable.from_json(state["evidence"])
    offered = [Offered(id, _line(table, id)) for row in state["market"] for id in row["cites"]]
    opinion = await judge_escalating(MARKET_SIGNAL, {}, {"because": offered}, run.caller("market_signal"))
    return {"opinions": [opinion.model_dump(mode="json")]}


async def narrative(state: State, run: RunContext) -> Row:
    kept = [s for s in state["sources"] if s["left_out"] is None and s["verdict"] != HEARSAY]
    opinion = await _read(state, run, "narrative", kept, floor=None)
    return {"opinions": [opinion.model_dump(mode="json")]}


async def reread(state: State, run: RunContext) -> Row:
    """The same reading on the finest deep backend that gives one, without the sources that the checks rejected; where
    it is unsure again, it is put to the vote.
    """
    kept = [s for s in state["sources"] if s["left_out"] is None and s["verdict"] not in REJECTED]
    finest, *others = run.desk.deep_floors
    cause = _cause(state)
    opinion = await _read(state, run, "reread", kept, floor=finest, because=cause)
    for floor in others:
        if opinion.status == "abstained":
            opinion = await _read(state, run, "reread", kept, floor=floor, because=cause)
    return {"opinions": [opinion.model_dump(mode="json")]}


def _cause(state: State) -> Escalation:
    """What sent the reading back: the checks of its directions first, then the second opinion, then the validator."""
    read, said = latest(state, NARRATIVE.role), latest(state, VALIDATOR.role)
    before = read["precision"] if read else None
    against = [c.factor for c in map(FactorCheck.model_validate, state["checks"]) if c.diverged]
    if against:
        return Escalation(cause="checks", before=before, to=None, field=", ".join(against))
    doubts = [c for c in map(SecondCheck.model_validate, state["second_checks"]) if c.diverged]
    if doubts:
        surest = max(doubts, key=lambda one: one.probability)
        return Escalation(
            cause="second opinion", before=before, to=None, field=surest.field, probability=surest.probability
        )
    verdict = said["judgement"]["verdict"] if said and said["judgement"] else "abstained"
    return Escalation(cause="validator", before=before, to=None, field=verdict)


async def _read(
    state: State, run: RunContext, node: str, sources: list[Row], *, floor: str | None,
    because: Escalation | None = None,
) -> Opinion:  # fmt: skip
    caller = run.caller(node)
    if because is not None:
        caller = replace(caller, escalate=caller.escalate | {NARRATIVE.role})
    inputs = {
        "narrative": run.request.scenario.narrative[:LONGEST_NARRATIVE],
        "precedents": "\n".join(p["line"] for p in state["precedents"][:2]),
    }
    longest = min(LONGEST_SOURCE, ALL_SOURCES // max(len(sources), 1))
    offered = [Offered(s["evidence"], s["text"][:longest]) for s in sources]
    if because is not None:
        because = because.model_copy(update={"to": floor})
    return await judge_escalating(
        NARRATIVE, inputs, {"because": offered}, caller, floor=floor, because=because,
        before=state.get("opinions", ()),
    )  # fmt: skip


async def sanity_checker(state: State, run: RunContext) -> Row:
    """One judgement per source. The checks' verdict stands; the agent's differing one is kept as dissent."""
    table = EvidenceTable.from_json(state["evidence"])
    opinions: list[Row] = []
    sources: list[Row] = []
    for source in state["sources"]:
        if source["left_out"] is not None:
            sources.append(source)
            continue
        offered = [Offered(id, _count(table, id)) for id in source["provenance"]]
        opinion = await judge_escalating(
            SANITY_CHECKER,
            {
                "text": source["text"][:LONGEST_SOURCE],
                "publisher": source["publisher"],
                "others": _others(source, state["sources"]),
            },
            {"because": offered},
            run.caller("sanity_checker"),
            before=[*state["opinions"], *opinions],
        )
        opinions.append({**opinion.model_dump(mode="json"), "about": source["id"]})
        said = opinion.judgement["verdict"] if opinion.judgement else None
        sources.append({**source, "agent_verdict": said})
    return {"opinions": opinions, "sources": sources}


def _others(source: Row, sources: list[Row]) -> str:
    """What the other sources say, in short; hearsay and what carries instructions is not quoted beside the honest."""
    said = [
        f"{other['publisher']}: {' '.join(other['text'].split())[:OTHERS_EACH]}"
        for other in sources
        if other["id"] != source["id"] and other["left_out"] is None and other["verdict"] not in ("injected", HEARSAY)
    ]
    return " / ".join(said)[:OTHERS_IN_ALL]


def _count(table: EvidenceTable, id: str) -> str:
    """What was counted about the one source that is judged; its name would only lengthen the prompt."""
    return f"{table[id].what}: {show(table[id].value, table[id].unit)}"


def _line(table: EvidenceTable, id: str) -> str:
    row = table[id]
    return f"{row.what}, {row.entity}: {show(row.value, row.unit)}"


def reading_of(state: State) -> dict[str, Any] | None:
    """The newest judgement of the narrative agent: the deep re-reading where there was one that did not abstain."""
    readings = [o for o in state.get("opinions", []) if o["agent"] == NARRATIVE.role and o["judgement"] is not None]
    return readings[-1] if readings else None
