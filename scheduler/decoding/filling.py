"""Filling a template: one rule for every tier, whatever the model that scores.

`walk` is the rule. It asks for scores at each choice, so that every field comes with a probability per value, and for
text at each piece of prose. Choices that do not wait for one another make one round; a backend answers it as it likes,
one question at a time or all in one batch.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from finllm.errors import BackendError
from finllm.scheduler.decoding.template import Choose, Force, Pick, Template, Write

LEAST_PRIOR = 0.02
"""Priors below this count as this much, so that a value the model never says unasked cannot win by that alone."""

Priors = Mapping[str, Mapping[str, float]]
"""By field the probability of each value that a prompt without content gives."""

Choices = dict[str, dict[str, float]]
"""Probability of each allowed value, by field; the values of one field sum to 1."""


@dataclass(frozen=True)
class Filled:
    """A finished template: its text (JSON for a judgement) and the probabilities behind every decided field."""

    text: str
    choices: Choices


@dataclass(frozen=True)
class Ask:
    """Give the log-probability (any common offset) of each value of `field` as the continuation of `stem`."""

    stem: str
    field: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Round:
    """Feed `text`, then answer each of `asks` on its own: its stem follows that text and no other stem."""

    text: str
    asks: tuple[Ask, ...]


@dataclass(frozen=True)
class Compose:
    """Feed `text`, then give the text that the model writes for `write`."""

    text: str
    write: Write


Walk = Generator[Round | Compose, "Sequence[Sequence[float]] | str", Filled]
"""A round is sent the scores of each ask, a `Compose` the text."""


class Scorer(Protocol):
    """A model behind a prompt."""

    def score(self, text: str, field: str, values: Sequence[str]) -> Sequence[float]:
        """Log-probability (any common offset) of each value of `field` as the continuation of the answer `text`."""
        ...


def walk(template: Template, priors: Priors | None = None) -> Walk:
    """Decide every field of a template, in as few rounds as their conditions allow.

    `priors` are the probabilities of a content-free prompt; scores are divided by them, so that a value wins by what
    the text adds and not by how often the model says it (contextual calibration; Zhao et al. 2021, eq. 1–2). Errors:
    BackendError for scores that are not numbers, or prose outside its grammar.
    """
    return (yield from _Filling(template, priors or {}).run())


def fill(template: Template, scorer: Scorer, priors: Priors | None = None) -> Filled:
    """Walk a template over a scorer, for templates without prose. Errors: as `walk`; TypeError for prose."""
    walking = walk(template, priors)
    trunk = ""
    answer: Sequence[Sequence[float]] | None = None
    while True:
        try:
            question = next(walking) if answer is None else walking.send(answer)
        except StopIteration as end:
            return end.value
        if isinstance(question, Compose):
            raise TypeError(f"field {question.write.field!r}: a scorer writes no prose")
        trunk += question.text
        answer = [scorer.score(trunk + ask.stem, ask.field, ask.values) for ask in question.asks]


class _Filling:
    """A template under way. `fed`: characters of its text that stood in a question; `texts`: what was decided."""

    def __init__(self, template: Template, priors: Priors) -> None:
        self._template = template
        self._priors = priors
        self._fed = 0
        self._texts: dict[str, str] = {}
        self._choices: Choices = {}

    def run(self) -> Walk:
        while ready := self._ready():
            opening = self._template[0]
            text = opening.text if isinstance(opening, Force) and self._fed == 0 else ""
            self._fed += len(text)
            yield from self._ask(text, ready, [self._stem(step) for step in ready])
        for at, step in enumerate(self._template):
            if isinstance(step, Force) or step.field in self._texts:
                continue
            news = self._news(at)
            if isinstance(step, Write):
                yield from self._compose(news, step)
            elif not self._settled(step):
                yield from self._ask(news + ('["' if isinstance(step, Pick) else ""), [step], [""])
        asked = {step.field: self._choices[step.field] for step in self._template if isinstance(step, Choose | Pick)}
        return Filled(self._text(len(self._template)), asked)

    def _ready(self) -> list[Choose | Pick]:
        """The steps with a stem that can be asked now."""
        return [
            step
            for step in self._template
            if isinstance(step, Choose | Pick)
            and step.stem is not None
            and step.field not in self._texts
            and (isinstance(step, Pick) or step.after is None or step.after in self._texts)
            and not self._settled(step)
        ]

    def _settled(self, step: Choose | Pick) -> bool:
        """Whether a step need not be asked; it is then decided."""
        if isinstance(step, Pick) and not (step.labels and step.count):
            self._texts[step.field] = "[]"
            self._choices[step.field] = {}
        elif isinstance(step, Choose) and step.unless and self._texts.get(step.unless.field) == step.unless.value:
            self._texts[step.field] = step.unless.then
            self._choices[step.field] = {step.unless.then: 1.0}
        return step.field in self._texts

    def _stem(self, step: Choose | Pick) -> str:
        before = ""
        if isinstance(step, Choose) and step.after is not None:
            asked = next(s for s in self._template if isinstance(s, Choose) and s.field == step.after)
            before = self._stem(asked) + self._texts[step.after]
        return before + (step.stem or "")

    def _ask(
        self, text: str, steps: Sequence[Choose | Pick], stems: Sequence[str]
    ) -> Generator[Round | Compose, Sequence[Sequence[float]] | str, None]:
        asks = tuple(
            Ask(stem, step.field, step.values if isinstance(step, Choose) else step.labels)
            for step, stem in zip(steps, stems, strict=True)
        )
        answers = yield Round(text, asks)
        for step, ask, scores in zip(steps, asks, answers, strict=True):
            found = self._probabilities(ask, [float(score) for score in scores])
            self._choices[step.field] = found
            if isinstance(step, Pick):
                chosen = sorted(found, key=lambda label, found=found: -found[label])[: step.count]
                self._texts[step.field] = "[" + ",".join(f'"{label}"' for label in chosen) + "]"
            else:
                self._texts[step.field] = best(found)

    def _compose(self, news: str, step: Write) -> Generator[Round | Compose, Sequence[Sequence[float]] | str, None]:
        text = yield Compose(news, step)
        if not isinstance(text, str) or (step.prose is not None and not step.prose.allows(text)):
            raise BackendError(f"the model left the grammar of {step.field!r}", fix="ask again")
        self._texts[step.field] = text
        self._fed += len(text)

    def _text(self, end: int) -> str:
        return "".join(
            step.text if isinstance(step, Force) else self._texts[step.field] for step in self._template[:end]
        )

    def _news(self, at: int) -> str:
        news = self._text(at)[self._fed :]
        self._fed += len(news)
        return news

    def _probabilities(self, ask: Ask, scores: list[float]) -> dict[str, float]:
        prior = self._priors.get(ask.field)
        if prior is not None:
            scores = [
                s - math.log(max(prior.get(v, 0.0), LEAST_PRIOR)) for s, v in zip(scores, ask.values, strict=True)
            ]
        top = max(scores)
        if not math.isfinite(top) or any(math.isnan(score) for score in scores):
            raise BackendError(
                f"the model gave no usable score for {ask.field!r}", fix="check its weights: 'finllm doctor'"
            )
        weights = [math.exp(score - top) for score in scores]
        total = sum(weights)
        return {value: weight / total for value, weight in zip(ask.values, weights, strict=True)}


def best(probabilities: Mapping[str, float]) -> str:
    """The most probable value; of equals the first."""
    return max(probabilities, key=lambda value: probabilities[value])
