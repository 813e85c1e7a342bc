"""The grounding guard: a sentence's numbers come from evidence rows, or the sentence does not get out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from finllm.errors import GroundingError
from finllm.tools.evidence import EvidenceTable, show

NAMES = ("S&P 500", "10-year", "US 10-year", "RATE_US_10Y", "as_of")
"""Names with digits that a sentence may carry."""

_REFERENCE = re.compile(r"\[\[([A-Za-z][A-Za-z0-9_]*)\]\]")
_CUT = "\0"
"""Stands where a reference or a name was, so that what was around it cannot join up to another name."""


def cited(sentence: str) -> list[str]:
    """The evidence ids that a sentence refers to, in order."""
    return [name for name in _REFERENCE.findall(sentence) if re.fullmatch(r"E[1-9][0-9]*", name)]


def ground(sentence: str, evidence: EvidenceTable, quotes: Mapping[str, str] | None = None) -> str:
    """Fill in a sentence's `[[E7]]` references with the rows' values, and its `[[name]]` references from `quotes`.

    Quotes are the user's own words (a title, an instrument's id), shown as such. Errors: GroundingError for a number
    outside a reference, or a reference to nothing.
    """
    bare = _REFERENCE.sub(_CUT, sentence)
    for name in NAMES:
        bare = bare.replace(name, _CUT)
    if any(character.isnumeric() for character in bare):
        raise GroundingError(
            f"the sentence {sentence!r} carries a number that no evidence row carries",
            fix="cite the row as [[E…]], or report this as a fault of finllm",
        )

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name in evidence:
            return show(evidence[name].value, evidence[name].unit)
        if quotes is not None and name in quotes:
            return quotes[name]
        raise GroundingError(
            f"the sentence {sentence!r} refers to {name!r}, which no evidence row is",
            fix="cite an existing row, or report this as a fault of finllm",
        )

    return _REFERENCE.sub(fill, sentence)
