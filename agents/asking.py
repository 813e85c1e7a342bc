"""Asking an agent many questions outside a run: its own prompt and types, only the fields wanted, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

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
    tempered,
)
from finllm.errors import BackendError
from finllm.models.cards import Card, FieldCalibration
from finllm.scheduler.backends import Backend, Generation, Request
from finllm.scheduler.filling import Choices
from finllm.scheduler.template import Template, compile_template, part_of

AT_ONCE = 32
"""Questions that are under way together; an engine has fewer slots, and fills each as it comes free."""


@dataclass(frozen=True)
class Question:
    """What an agent is asked about some material: `fields` of its judgement; `lines` are offered to `because`."""

    agent: Agent
    inputs: Mapping[str, str]
    fields: tuple[str, ...]
    lines: tuple[str, ...] = field(default=())

    @property
    def shape(self) -> object:
        """What the prompt without content still shows of the material."""
        return self.agent.role, tuple(sorted((name, bool(text)) for name, text in self.inputs.items())), len(self.lines)


@dataclass(frozen=True)
class Told:
    """The probabilities of each field's values, and the seconds that the model worked; abstained: none, and why."""

    choices: Choices
    seconds: float
    reason: str | None = None


async def ask_all(
    backend: Backend,
    questions: Sequence[Question],
    done: Callable[[int], None] = lambda _count: None,
    *,
    card: Card | None = None,
) -> list[Told]:
    """Ask every question, in order of the answers as of the questions; `done` hears how many are answered.

    As in a run, scores are calibrated by the `card` of the adapter in the weights or, where that says nothing of a
    field, divided by those of the same prompt without content, asked once for each shape. A question that fails is an
    abstention. Errors: BackendError where the model answers not even the prompt without content.
    """
    fields: dict[object, set[str]] = {}
    first: dict[object, Question] = {}
    for question in questions:
        fields.setdefault(question.shape, set()).update(question.fields)
        first.setdefault(question.shape, question)
    priors: dict[object, Choices] = {}
    known: dict[object, dict[str, FieldCalibration]] = {}
    for shape, question in first.items():
        known[shape] = {} if card is None else card.fields_of(question.agent.role, prompt_version(question.agent))
        priors[shape] = {field: prior_of(calibration) for field, calibration in known[shape].items()}
        if wanted := tuple(sorted(fields[shape] - set(known[shape]))):
            blank = Question(question.agent, neutral_inputs(question.inputs), wanted, (NEUTRAL,) * len(question.lines))
            priors[shape] = (await _generate(backend, blank, None)).choices | priors[shape]
    finished = 0
    free = asyncio.Semaphore(AT_ONCE)

    async def one(question: Question) -> Told:
        nonlocal finished
        async with free:
            try:
                said = await _generate(backend, question, priors[question.shape])
                told = Told(_calibrated(said.choices, known[question.shape]), said.seconds)
            except BackendError as error:
                told = Told({}, 0.0, error.message)
        finished += 1
        done(finished)
        return told

    return list(await asyncio.gather(*(one(question) for question in questions)))


def _calibrated(choices: Choices, known: Mapping[str, FieldCalibration]) -> Choices:
    return {
        field: tempered(found, known[field].temperature) if field in known else dict(found)
        for field, found in choices.items()
    }


async def _generate(backend: Backend, question: Question, priors: Choices | None) -> Generation:
    lines = {label: Offered(label, line) for label, line in zip(LABELS, question.lines, strict=False)}
    prompt = render(question.agent, question.inputs, lines)
    return await backend.generate(Request(prompt, template_for(question), priors, seed=0))


def template_for(question: Question) -> Template:
    """The part of the agent's template that asks the question's fields. Errors: ValueError for one that it has not."""
    agent = question.agent
    whole = compile_template(agent.judgement, labels_of(agent, {"because": question.lines}), count=agent.picks)
    return part_of(whole, question.fields)
