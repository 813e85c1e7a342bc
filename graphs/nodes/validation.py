"""The nodes that validate: the reading against words and precedents, the way on from there, and the person asked."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from langgraph.types import interrupt

from finllm.agents.agent import Offered
from finllm.agents.escalation import judge_escalating
from finllm.agents.validator import AS_READ, OTHERWISE, VALIDATOR, comparison
from finllm.desk.desk import RunContext
from finllm.graphs.learning import kind_of
from finllm.graphs.nodes.reading import reading_of
from finllm.graphs.state import Row, State, latest
from finllm.guardrails.crossmodal import FactorCheck, Heard, SecondCheck, check_factors, check_second, majority
from finllm.guardrails.provenance import REJECTED
from finllm.memory.answers import answer_entry, answer_key
from finllm.tools.data.factors import FACTOR_IDS, FactorId
from finllm.tools.evidence import EvidenceTable

PASSES = 2
"""The first reading on the edge, and one deep re-reading."""
ANSWERS = ("withhold", "accept")


async def validator(state: State, run: RunContext) -> Row:
    """Hold the reading against the evidence. The checks decide what is withheld; the agent says whether it agrees.

    A second opinion that differs sends the first reading back to the deep tier; after that it is dissent, on record.
    """
    table = EvidenceTable.from_json(state["evidence"])
    passes = state.get("passes", 0) + 1
    reading = reading_of(state)
    if reading is None:
        return {"checks": [], "second_checks": [], "verdict": "unresolved", "passes": passes}
    checks = checked(state, reading["judgement"])
    seconds = _second(state, reading["judgement"], reading["choices"], table)
    spoken = [check for check in checks if check.support != "silent"]
    lines = [_as_evidence(check, state, table, run.request.as_of) for check in spoken]
    offered = [*_counted(spoken, lines, table, run.request.as_of), *lines]
    signal = latest(state, "market-signal")
    inputs = {"reading": _event(reading["judgement"]), "market": _market(signal)}
    opinion = await judge_escalating(
        VALIDATOR, inputs, {"because": offered}, run.caller("validator", kind_of(state)), before=state["opinions"]
    )
    diverged = any(check.diverged for check in checks)
    said = opinion.judgement["verdict"] if opinion.judgement else "abstained"
    verdict: Literal["aligned", "diverged", "unresolved"] = "aligned"
    if passes < PASSES:
        doubted = any(check.diverged for check in seconds)
        verdict = "diverged" if diverged or doubted or said != "aligned" else "aligned"
    elif diverged:
        verdict = "unresolved"
    return {
        "evidence": table.to_json(),
        "checks": [check.model_dump(mode="json") for check in checks],
        "second_checks": [check.model_dump(mode="json") for check in seconds],
        "opinions": [opinion.model_dump(mode="json")],
        "verdict": verdict,
        "passes": passes,
    }


def checked(state: State, reading: dict[str, Any]) -> list[FactorCheck]:
    """A reading's directions, held against the words of the state's sources and against its precedents."""
    read = {factor: call["direction"] for factor, call in reading["factors"].items()}
    return check_factors(read, _words(state), _precedents(state))


def after_validator(state: State, run: RunContext) -> Literal["reread", "human", "stress_tester"]:
    if state["verdict"] == "diverged":
        return "reread"
    if state["verdict"] == "unresolved" and run.request.on_unresolved == "ask":
        return "human"
    return "stress_tester"


async def human(state: State, run: RunContext) -> Row:
    """Ask a person what to do with the factors in dispute; the answer is a row of the ledger before it counts."""
    question = {
        "factors": [c["factor"] for c in state["checks"] if FactorCheck.model_validate(c).diverged],
        "options": list(ANSWERS),
    }
    key = answer_key(run.run_id, question)
    recorded = run.desk.ledger.lookup(key)
    if recorded is not None:
        run.desk.ledger.used(key, run_id=run.run_id, node="human")
        return {"answer": recorded.response["answer"]}
    answer = interrupt(question)
    run.desk.ledger.record(answer_entry(run.run_id, question, {"answer": answer}), run_id=run.run_id, node="human")
    return {"answer": answer}


def _second(state: State, judgement: Row, choices: Row, table: EvidenceTable) -> list[SecondCheck]:
    read = {name: value for name, value in judgement.items() if isinstance(value, str)}
    read |= {f"factors.{factor}.direction": call["direction"] for factor, call in judgement["factors"].items()}
    told = {row["field"]: (row["value"], float(table[row["evidence"]].value)) for row in state.get("second", [])}
    return check_second(read, told, {field: max(odds.values()) for field, odds in choices.items() if odds})


def _words(state: State) -> dict[FactorId, Heard]:
    """What the sources' own words say of each factor; sources left out or rejected by the checks do not count."""
    kept = [s for s in state["sources"] if s["left_out"] is None and s["verdict"] not in REJECTED]
    heard: dict[FactorId, Heard] = {}
    for factor in FACTOR_IDS:
        said = [s["says"].get(factor) for s in kept]
        heard[factor] = majority([direction for direction in said if direction in ("up", "down")])
        if "unmoved" in said and not {"up", "down", "mixed"}.intersection(said):
            heard[factor] = "unmoved"
    return heard


def _precedents(state: State) -> dict[FactorId, Heard]:
    return {
        factor: majority([p["factors"][factor] for p in state["precedents"] if factor in p["factors"]])
        for factor in FACTOR_IDS
    }


def _as_evidence(check: FactorCheck, state: State, table: EvidenceTable, as_of: dt.date) -> Offered:
    cites = [s["evidence"] for s in state["sources"] if check.factor in s["says"] and s["left_out"] is None]
    cites += [p["evidence"] for p in state["precedents"] if check.factor in p["factors"]]
    text = f"read {check.read}, the sources' words {check.words}, precedents {check.precedents}: {check.support}"
    formula = f"check({', '.join(cites)})" if cites else "check()"
    id = table.add(
        text,
        "text",
        entity=check.factor,
        what="reading against sources",
        period="this event",
        as_of=as_of,
        formula=formula,
    )
    return Offered(id, f"{check.factor} {text}")


def _counted(checks: list[FactorCheck], lines: list[Offered], table: EvidenceTable, as_of: dt.date) -> list[Offered]:
    """On how many factors the reading is borne out, and on how many not: the model need not compare."""
    sides = {AS_READ: {"supported"}, OTHERWISE: {"contradicted", "missed"}}
    counts = {what: [line for check, line in zip(checks, lines, strict=True) if check.support in kinds]
              for what, kinds in sides.items()}  # fmt: skip
    texts = comparison(*(len(of) for of in counts.values()))
    return [
        Offered(
            table.add(
                len(of), "count", entity="factor checks", what=what, period="this event", as_of=as_of,
                formula=f"count({', '.join(line.id for line in of)})",
            ),
            text,
        )
        for (what, of), text in zip(counts.items(), texts, strict=True)
    ]  # fmt: skip


def _event(judgement: dict[str, Any]) -> str:
    return f"{judgement['event']} in {judgement['region']}, severity {judgement['severity']}"


def _market(signal: Row | None) -> str:
    if signal is None or signal["judgement"] is None:
        return "no judgement"
    judgement = signal["judgement"]
    return f"{judgement['regime']}, equities leaning {judgement['direction']}, confidence {judgement['confidence']}"
