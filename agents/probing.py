"""Scores a backend on each agent's probes (`agents/probes/*.yaml`), asked with the agent's own prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from finllm.agents.agent import Agent, prompt_version
from finllm.agents.asking import Question, ask_all
from finllm.agents.roles import AGENTS
from finllm.models.cards import AdapterCard
from finllm.scheduler.backends import Backend
from finllm.scheduler.calibration.measured import Quality, wilson_lower
from finllm.scheduler.decoding.filling import Choices, best
from finllm.scheduler.decoding.template import Choose, Pick

PROBES = Path(__file__).resolve().parent / "probes"


class Probe(BaseModel):
    """One case. `expected`: the right value of each labelled dotted field; a citing field's is its line's letter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: dict[str, str] = Field(default_factory=dict)
    cites: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    expected: dict[str, str] = Field(min_length=1)


class ProbeSet(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    agent: str
    items: tuple[Probe, ...]


@cache
def probe_set(role: str) -> ProbeSet:
    return ProbeSet.model_validate(yaml.safe_load((PROBES / f"{role}.yaml").read_text(encoding="utf-8")))


def probes_digest(agents: Sequence[Agent] = AGENTS) -> str:
    """12 hex digits that change with any probe, prompt or judgement type."""
    digest = hashlib.sha256()
    for agent in agents:
        digest.update((PROBES / f"{agent.role}.yaml").read_bytes())
        digest.update(f"{prompt_version(agent)}{agent.judgement.model_json_schema()}".encode())
    return digest.hexdigest()[:12]


async def measure_quality(backend: Backend, agent: Agent, card: AdapterCard | None = None) -> Quality:
    """Ask a backend every probe of an agent, side by side where the backend can; scores as `ask_all` calibrates them.

    Errors: BackendError.
    """
    items = probe_set(agent.role).items
    told = await ask_all(backend, [asked_alone(agent, probe) for probe in items], card=card)
    for one in told:
        if one.failure is not None:
            raise one.failure
    score = sum(_right(probe, one.choices) for probe, one in zip(items, told, strict=True)) / len(items)
    chance = sum(_chance(agent, probe) for probe in items) / len(items)
    return Quality(score=score, lower=wilson_lower(score, len(items)), chance=chance, items=len(items))


def asked_alone(agent: Agent, probe: Probe) -> Question:
    """A probe as a question that asks its labelled fields alone."""
    return Question(agent, probe.inputs, tuple(probe.expected), probe.cites)


def _right(probe: Probe, choices: Choices) -> float:
    """The share of labelled fields that were right."""
    return sum(best(choices[name]) == value for name, value in probe.expected.items()) / len(probe.expected)


def _chance(agent: Agent, probe: Probe) -> float:
    """Expected score of a uniform guess among the values of each labelled field."""
    sizes: dict[str, int] = {}
    for step in asked_alone(agent, probe).template:
        if isinstance(step, Choose):
            sizes[step.field] = len(step.values)
        elif isinstance(step, Pick):
            sizes[step.field] = len(step.labels)
    return sum(1 / sizes[name] for name in probe.expected) / len(probe.expected)
