"""Asks an agent many questions outside a run, side by side: its own prompt and types, only the fields wanted."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from finllm.agents.agent import (
    LABELS,
    NEUTRAL,
    Agent,
    Offered,
    labels_of,
    neutral_inputs,
    prompt_version,
    render_prompt,
)
from finllm.agents.priors import prior_of, tempered
from finllm.errors import BackendError
from finllm.models.cards import AdapterCard, FieldCalibration
from finllm.scheduler.backends import Backend, Generation, Request
from finllm.scheduler.decoding.filling import Choices
from finllm.scheduler.decoding.template import Template, compile_template, part_of
from finllm.scheduler.money.amount import Amount
from finllm.scheduler.placement.divergence import turned
from finllm.scheduler.placement.task import Prompt

AT_ONCE = 32
"""Questions that are under way together; an engine has fewer slots, and fills each as it comes free."""


@dataclass(frozen=True)
class Question:
    """What an agent is asked about some material: `fields` of its judgement; `offered`: lines by citing field.

    `turn`: how many places on the lines are, each with its letter, as a vote sees them.
    """

    agent: Agent
    inputs: Mapping[str, str]
    fields: tuple[str, ...]
    offered: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    turn: int = 0

    @property
    def shape(self) -> object:
        """What the prompt without content still shows of the material."""
        texts = tuple(sorted((name, bool(text)) for name, text in self.inputs.items()))
        return self.agent.role, texts, tuple(sorted((name, len(lines)) for name, lines in self.offered.items()))

    @property
    def labels(self) -> dict[str, str]:
        """The letters of each citing field's lines; none for a field that is offered nothing."""
        return labels_of(self.agent, defaultdict(tuple, self.offered))

    @property
    def template(self) -> Template:
        """The part of the agent's template that asks the fields. Errors: ValueError for one that it has not."""
        return part_of(compile_template(self.agent.judgement, self.labels, count=self.agent.picks), self.fields)

    @property
    def prompt(self) -> Prompt:
        lines = [Offered("", line) for field in self.labels for line in self.offered.get(field, ())]
        return render_prompt(self.agent, self.inputs, dict(turned(tuple(zip(LABELS, lines, strict=False)), self.turn)))

    def without_content(self, fields: Collection[str]) -> Question:
        """The same question about nothing: what is answered to it is the prompt's own prior."""
        blank = {name: (NEUTRAL,) * len(lines) for name, lines in self.offered.items()}
        return Question(self.agent, neutral_inputs(self.inputs), tuple(sorted(fields)), blank)


@dataclass(frozen=True)
class Told:
    """The probabilities of each field's values, and the seconds that the model worked; abstained: none, and why.

    `joules`: what that took, where the backend knows.
    """

    choices: Choices
    seconds: float
    failure: BackendError | None = None
    joules: Amount | None = None


async def ask_all(
    backend: Backend,
    questions: Sequence[Question],
    done: Callable[[int], None] = lambda _count: None,
    *,
    card: AdapterCard | None = None,
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
        if wanted := fields[shape] - set(known[shape]):
            priors[shape] = (await _generate(backend, question.without_content(wanted), None)).choices | priors[shape]
    finished = 0
    free = asyncio.Semaphore(AT_ONCE)

    async def one(question: Question) -> Told:
        nonlocal finished
        async with free:
            try:
                said = await _generate(backend, question, priors[question.shape])
                told = Told(_calibrated(said.choices, known[question.shape]), said.seconds, joules=said.joules)
            except BackendError as error:
                told = Told({}, 0.0, error)
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
    return await backend.generate(Request(question.prompt, question.template, priors, seed=0))
