"""Who said otherwise than what was done, from both sides as they are: whose word stands instead, and by which check."""

from __future__ import annotations

from collections.abc import Iterator

from finllm.agents.compliance import COMPLIANCE
from finllm.agents.market_signal import MARKET_SIGNAL
from finllm.agents.stress_tester import STRESS_TESTER
from finllm.agents.validator import VALIDATOR
from finllm.graphs.consequences import borne_out, leaned
from finllm.graphs.report import Dissent
from finllm.graphs.state import AfterCompliance
from finllm.guardrails.crossmodal import FactorCheck
from finllm.tools.data.factors import GIVEN
from finllm.tools.evidence import EvidenceTable, show


def dissent_of(state: AfterCompliance, table: EvidenceTable) -> Iterator[Dissent]:
    """Where an agent's judgement differs from what the checks, the rules or the market decided."""
    yield from _of_market_signal(state, table)
    yield from _of_validator(state)
    for opinion in state.opinions:
        for one in opinion.escalations:
            for field, values in one.split.items():
                yield Dissent(who=f"{opinion.agent}, votes", about=field, said=" / ".join(values),
                              instead_of="a majority")  # fmt: skip
    for check in state.checks:
        if check.diverged:
            instead, by = _other_side(check)
            yield Dissent(who="narrative", about=check.factor, said=check.read, instead_of=instead, by=by)
    for second in state.second_checks:
        if second.diverged:
            yield Dissent(who="second opinion", about=second.field, said=second.second,
                          instead_of=second.read, by="the narrative's reading")  # fmt: skip
    yield from _of_stress_tester(state, table)
    review = state.said(COMPLIANCE)
    for finding in state.findings:
        own = review.rules.get(finding.rule) if review and finding.rule not in ("completeness", "asked") else None
        call = own.verdict if own and finding.verdict != "not checked" else finding.verdict
        if call != finding.verdict:
            yield Dissent(who="compliance", about=f"rule {finding.rule}", said=call, instead_of=finding.verdict,
                          by="the rule book")  # fmt: skip


def _of_stress_tester(state: AfterCompliance, table: EvidenceTable) -> Iterator[Dissent]:
    """Its doubt of shocks that are usual, and the shocks that it names to be refused and that stand all the same."""
    choice, moved = state.said(STRESS_TESTER), state.stress.moved
    if choice is not None and moved is not None and moved.usual and moved.nearer and choice.plausibility != "plausible":
        yield Dissent(who=STRESS_TESTER.role, about="the shocks together", said=choice.plausibility,
                      instead_of="usual", by="past moves, of which only "
                      f"{show(table[moved.nearer].value, 'probability')} [{moved.nearer}] went less far")  # fmt: skip
    for shock in state.shocks:
        if choice is not None and shock.move in choice.refuse and shock.refused is None:
            by = "the rule that a shock which was given stands" if shock.origin in GIVEN else \
                _not_refused(choice.plausibility)  # fmt: skip
            yield Dissent(who=STRESS_TESTER.role, about=f"shock on {shock.factor}", said="refuse", instead_of="applied",
                          by=by)  # fmt: skip


def _not_refused(plausibility: str) -> str:
    """Why a shock read from the text stands, by `consequences.refusal`."""
    if plausibility == "implausible":
        return "the checks, which find it within its history and not against the other shocks"
    return "the checks, which find it within its history; only shocks called implausible are held against each other"


def _of_market_signal(state: AfterCompliance, table: EvidenceTable) -> Iterator[Dissent]:
    """Its regime stands, and chooses the covariance; the rule's, where that is another, is the other side."""
    signal, change = state.said(MARKET_SIGNAL), leaned(state)
    if signal is not None and signal.direction != "none" and not borne_out(signal.direction, change):
        instead = "no lean" if change is None else "down" if signal.direction == "up" else "up"
        by = "" if change is None else f"the {change.what}, {show(change.value, change.unit)} [{change.id}]"
        yield Dissent(who=MARKET_SIGNAL.role, about="lean of equities", said=signal.direction, instead_of=instead,
                      by=by)  # fmt: skip
    rule = next((row for row in table if row.what == "regime by rule"), None)
    if signal is not None and rule is not None and rule.value != signal.regime:
        yield Dissent(who="the rule", about="regime", said=f"{rule.value} [{rule.id}]", instead_of=signal.regime,
                      by=MARKET_SIGNAL.role)  # fmt: skip


def _of_validator(state: AfterCompliance) -> Iterator[Dissent]:
    validation = state.said(VALIDATOR)
    if validation is None:
        return
    told = state.held.result.verdict if state.held is not None else state.verdict
    stands = "unresolved" if state.verdict == "unresolved" else told
    if validation.verdict != stands:
        by = {
            "unresolved": "the checks of the reading",
            "not testable": "a market without data since publication",
            "not yet": "a market that has not moved since publication",
        }.get(stands, "the market since publication")
        yield Dissent(who="validator", about="text and measurements", said=validation.verdict, instead_of=stands,
                      by=by)  # fmt: skip


def _other_side(check: FactorCheck) -> tuple[str, str]:
    """What was held against a reading of a factor, and who says so."""
    if check.words in ("up", "down", "unmoved"):
        return check.words, "the sources' words"
    return check.precedents, f"precedents (the sources' words: {check.words})"
