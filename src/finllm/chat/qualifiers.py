"""What a question adds that its answer does not take into account (`without the bond`, `in 2008`): it is told."""

from __future__ import annotations

import re
from collections.abc import Iterator

from finllm.chat.catalogue import Kind
from finllm.chat.slots import Slots

_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_YEAR = r"(?:19|20)\d\d"
_PLAIN = r"(?!and\b|or\b|if\b|in\b|on\b|at\b|lose|gain|make)[\w&'-]+"
_THING = rf"(?:the |our |my |all |any )?(?:\[\w+\]|[\w&'-]+)(?: {_PLAIN})?"
_PAST = rf"(?:(?:the )?(?:crisis of )?{_YEAR}\b|(?:{_MONTHS})\b(?: {_YEAR})?|(?:q[1-4]|[12]h)\b|next \w+|the last \w+)"
_SAID = {
    "without": rf"\b(?:without|except(?: for)?|excluding|excl\.?|ex|apart from|other than|ignoring|net of) {_THING}",
    "least": r"\b(?:the )?(?:least|smallest|fewest|lowest)\b",
    "when": rf"\b(?:in|during|since|before|after|until|back in|by) {_PAST}"
            r"|(?:\b(?:in|on|since|from|before|after|until|by|for) )?\[when\]"
            r"|\b(?:next|last) (?:year|month|quarter|week)\b|\btomorrow\b",
    "if": r"\b(?:if|assuming|provided|suppose|unless) [^?.,;]+",
    "money": r"\bin (?:eur|euros?|gbp|pounds?|sterling|jpy|yen|chf|(?:swiss )?francs?|usd|dollars?)\b",
    "over": r"\b(?:over|within|for) (?:the next )?(?:\d+|one|two|three|six|ten|a) (?:trading )?"
            r"(?:days?|weeks?|months?|quarters?|years?)\b",
}  # fmt: skip
_ADDED = {name: re.compile(words, re.IGNORECASE) for name, words in _SAID.items()}
"""By its kind, how it is said."""
_OF: dict[str, frozenset[str]] = {
    "without": frozenset(("what_if_without", "cut", "term", "coverage")),
    "least": frozenset(("worst_position", "confidence", "term", "source_trust")),
    "when": frozenset(
        ("runs", "past_event", "precedents", "as_of", "data_age", "term", "status", "story", "source_said")
    ),
    "if": frozenset(("what_if_shock", "what_if_without", "flip", "help", "term", "reverse", "hedge", "source_said")),
    "money": frozenset(("currency", "term")),
    "over": frozenset(("horizon", "term", "forecast", "source_said", "story")),
}  # fmt: skip
"""The kinds that take it into account, or are about it."""


def unapplied(kind: Kind, slots: Slots, currency: str = "") -> tuple[str, ...]:
    """What was said besides, in its words, and is not in the answer of this kind."""
    return tuple(dict.fromkeys(_found(kind, slots, currency)))


def _found(kind: Kind, slots: Slots, currency: str) -> Iterator[str]:
    for name, pattern in _ADDED.items():
        if kind.id in _OF[name]:
            continue
        for match in pattern.finditer(slots.masked):
            said = match[0].strip()
            if name == "money" and currency and currency in _codes(said):
                continue
            if any(f"[{slot}]" in said for slot in kind.slots if name in ("when", "if")):
                continue
            yield _in_words(said, slots)


def _in_words(said: str, slots: Slots) -> str:
    """With the names in it, in place of what they are."""
    return re.sub(r"\[(\w+)\]", lambda match: " ".join(slots.all(match[1])) or match[0], said)


def _codes(said: str) -> tuple[str, ...]:
    small = said.lower()
    of = {"EUR": "eur", "GBP": "gbp|pound|sterling", "JPY": "jpy|yen", "CHF": "chf|franc", "USD": "usd|dollar"}
    return tuple(code for code, words in of.items() if re.search(words, small))
