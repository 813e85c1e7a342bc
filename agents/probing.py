"""How well a backend judges: each agent's probes (`probes/*.yaml`), asked with its own prompt and template."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from finllm.agents.agent import (
    LABELS,
    NEUTRAL,
    Agent,
    Offered,
    labels_of,
    neutral_inputs,
    prior_of,
    prompt_version,
    render,
)  # fmt: skip
from finllm.agents.roles import AGENTS
from finllm.models.cards import Card
from finllm.scheduler.backends import Backend, Request
from finllm.scheduler.calibration import Quality, wilson_lower
from finllm.scheduler.filling import Choices, best
from finllm.scheduler.template import Choose, Pick, Template, compile_template, part_of

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


async def measure_quality(backend: Backend, agent: Agent, card: Card | None = None) -> Quality:
    """Ask a backend every probe of an agent, side by side where the backend can. Errors: BackendError.

    Scores are calibrated by the `card` of the adapter in the weights or, where that says nothing of the agent, divided
    by those of the same prompt without content, as in a run; that one is asked once for all probes of the same shape.
    """
    items = probe_set(agent.role).items
    shapes: dict[object, list[Probe]] = {}
    for probe in items:
        shapes.setdefault(_shape(probe), []).append(probe)
    groups = await asyncio.gather(*(_scores(backend, agent, probes, card) for probes in shapes.values()))
    scores = [score for group in groups for score in group]
    mean = sum(scores) / len(items)
    chance = sum(_chance(agent, probe) for probe in items) / len(items)
    return Quality(score=mean, lower=wilson_lower(mean, len(items)), chance=chance, items=len(items))


async def _scores(backend: Backend, agent: Agent, probes: Sequence[Probe], card: Card | None) -> list[float]:
    """The share of labelled fields that were right, for each of some probes of one shape."""
    labelled = {name for probe in probes for name in probe.expected}
    calibration = {} if card is None else card.fields_of(agent.role, prompt_version(agent))
    priors = {field: prior_of(calibrated) for field, calibrated in calibration.items()}
    if labelled - set(priors):
        priors = await _choices(backend, agent, probes[0], template_of(agent, probes[0], labelled), None) | priors
    answers = await asyncio.gather(
        *(_choices(backend, agent, probe, template_of(agent, probe, probe.expected), priors) for probe in probes)
    )
    return [
        sum(best(choices[name]) == value for name, value in probe.expected.items()) / len(probe.expected)
        for probe, choices in zip(probes, answers, strict=True)
    ]


def _shape(probe: Probe) -> object:
    """What the prompt without content still shows of a probe."""
    return (
        tuple(sorted((name, bool(text)) for name, text in probe.inputs.items())),
        tuple(sorted((field, len(lines)) for field, lines in probe.cites.items())),
    )


def template_of(agent: Agent, probe: Probe, fields: Collection[str]) -> Template:
    """The part of the agent's template that asks `fields`. Errors: ValueError for a field that it has not."""
    whole = compile_template(agent.judgement, labels_of(agent, _cites(agent, probe)), count=agent.picks)
    return part_of(whole, fields)


async def _choices(backend: Backend, agent: Agent, probe: Probe, template: Template, priors: Choices | None) -> Choices:
    """What the backend decides about a probe; without priors, about the same prompt without its content."""
    cites = _cites(agent, probe)
    lines = [line for field in labels_of(agent, cites) for line in cites[field]]
    shown = [Offered(str(at), NEUTRAL if priors is None else line) for at, line in enumerate(lines)]
    inputs = neutral_inputs(probe.inputs) if priors is None else probe.inputs
    prompt = render(agent, inputs, dict(zip(LABELS, shown, strict=False)))
    return (await backend.generate(Request(prompt, template, priors, seed=0))).choices


def _cites(agent: Agent, probe: Probe) -> dict[str, tuple[str, ...]]:
    """The offered lines of every citing field; none where the probe names none."""
    fields = labels_of(agent, _Nothing())
    return {field: probe.cites.get(field, ()) for field in fields}


class _Nothing(dict[str, tuple[str, ...]]):
    def __missing__(self, field: str) -> tuple[str, ...]:
        del field
        return ()


def _chance(agent: Agent, probe: Probe) -> float:
    """Expected score of a uniform guess among the values of each labelled field."""
    sizes: dict[str, int] = {}
    for step in template_of(agent, probe, probe.expected):
        if isinstance(step, Choose):
            sizes[step.field] = len(step.values)
        elif isinstance(step, Pick):
            sizes[step.field] = len(step.labels)
    return sum(1 / sizes[name] for name in probe.expected) / len(probe.expected)
