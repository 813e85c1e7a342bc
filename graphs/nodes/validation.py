"""The nodes that validate: the reading against words and precedents, the way on from there, and the person asked."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Literal, get_args

from langgraph.types import interrupt

from finllm.agents.agent import Offered
from finllm.agents.escalation import judge_escalating
from finllm.agents.market_signal import MARKET_SIGNAL
from finllm.agents.narrative import NARRATIVE, NO_EVENT, Asked, Reading
from finllm.agents.validator import AS_READ, OTHERWISE, VALIDATOR, comparison
from finllm.desk.desk import RunContext
from finllm.graphs.closest import PastEvents, event_of
from finllm.graphs.nodes.against import hold_to_market
from finllm.graphs.nodes.past import past_row
from finllm.graphs.rows import HeardSource, Json, OpinionRow, ThroughChannels
from finllm.graphs.state import AfterIntake, AfterValidator, Answer, JudgedOpinion, Update, Verdict
from finllm.graphs.thrift import left_out
from finllm.guardrails.crossmodal import FactorCheck, Heard, SecondCheck, check_factors, check_second, majority
from finllm.guardrails.provenance import REJECTED
from finllm.memory.answers import answer_entry, answer_key
from finllm.memory.precedents import Precedent
from finllm.tools.data.factors import FACTOR_IDS, Direction, FactorId
from finllm.tools.evidence import EvidenceTable
from finllm.tools.pnl.asked import scenario_factors, scenario_shocks
from finllm.tools.pnl.shocks import JudgedShock, plan_shocks
from finllm.tools.pnl.sizes import FactorView

SURE_WORDS = (("high", 0.7), ("medium", 0.5), ("low", 0.0))
"""What the validator is told of how sure market-signal is, from which measured probability of its direction on."""
HEARD_KINDS = frozenset(NO_EVENT.get(kind, kind) for kind in get_args(Asked.model_fields["event"].annotation))
"""The kinds of event that the second opinion tells apart."""
PASSES = 2
"""The first reading on the edge, and one deep re-reading."""
ANSWERS: tuple[Answer, ...] = get_args(Answer)


async def validator(state: AfterIntake, run: RunContext) -> Update:
    """Hold the reading against the evidence. The checks decide what is withheld; the agent says whether it agrees.

    A second opinion that differs sends the first reading back to the deep tier, and so does a market that went the
    opposite way since the news; after that both are on record. A reading through channels is sent back only where a
    model of the deep tier is stronger than the default one: the reader of channels would say the same again.
    """
    table, reading = state.table(), state.reading
    passes = state.passes + 1
    if reading is None:
        return Update(checks=(), second_checks=(), verdict="unresolved", passes=passes)
    past = Voices(run, state.through)
    checks = checks_of(state, past)
    seconds = _second(state, reading, table)
    spoken = [check for check in checks if check.support != "silent"]
    voices = past.of(reading.judgement)
    lines = [_as_evidence(check, state, voices[check.factor], table, run.request.as_of) for check in spoken]
    held, moved = hold_to_market(reading.judgement, state, run, table)
    offered = [*_counted(spoken, lines, table, run.request.as_of), *lines, *moved]
    inputs = {"reading": _event(reading.judgement), "market": _market(state)}
    again = passes < PASSES and (state.through is None or run.desk.stronger)
    again = again and not left_out(run, "validator", "a second reading", lambda: taken(state, run))
    caller = run.caller("validator", state.kind, () if again else {VALIDATOR.role})
    opinion = await judge_escalating(VALIDATOR, inputs, {"because": offered}, caller, before=state.opinions)
    diverged = any(check.diverged for check in checks)
    said = opinion.judgement.verdict if opinion.judgement else "abstained"
    verdict: Verdict = "aligned"
    if again:
        doubted = any(check.diverged for check in seconds) or held.result.opposed
        agrees = said == "aligned" or opinion.short  # whoever could not be asked for the budget asks for no more
        verdict = "diverged" if diverged or doubted or not agrees else "aligned"
    elif diverged:
        verdict = "unresolved"
    return Update(
        evidence=tuple(table),
        checks=tuple(checks),
        second_checks=tuple(seconds),
        opinions=(OpinionRow.of(opinion),),
        verdict=verdict,
        held=held,
        passes=passes,
    )


class Voices:
    """What past events say of each factor of a reading: those that did the like to all the other factors."""

    def __init__(self, run: RunContext, through: ThroughChannels | None = None) -> None:
        self._opened = through.opened if through else ()
        scenario = run.request.scenario
        self._factors = scenario_factors(scenario, run.market, run.request.portfolio)
        self._view = FactorView(self._factors, run.market, run.request.as_of)
        self._past = PastEvents(run.desk.knowledge.precedents, self._view)
        self._shocks, self._horizon = scenario_shocks(scenario, self._factors), scenario.horizon

    def of(self, reading: Reading) -> dict[FactorId, list[Precedent]]:
        """By factor the past events that are held against it."""
        judged = [JudgedShock(factor, call.direction, call.size) for factor, call in reading.factors.items()
                  if call.size != "none" and self._view.size(factor, self._horizon).sigma]  # fmt: skip
        plan = plan_shocks(self._view, self._horizon, user=self._shocks, judged=judged)
        event = event_of(reading, plan, self._opened)
        return {factor: self._past.of_factor(event, factor) for factor in FACTOR_IDS}

    def heard(self, reading: Reading) -> dict[FactorId, Heard]:
        """Where each factor went in most of them."""
        return {factor: majority([one.factors[factor] for one in past]) for factor, past in self.of(reading).items()}


def taken(state: AfterIntake, run: RunContext) -> float:
    """Tokens that the reading's calls took, which a second one would take again."""
    opinion = state.latest(NARRATIVE)
    calls = [run.desk.ledger.lookup(key) for key in (opinion.calls if opinion else ())]
    said = [entry.response for entry in calls if entry is not None]
    return float(sum(one["prompt_tokens"] + one["output_tokens"] for one in said))


