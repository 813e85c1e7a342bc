"""The grammar of free text: words without digits, references to evidence, and names that are allowed to hold digits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

PLAIN = r"""[^\W\d_]|[ .,;:!?'()&/$€£%+-]|[\u2010-\u2015\u2018\u2019]"""
"""What prose is made of, as alternatives of a regular expression: letters, spaces and common punctuation."""


@dataclass(frozen=True)
class Prose:
    """What a piece of free text may hold: plain words, `[[E7]]` for each of `references`, and each of `names`.

    A model never writes a number: digits occur in references and names only. Quotes, backslashes and line breaks do
    not occur, so that the text stands in a JSON string as it is.
    """

    references: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def literals(self) -> tuple[str, ...]:
        """The passages that may stand in the text beyond plain words, each at the start of a word."""
        return tuple(f"[[{reference}]]" for reference in self.references) + self.names

    @cached_property
    def pattern(self) -> str:
        """A regular expression that the whole text matches."""
        return f"({'|'.join([*(re.escape(literal) for literal in self.literals), PLAIN])})*"

    def allows(self, text: str) -> bool:
        """Whether the text keeps to the grammar."""
        return re.fullmatch(self.pattern, text) is not None
