"""A text with parts removed or replaced, in which every character still knows its place in the original."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Traced:
    """`text`, and for each character the first and last-plus-one offset of what it came from in the original."""

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> Traced:
        return cls(text, tuple(range(len(text))), tuple(range(1, len(text) + 1)))

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """Where characters `start` to `end` (not empty) came from."""
        return self.starts[start], max(self.ends[start:end])

    def replace(self, edits: Iterable[tuple[int, int, str]]) -> Traced:
        """Replace spans, given in order and apart, each by a text whose characters all come from the whole span."""
        pieces: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        last = 0
        for start, end, new in edits:
            pieces += (self.text[last:start], new)
            starts += self.starts[last:start]
            ends += self.ends[last:start]
            if new:
                begin, stop = self.origin(start, end)
                starts += [begin] * len(new)
                ends += [stop] * len(new)
            last = end
        pieces.append(self.text[last:])
        starts += self.starts[last:]
        ends += self.ends[last:]
        return Traced("".join(pieces), tuple(starts), tuple(ends))

    def substitute(self, pattern: re.Pattern[str], new: Callable[[re.Match[str]], str]) -> Traced:
        """Like `re.sub` with a function, traced; matches that would stay as they are cost nothing."""
        edits = [(m.start(), m.end(), new(m)) for m in pattern.finditer(self.text)]
        changed = [(start, end, text) for start, end, text in edits if self.text[start:end] != text]
        return self.replace(changed) if changed else self

    def nfkc(self) -> Traced:
        """In Unicode normal form NFKC: full-width letters, ligatures and the like become plain."""
        if unicodedata.is_normalized("NFKC", self.text):
            return self
        edits = [
            (start, end, unicodedata.normalize("NFKC", self.text[start:end])) for start, end in _clusters(self.text)
        ]
        return self.replace([(start, end, new) for start, end, new in edits if self.text[start:end] != new])


def _clusters(text: str) -> Sequence[tuple[int, int]]:
    """Spans that normalise on their own: a character with those after it that combine with it."""
    spans: list[tuple[int, int]] = []
    start = 0
    for i in range(1, len(text) + 1):
        if i < len(text) and (not text[i].isascii() and _joins(text[start:i], text[i])):
            continue
        spans.append((start, i))
        start = i
    return spans


def _joins(before: str, character: str) -> bool:
    if unicodedata.combining(character):
        return True
    normal = unicodedata.normalize
    return normal("NFKC", before + character) != normal("NFKC", before) + normal("NFKC", character)
