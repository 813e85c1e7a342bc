"""The compliance node: the rule book over the finished numbers, and the agent that reads what it found."""

from __future__ import annotations

from collections.abc import Sequence

from finllm.agents.agent import Offered
from finllm.agents.compliance import COMPLIANCE
from finllm.agents.escalation import judge_escalating
from finllm.desk.desk import RunContext
from finllm.graphs.rows import BreachRow, OpinionRow, StressRow
from finllm.graphs.state import AfterStress, Update
from finllm.graphs.thrift import short_of
from finllm.guardrails.crossmodal import FactorCheck
from finllm.guardrails.rules import RuleFacts, check_asked, check_rules
from finllm.tools.evidence import EvidenceTable, money
from finllm.tools.pnl.asked import scenario_factors
from finllm.tools.pnl.coverage import Coverage
from finllm.tools.pnl.limits import Breach, Known, Unchecked, hold, restricted_in


async def compliance(state: AfterStress, run: RunContext) -> Update:
    """Check the rules; the agent reads the findings, and where it differs that is dissent."""
    table = state.table()
    held = hold(state.stress.result, known(state, run), run.request.limits)
    breached = _breached(held.breaches, state.stress, run, table)
    findings = check_rules(rule_facts(state, run, breached, held.unchecked))
    cites = [
        table.add(
            f"{finding.rule}: {finding.what}",
            "text",
            entity="rule book",
            what=f"finding, {finding.verdict}",
            period="this run",
            as_of=run.request.as_of,
            formula=f"rule {finding.rule} of version {finding.version}",
        )
        for finding in findings
    ]
    offered = [Offered(id, str(table[id].value)) for id in cites]
    opinion = await judge_escalating(
        COMPLIANCE, {}, {"because": offered}, run.caller("compliance", state.kind, {COMPLIANCE.role}),
        before=state.opinions,
    )  # fmt: skip
    return Update(
        evidence=tuple(table),
        breaches=tuple(breached),
        unchecked=held.unchecked,
        findings=(*findings, *check_asked(short_of((*state.opinions, opinion)))),
        opinions=(OpinionRow.of(opinion),),
    )


def known(state: AfterStress, run: RunContext) -> Known:
    """What the limits are held against besides the P&L."""
    factors = scenario_factors(run.request.scenario, run.market, run.request.portfolio)
    return Known.of(state.stress.result, factors.drivers)


def _breached(
    breaches: Sequence[Breach], stress: StressRow, run: RunContext, table: EvidenceTable
) -> list[BreachRow]:  # fmt: skip
    """Every breach, with the evidence rows of the loss and of the limit."""
    return [
        BreachRow(
            subject=breach.subject,
            kind=breach.kind,
            loss=_loss(breach, stress),
            limit=table.add(
                float(breach.limit),
                "probability" if breach.kind == "coverage" else money(stress.result.currency),
                entity=breach.subject,
                what=f"limit, {breach.kind}",
                period="this run",
                as_of=run.request.as_of,
                formula="given by the limits file",
            ),
        )
        for breach in breaches
    ]


def _loss(breach: Breach, stress: StressRow) -> str | None:
    """The evidence id of a breach's loss."""
    match breach.kind:
        case "loss_by_factor":
            return stress.by_factor[breach.subject]
        case "loss_by_sector":
            return stress.by_sector[breach.subject]
        case "loss_by_position":
            return stress.by_position[breach.subject]
        case "total_loss":
            return stress.total
        case "var_975_1d":
            return stress.var_975_1d
        case "es_975_1d":
            return stress.es_975_1d
        case "coverage":
            return stress.covered


def rule_facts(
    state: AfterStress, run: RunContext, breached: list[BreachRow], unchecked: Sequence[Unchecked] = ()
) -> RuleFacts:  # fmt: skip
    """What the rule book looks at, from the finished state and the request."""
    coverage, stress = state.stress.result.coverage, state.stress
    late = {s.id for s in run.request.scenario.sources if s.published_at.date() > run.request.as_of}
    left_out = {source.id for source in state.sources if source.left_out is not None}
    return RuleFacts(
        breaches=[(f"{breach.subject} ({breach.kind})", breach.cites) for breach in breached],
        restricted_held=restricted_in(run.request.portfolio, run.request.limits),
        sources_refused=sorted(late & left_out),
        sources_used_late=sorted(late - left_out),
        sources_cut=[s.id for s in state.sources if any(cut.startswith("lookahead:") for cut in s.removed)],
        approved_by=run.request.approved_by,
        claims_withheld=[f"{check.factor} {check.read}" for check in withheld(state)],
        claims_unsupported=_unsupported(state, run),
        limited=not run.request.limits.allow_all,
        restricting=bool(run.request.limits.restricted),
        unchecked=[f"{one.subject} ({one.kind})" for one in unchecked],
        left_out=None if coverage is None or coverage.complete else _gaps(coverage),
        measured=tuple(id for id in (stress.covered, stress.stand_in, stress.missing, stress.unknown) if id),
        block_incomplete=coverage is not None and coverage.thresholds.block,
    )


def _gaps(coverage: Coverage) -> list[str]:
    """The first names of what is missing, has no known value, or is only stood in for."""
    gaps = (*coverage.first_missing, *coverage.first_unknown, *coverage.first_stand_ins)
    named = list(dict.fromkeys(one.id for one in gaps))
    more = coverage.left_out + coverage.stand_ins > len(named)
    return [*named, *(["and more"] if more else [])]


def _unsupported(state: AfterStress, run: RunContext) -> list[str]:
    """Factors shocked by the reading without support, which only a person's acceptance allows."""
    if state.answer == "accept":
        return []
    supported = {check.factor for check in state.checks if check.support == "supported"}
    supported |= {one.factor for one in run.request.scenario.disputes if one.answer == "accept"}
    return [
        shock.factor
        for shock in state.shocks
        if shock.origin in ("model", "table") and shock.refused is None and shock.factor not in supported
    ]


def withheld(state: AfterStress) -> list[FactorCheck]:
    """Checks of factors that were read as moving and got no shock of any origin."""
    moved = shocked(state)
    return [
        check
        for check in state.checks
        if check.factor not in moved and check.support in ("contradicted", "unsupported")
    ]


def shocked(state: AfterStress) -> set[str]:
    """Factors with a shock of their own: one that only moves with the others was withheld all the same."""
    return {shock.factor for shock in state.shocks if shock.origin != "completed"}
