"""What a request does at the model, step by step: a generator that asks for tokens to be fed and is sent logits."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np

from finllm.scheduler.engine.native import Logits
from finllm.scheduler.engine.vocabulary import Vocabulary
from finllm.scheduler.engine.writer import Writer
from finllm.scheduler.filling import Ask, Filled, Priors, walk
from finllm.scheduler.template import Template


@dataclass(frozen=True)
class Feed:
    """Go back over the last `back` tokens, then feed `tokens` and give the logits behind them."""

    tokens: list[int]
    back: int = 0


Program = Generator[Feed, Logits, Filled]
"""Logits are valid until the next `send`. Right after the prompt `Feed.tokens` may be empty: its own are meant."""

OnText = Callable[[str], None]


def typed(
    vocabulary: Vocabulary, template: Template, priors: Priors | None, seed: int, on_text: OnText | None = None
) -> Program:
    """Fill a template. `on_text` is called with each piece of free text as it is written.

    A choice is scored by the first tokens of its values; where two values share one, by whole values. Errors: as
    `filling.walk`.
    """
    walking = walk(template, priors)
    try:
        question = next(walking)
        waiting: list[int] = []
        back = 0
        while True:
            logits = yield Feed(waiting + vocabulary.tokenize(question.text), back)
            waiting, back = [], 0
            if isinstance(question, Ask):
                scores, back = yield from _scores(vocabulary, question.values, logits)
                question = walking.send(scores)
            else:
                writer = Writer(vocabulary, question.write, seed)
                waiting = yield from _written(writer, vocabulary, logits, on_text)
                question = walking.send(writer.text())
    except StopIteration as end:
        return end.value


def _scores(
    vocabulary: Vocabulary, values: tuple[str, ...], logits: Logits
) -> Generator[Feed, Logits, tuple[list[float], int]]:
    """The values' scores, and how many tokens of the last probe are still fed."""
    tokens = [vocabulary.tokenize(value) for value in values]
    if len({value[0] for value in tokens}) == len(values):
        return [float(logits[value[0]]) for value in tokens], 0
    start = logits.copy()
    scores: list[float] = []
    fed = 0
    for value in tokens:
        total = _log_probability(start, value[0])
        for position in range(1, len(value)):
            back, fed = (fed, 1) if position == 1 else (0, fed + 1)
            behind = yield Feed([value[position - 1]], back=back)
            total += _log_probability(behind, value[position])
        scores.append(total)
    return scores, fed


def _written(
    writer: Writer, vocabulary: Vocabulary, logits: Logits, on_text: OnText | None
) -> Generator[Feed, Logits, list[int]]:
    """Write to the end; returns the last token where it is not fed yet."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    while writer.take(logits):
        token = writer.written[-1]
        if on_text is not None and (piece := decoder.decode(vocabulary.pieces[token])):
            on_text(piece)
        if writer.done:
            return [token]
        logits = yield Feed([token])
    return []


def _log_probability(logits: Logits, token: int) -> float:
    wide = logits.astype(np.float64)
    top = wide.max()
    return float(wide[token] - top - np.log(np.exp(wide - top).sum()))
