"""A request as a generator: it asks for tokens to be fed to the model and is sent the logits."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from finllm.scheduler.decoding.filling import Ask, Filled, Priors, Round, walk
from finllm.scheduler.decoding.scoring import Tokens, beginnings, by_first, candidates, value_scores
from finllm.scheduler.decoding.template import Template
from finllm.scheduler.engine.native import Logits
from finllm.scheduler.engine.vocabulary import Vocabulary
from finllm.scheduler.engine.writer import Writer


@dataclass(frozen=True)
class Branch:
    """Tokens fed behind a request's text and taken back at once, for the scores of `candidates` behind them.

    `whole`: the scores are log-probabilities over the whole vocabulary; else logits, which have any common offset.
    """

    tokens: Tokens
    candidates: tuple[int, ...]
    whole: bool

    def read(self, logits: Logits) -> list[float]:
        found = logits[list(self.candidates)].astype(np.float64)
        if self.whole:
            wide = logits.astype(np.float64)
            top = wide.max()
            found -= top + np.log(np.exp(wide - top).sum())
        return found.tolist()


@dataclass(frozen=True)
class Feed:
    """Feed `tokens`, then give the logits behind them or, where there are `branches`, what each of these reads."""

    tokens: list[int]
    branches: tuple[Branch, ...] = ()


Reply = Logits | list[list[float]]
Program = Generator[Feed, Reply, Filled]
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
        while True:
            tokens = waiting + vocabulary.tokenize(question.text)
            waiting = []
            if isinstance(question, Round):
                question = walking.send((yield from _scored(vocabulary, tokens, question.asks)))
            else:
                logits = yield Feed(tokens)
                writer = Writer(vocabulary, question.write, seed)
                waiting = yield from _written(writer, vocabulary, _logits(logits), on_text)
                question = walking.send(writer.text())
    except StopIteration as end:
        return end.value


def _scored(
    vocabulary: Vocabulary, tokens: list[int], asks: Sequence[Ask]
) -> Generator[Feed, Reply, list[list[float]]]:
    """Feed `tokens`, then score the values of every ask, all in one feed but for those that have no stem."""
    values = [[tuple(vocabulary.tokenize(value)) for value in ask.values] for ask in asks]
    found: list[dict[Tokens, dict[int, float]]] = [{} for _ in asks]
    branches: list[tuple[int, Tokens, Branch]] = []
    bare: list[tuple[int, Branch]] = []
    for at, ask in enumerate(asks):
        stem = tuple(vocabulary.tokenize(ask.stem))
        whole = not by_first(values[at])
        for beginning in beginnings(values[at]):
            branch = Branch(stem + beginning, tuple(candidates(values[at], beginning)), whole)
            if branch.tokens:
                branches.append((at, beginning, branch))
            else:
                bare.append((at, branch))
    if bare:
        logits = _logits((yield Feed(tokens)))
        tokens = []
        for at, branch in bare:
            found[at][()] = dict(zip(branch.candidates, branch.read(logits), strict=True))
    if branches:
        read = yield Feed(tokens, tuple(branch for _, _, branch in branches))
        for (at, beginning, branch), row in zip(branches, read, strict=True):
            found[at][beginning] = dict(zip(branch.candidates, row, strict=True))
    return [value_scores(*pair) for pair in zip(values, found, strict=True)]


def _written(
    writer: Writer, vocabulary: Vocabulary, logits: Logits, on_text: OnText | None
) -> Generator[Feed, Reply, list[int]]:
    """Write to the end; returns the last token where it is not fed yet."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    while writer.take(logits):
        token = writer.written[-1]
        if on_text is not None and (piece := decoder.decode(vocabulary.pieces[token])):
            on_text(piece)
        if writer.done:
            return [token]
        logits = _logits((yield Feed([token])))
    return []


def _logits(reply: Reply) -> Logits:
    if isinstance(reply, list):
        raise TypeError("logits were asked for, and branches' scores came")
    return reply
