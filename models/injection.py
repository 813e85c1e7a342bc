"""Judges whether a sentence instructs a machine: an adapted MiniLM of its own, of English alone.

It reads sentence by sentence, and what stands in brackets or in a cell of a table once more by itself: one line among
many is lost in their mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from finllm.models.second_opinion import INJECTION, SecondOpinion

INJECTIONS = "injection"
"""The name of its weights and its card in `models/heads/`."""
LEAST_WORDS = 2
"""Words of a sentence that is judged: an order may have no more."""
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])[\"'”’»)\]]*\s+|\n+")
_INSIDE = re.compile(r"[\[{«<(|]([^\[\]{}«»<>()|]{8,300})[\]}»>)|]")


class InjectionJudge:
    """Loaded on first use; safe to share between threads. Errors of its methods: BackendError, see `SecondOpinion`."""

    def __init__(self, reader: SecondOpinion) -> None:
        self.reader = reader

    @property
    def digest(self) -> str:
        """What a verdict follows from."""
        return self.reader.digest

    def suspicions(self, parts: Sequence[str]) -> list[float]:
        """How probably each part of a text, a sentence in English, instructs a machine."""
        return [one[INJECTION]["injected"] for one in self.reader.judge(parts)]

    def instructions(self, parts: Sequence[str]) -> list[str]:
        """Those parts at which it raises an alarm."""
        alarm = self.reader.card.alarm_alone
        return [part for part, odds in zip(parts, self.suspicions(parts), strict=True) if odds >= alarm]


def pieces(text: str) -> list[str]:
    """The sentences and lines of a text of `LEAST_WORDS` or more, and what stands in brackets and cells inside them."""
    found: list[str] = []
    for one in _SENTENCE_END.split(text):
        part = one.strip()
        if len(part.split()) < LEAST_WORDS:
            continue
        found.append(part)
        found += [inside for match in _INSIDE.finditer(part) if len((inside := match[1].strip()).split()) > LEAST_WORDS]
    return found
