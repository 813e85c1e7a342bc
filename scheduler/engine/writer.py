"""Writing free text token by token: one writer per request, greedy or sampled, inside the grammar of its prose."""

from __future__ import annotations

import re
from functools import cache
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from finllm.scheduler.decoding.prose import PLAIN, Prose
from finllm.scheduler.decoding.template import Write
from finllm.scheduler.engine.native import Logits
from finllm.scheduler.engine.vocabulary import Vocabulary

TOP = 64
"""Sampling chooses among so many of the most probable tokens."""

_plain_tokens: WeakKeyDictionary[Vocabulary, NDArray[np.bool_]] = WeakKeyDictionary()
_closing_tokens: WeakKeyDictionary[Vocabulary, frozenset[int]] = WeakKeyDictionary()


class Writer:
    """Writes one piece of text. `written` holds its tokens.

    Prose is bounded by masking logits: a token is offered if all of it is plain words, or if it goes on with (or
    begins) a reference or name that still fits. Checking tokens one mask at a time costs microseconds where a grammar
    over the vocabulary costs more than the model.
    """

    def __init__(self, vocabulary: Vocabulary, write: Write, seed: int) -> None:
        self._vocabulary = vocabulary
        self._write = write
        self._random = np.random.default_rng(seed)
        self.written: list[int] = []
        self._plain: NDArray[np.bool_] | None = None
        self._ends = vocabulary.ends
        self._literals: list[tuple[int, ...]] = []
        self._open: list[tuple[int, ...]] = []
        self._bound = False
        if write.prose is not None:
            self._plain = _plain(vocabulary)
            self._ends = _closing(vocabulary)
            self._literals = _literals(vocabulary, write.prose)

    @property
    def done(self) -> bool:
        return len(self.written) >= self._write.tokens

    def take(self, logits: Logits) -> bool:
        """Choose the next token by its logits; False where the text has ended instead."""
        allowed = self._allowed(self._write.tokens - len(self.written))
        scores = logits if allowed is None else np.where(allowed, logits, -np.inf)
        token = int(scores.argmax()) if self._write.temperature <= 0 else self._sampled(scores)
        if token in self._ends or scores[token] == -np.inf:
            return False
        self.written.append(token)
        self._follow(token)
        return True

    def text(self) -> str:
        return self._vocabulary.text(self.written)

    def _allowed(self, left: int) -> NDArray[np.bool_] | None:
        if self._plain is None:
            return None
        goes_on = [rest[0] for rest in self._open if len(rest) <= left]
        if self._bound:
            allowed = np.zeros_like(self._plain)
        else:
            allowed = self._plain.copy()
            allowed[list(self._ends)] = True
            goes_on += [literal[0] for literal in self._literals if len(literal) <= left]
        allowed[goes_on] = True
        return allowed

    def _follow(self, token: int) -> None:
        """Keep track of the literals that the last tokens may belong to; behind a token of no plain word, one must."""
        if self._plain is None:
            return
        begun = [] if self._bound else [literal[1:] for literal in self._literals if literal[0] == token]
        rests = [rest[1:] for rest in self._open if rest[0] == token] + begun
        self._open = [rest for rest in rests if rest]
        ended = len(self._open) < len(rests)
        self._bound = not ended and (self._bound or not self._plain[token])

    def _sampled(self, scores: Logits) -> int:
        top = np.argpartition(scores, -TOP)[-TOP:]
        top = top[np.lexsort((top, -scores[top]))]
        weights = np.exp((scores[top] - scores[top[0]]).astype(np.float64) / self._write.temperature)
        return int(self._random.choice(top, p=weights / weights.sum()))


def _literals(vocabulary: Vocabulary, prose: Prose) -> list[tuple[int, ...]]:
    return [tuple(vocabulary.tokenize(f" {literal}")) for literal in prose.literals]


def _plain(vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """Which tokens are plain words by themselves; bool array of shape (vocabulary,)."""
    if vocabulary not in _plain_tokens:
        plain = [_is_plain(piece) for piece in vocabulary.pieces]
        _plain_tokens[vocabulary] = np.array(plain, dtype=np.bool_)
    return _plain_tokens[vocabulary]


def _closing(vocabulary: Vocabulary) -> frozenset[int]:
    """Tokens that end prose: those that end a generation, the quote that closes a JSON string, a line break."""
    if vocabulary not in _closing_tokens:
        pieces = enumerate(vocabulary.pieces)
        _closing_tokens[vocabulary] = vocabulary.ends | {t for t, piece in pieces if piece[:1] in (b'"', b"\n")}
    return _closing_tokens[vocabulary]


@cache
def _plain_pattern() -> re.Pattern[str]:
    return re.compile(f"({PLAIN})+")


def _is_plain(piece: bytes) -> bool:
    try:
        return _plain_pattern().fullmatch(piece.decode()) is not None
    except UnicodeDecodeError:
        return False
