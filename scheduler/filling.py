"""Filling a template: one rule for every tier, whatever the model that scores.

`walk` is the rule. It asks for scores at each choice, so that every field comes with a probability per value, and for
text at each piece of prose; a backend answers it as it likes, one sequence at a time or many in one batch.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from finllm.errors import BackendError
from finllm.scheduler.template import Choose, Force, Pick, Template, Write

LEAST_PRIOR = 0.02
"""Priors below this count as this much, so that a value the model never says unasked cannot win by that alone."""

Choices = dict[str, dict[str, float]]
"""Probability of each allowed value, by field; the values of one field sum to 1."""

Priors = Mapping[str, Mapping[str, float]]
"""Probabilities that the content-free prompt gives, by field."""


@dataclass(frozen=True)
class Filled:
    """A finished template: its text (JSON for a judgement) and the probabilities behind every decided field."""

    text: str
    choices: Choices


@dataclass(frozen=True)
class Ask:
    """Feed `text`, then give the log-probability (any common offset) of each value of `field` as its continuation."""

    text: str
    field: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Compose:
    """Feed `text`, then give the text that the model writes for `write`."""

    text: str
    write: Write


Walk = Generator[Ask | Compose, "Sequence[float] | str", Filled]


class Scorer(Protocol):
    """A model at a position in a text."""

    def feed(self, text: str) -> None:
        """Advance over `text`."""
        ...

    def score(self, field: str, values: Sequence[str]) -> Sequence[float]:
        """Log-probability (any common offset) of each value of `field` as the continuation, without advancing."""
        ...


def walk(template: Template, priors: Priors | None = None) -> Walk:
    """Decide every field of a template; text behind the last question is never asked for.

    `priors` are the probabilities of a content-free prompt; scores are divided by them, so that a value wins by what
    the text adds and not by how often the model says it (contextual calibration; Zhao et al. 2021, eq. 1–2). Errors:
    BackendError for scores that are not numbers, or prose outside its grammar.
    """
    return (yield from _Filling(priors or {}).run(template))


def fill(template: Template, scorer: Scorer, priors: Priors | None = None) -> Filled:
    """Walk a template over a scorer, for templates without prose. Errors: as `walk`; TypeError for prose."""
    walking = walk(template, priors)
    fed = 0
    answer: Sequence[float] | None = None
    while True:
        try:
            ask = next(walking) if answer is None else walking.send(answer)
        except StopIteration as end:
            filled: Filled = end.value
            scorer.feed(filled.text[fed:])
            return filled
        if isinstance(ask, Compose):
            raise TypeError(f"field {ask.write.field!r}: a scorer writes no prose")
        scorer.feed(ask.text)
        fed += len(ask.text)
        answer = scorer.score(ask.field, ask.values)


class _Filling:
    """A template under way: `text` so far, of which the first `asked` characters stood in a question."""

    def __init__(self, priors: Priors) -> None:
        self._priors = priors
        self._text = ""
        self._asked = 0
        self._choices: Choices = {}
        self._decided: dict[str, str] = {}

    def run(self, template: Template) -> Walk:
        for step in template:
            if isinstance(step, Force):
                self._text += step.text
            elif isinstance(step, Choose):
                yield from self._choose(step)
            elif isinstance(step, Pick):
                yield from self._pick(step)
            else:
                yield from self._compose(step)
        return Filled(self._text, self._choices)

    def _news(self) -> str:
        news = self._text[self._asked :]
        self._asked = len(self._text)
        return news

    def _choose(self, step: Choose) -> Generator[Ask | Compose, Sequence[float] | str, None]:
        if step.unless is not None and self._decided.get(step.unless.field) == step.unless.value:
            self._choices[step.field] = {step.unless.then: 1.0}
        else:
            self._choices[step.field] = yield from self._decide(step.field, step.values)
        self._decided[step.field] = best(self._choices[step.field])
        self._text += self._decided[step.field]

    def _pick(self, step: Pick) -> Generator[Ask | Compose, Sequence[float] | str, None]:
        """Write `["A","C"]`; the probabilities kept are those of the first decision, when every label was open."""
        left = list(step.labels)
        self._choices[step.field] = {}
        for position in range(min(step.count, len(left))):
            self._text += '["' if position == 0 else ',"'
            scores = yield from self._decide(step.field, tuple(left))
            if position == 0:
                self._choices[step.field] = scores
            chosen = best(scores)
            self._text += chosen + '"'
            left.remove(chosen)
        self._text += "]" if step.labels and step.count else "[]"

    def _compose(self, step: Write) -> Generator[Ask | Compose, Sequence[float] | str, None]:
        text = yield Compose(self._news(), step)
        if not isinstance(text, str) or (step.prose is not None and not step.prose.allows(text)):
            raise BackendError(f"the model left the grammar of {step.field!r}", fix="ask again")
        self._text += text
        self._asked = len(self._text)

    def _decide(
        self, field: str, values: tuple[str, ...]
    ) -> Generator[Ask | Compose, Sequence[float] | str, dict[str, float]]:
        answer = yield Ask(self._news(), field, values)
        scores = [float(score) for score in answer]
        prior = self._priors.get(field)
        if prior is not None:
            scores = [s - math.log(max(prior.get(v, 0.0), LEAST_PRIOR)) for s, v in zip(scores, values, strict=True)]
        top = max(scores)
        if not math.isfinite(top) or any(math.isnan(score) for score in scores):
            raise BackendError(
                f"the model gave no usable score for {field!r}", fix="check its weights: 'finllm doctor'"
            )
        weights = [math.exp(score - top) for score in scores]
        total = sum(weights)
        return {value: weight / total for value, weight in zip(values, weights, strict=True)}


def best(probabilities: Mapping[str, float]) -> str:
    """The most probable value; of equals the first."""
    return max(probabilities, key=lambda value: probabilities[value])
