"""All the agents, and the values that their judgements may hold."""

from __future__ import annotations

from pydantic import BaseModel

from finllm.agents.agent import LABELS, Agent
from finllm.agents.compliance import COMPLIANCE
from finllm.agents.market_signal import MARKET_SIGNAL, AskedHowSure
from finllm.agents.narrative import NARRATIVE
from finllm.agents.sanity_checker import SANITY_CHECKER
from finllm.agents.stress_tester import STRESS_TESTER
from finllm.agents.validator import VALIDATOR
from finllm.scheduler.decoding.template import Choose, Pick, compile_template

AGENTS: tuple[Agent, ...] = (MARKET_SIGNAL, NARRATIVE, SANITY_CHECKER, VALIDATOR, STRESS_TESTER, COMPLIANCE)

EARLIER: dict[str, type[BaseModel]] = {MARKET_SIGNAL.role: AskedHowSure}
"""Judgement types of earlier engines, by role, so that their runs can still be read."""


class _EveryLabel(dict[str, str]):
    def __missing__(self, field: str) -> str:
        del field
        return LABELS


def judgement_fields() -> dict[str, tuple[str, ...]]:
    """The values of every field of every agent's judgement, by `role.field`; a citing field has the letters."""
    found: dict[str, tuple[str, ...]] = {}
    for agent in AGENTS:
        for step in compile_template(agent.judgement, _EveryLabel(), count=agent.picks):
            if isinstance(step, Choose):
                found[f"{agent.role}.{step.field}"] = step.values
            elif isinstance(step, Pick):
                found[f"{agent.role}.{step.field}"] = step.labels
    return found