def checked(
    reading: Reading, sources: Sequence[HeardSource], past: Voices, explained: frozenset[str] = frozenset()
) -> list[FactorCheck]:  # fmt: skip
    """A reading's directions, held against the words of the sources and against past events. `explained`: the factors
    that are moved by a channel, so that silence all around does not speak against them."""
    read: dict[FactorId, Direction] = {factor: call.direction for factor, call in reading.factors.items()}
    return check_factors(read, _words(sources), past.heard(reading), explained)


def checks_of(state: AfterIntake, past: Voices) -> list[FactorCheck]:
    """What a run's reading is held to: `checked` with all that the state knows. None where nothing was read."""
    if state.reading is None:
        return []
    return checked(state.reading.judgement, state.sources, past, explained_by(state))


def explained_by(state: AfterIntake) -> frozenset[str]:
    """The factors that an open channel moves."""
    return frozenset(factor for factor in FACTOR_IDS if state.through is not None and state.through.moving(factor))


def after_validator(state: AfterValidator, run: RunContext) -> Literal["reread", "human", "stress_tester"]:
    if state.verdict == "diverged":
        return "reread"
    if state.verdict == "unresolved" and run.request.on_unresolved == "ask":
        return "human"
    return "stress_tester"


def question_of(state: AfterValidator) -> Json:
    """What a person is asked where the checks do not agree: which factors are in dispute, and what may be answered."""
    return {"factors": [check.factor for check in state.checks if check.diverged], "options": list(ANSWERS)}


async def human(state: AfterValidator, run: RunContext) -> Update:
    """Ask a person what to do with the factors in dispute; the answer is a row of the ledger before it counts."""
    question = question_of(state)
    key = answer_key(run.run_id, question)
    recorded = run.desk.ledger.lookup(key)
    if recorded is not None:
        run.desk.ledger.used(key, run_id=run.run_id, node="human")
        return Update(answer=recorded.response["answer"])
    answer: Answer = interrupt(question)
    run.desk.ledger.record(answer_entry(run.run_id, question, {"answer": answer}), run_id=run.run_id, node="human")
    return Update(answer=answer)


def _second(state: AfterIntake, reading: JudgedOpinion[Reading], table: EvidenceTable) -> list[SecondCheck]:
    read = reading.judgement.event_fields()
    if read["event"] not in HEARD_KINDS:
        del read["event"]  # a kind that the second opinion has no name for is nothing that it could have said
    read |= {f"factors.{factor}.direction": call.direction for factor, call in reading.judgement.factors.items()}
    told = {row.field: (NO_EVENT.get(row.value, row.value), float(table[row.evidence].value)) for row in state.second}
    return check_second(read, told, {f: max(odds.values()) for f, odds in reading.opinion.choices.items() if odds})


def _words(sources: Sequence[HeardSource]) -> dict[FactorId, Heard]:
    """What the sources' own words say of each factor; sources left out or rejected by the checks do not count."""
    kept = [source for source in sources
            if source.left_out is None and source.muted is None and source.verdict not in REJECTED]  # fmt: skip
    heard: dict[FactorId, Heard] = {}
    for factor in FACTOR_IDS:
        said = [source.says.get(factor) for source in kept]
        heard[factor] = majority([direction for direction in said if direction in ("up", "down")])
        if "unmoved" in said and not {"up", "down", "mixed"}.intersection(said):
            heard[factor] = "unmoved"
    return heard


def _as_evidence(
    check: FactorCheck, state: AfterIntake, past: Sequence[Precedent], table: EvidenceTable, as_of: dt.date
) -> Offered:
    heard = [s for s in state.sources if s.muted is None]
    cites = [s.evidence for s in heard if check.factor in s.says and s.evidence is not None]
    cites += [past_row(one, table, as_of) for one in past]
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


def _event(reading: Reading) -> str:
    return f"{reading.event} in {reading.region}, severity {reading.severity}"


def _market(state: AfterIntake) -> str:
    """What market-signal said, in the words that the validator was trained on; how sure it was is measured."""
    signal, opinion = state.said(MARKET_SIGNAL), state.latest(MARKET_SIGNAL)
    if signal is None or opinion is None:
        return "no judgement"
    sure = opinion.probability("direction")
    confidence = next(word for word, least in SURE_WORDS if sure >= least)
    return f"{signal.regime}, equities leaning {signal.direction}, confidence {confidence}"
