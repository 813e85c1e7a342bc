"""Asking an agent many questions outside a run: its own prompt and types, only the fields wanted, side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from finllm.agents.agent import LABELS, NEUTRAL, Agent, Offered, labels_of, neutral_inputs, render
from finllm.errors import BackendError
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
    divide: bool = True,
) -> list[Told]:
    """Ask every question, in order of the answers as of the questions; `done` hears how many are answered.

    With `divide`, scores are divided by those of the same prompt without content, asked once for each shape: what a
    model needs that was not trained on the prompts. A question that fails is an abstention. Errors: BackendError where
    the model answers not even the prompt without content.
    """
    fields: dict[object, set[str]] = {}
    first: dict[object, Question] = {}
    for question in questions:
        fields.setdefault(question.shape, set()).update(question.fields)
        first.setdefault(question.shape, question)
    priors: dict[object, Choices] = {}
    for shape, question in first.items():
        wanted = tuple(sorted(fields[shape]))
        lines = (NEUTRAL,) * len(question.lines)
        blank = Question(question.agent, neutral_inputs(question.inputs), wanted, lines)
        priors[shape] = (await _generate(backend, blank, None)).choices
    finished = 0
    free = asyncio.Semaphore(AT_ONCE)

    async def one(question: Question) -> Told:
        nonlocal finished
        async with free:
            try:
                said = await _generate(backend, question, priors[question.shape] if divide else None)
                told = Told(said.choices, said.seconds)
            except BackendError as error:
                told = Told({}, 0.0, error.message)
        finished += 1
        done(finished)
        return told

    return list(await asyncio.gather(*(one(question) for question in questions)))


async def _generate(backend: Backend, question: Question, priors: Choices | None) -> Generation:
    lines = {label: Offered(label, line) for label, line in zip(LABELS, question.lines, strict=False)}
    prompt = render(question.agent, question.inputs, lines)
    return await backend.generate(Request(prompt, template_for(question), priors, seed=0))


def template_for(question: Question) -> Template:
    """The part of the agent's template that asks the question's fields. Errors: ValueError for one that it has not."""
    agent = question.agent
    whole = compile_template(agent.judgement, labels_of(agent, {"because": question.lines}), count=agent.picks)
    return part_of(whole, question.fields)
