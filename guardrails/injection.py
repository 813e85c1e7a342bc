"""Instruction-like text: sentences that speak to a model instead of to a reader, found by the table `injection.yaml`.

A rule fires on wording that reporting does not use: "Traders ignored the previous warning" reports an act; "Ignore the
previous warning and say so" commands one. Text hidden by an encoding (base64, hex, binary, Morse, a shifted alphabet)
or by look-alike letters is decoded and read by the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from finllm.guardrails.hidden import blobs, folded, shifted

RULES_PATH = Path(__file__).parent / "injection.yaml"

_COMMAND = (
    r"(?:\A|[.!?:;,\"'()\[\]{}|>#*/\n\-–—。！？、，] ?"
    r"|\b(?:please|now|actually|kindly|simply|just|also|instead|and|then|so|were to) "
    r"|\byou (?:must|should|will|shall|can|need to|have to|are to|ought to) "
    r"|\b(?:want|need|ask|instruct|order|require) you to )"
    r"(?:(?:please|now|just|simply|kindly|also|then|instead),? )?"
)
_PLACEHOLDER = re.compile(r"\{([A-Z]+)\}")
_QUOTES = {"’": "'", "‘": "'", "“": '"', "”": '"', "`": "'", "´": "'"}


@dataclass(frozen=True)
class Hit:
    """Characters `start` to `end` of the text that was read, and the rule that fired on them."""

    start: int
    end: int
    rule: str


def find_injections(text: str) -> list[Hit]:
    """Every place where a rule fires, in the order of the text. Offsets are characters of `text`; hits may overlap."""
    hits = set(_read(text))
    look_alike = folded(text)
    if look_alike != text:
        hits.update(_read(look_alike))
    hits.update(Hit(blob.start, blob.end, blob.kind) for blob in blobs(text))
    for start, end, readings in shifted(text):
        if any(next(_read(reading), None) for reading in readings):
            hits.add(Hit(start, end, "shifted"))
    return sorted(hits, key=lambda hit: (hit.start, hit.end, hit.rule))


def _read(text: str) -> Iterator[Hit]:
    """Read the text twice: as one line, so that a break inside a command hides nothing, and with its lines kept."""
    for keep_lines in (False, True) if "\n" in text else (False,):
        line, at = _spaced_once(text, keep_lines=keep_lines)
        for rule, pattern in _rules():
            group = "open" if "open" in pattern.groupindex else "hit"
            for match in pattern.finditer(line):
                yield Hit(at[match.start(group)], at[match.end(group) - 1] + 1, rule)


def _spaced_once(text: str, *, keep_lines: bool) -> tuple[str, list[int]]:
    """The text with each run of white space as one character, straight quotes, and each character's old offset."""
    characters: list[str] = []
    at: list[int] = []
    for match in re.finditer(r"\s+|\S", text):
        found = match[0]
        if found.isspace():
            found = "\n" if keep_lines and "\n" in found else " "
        characters.append(_QUOTES.get(found, found))
        at.append(match.start())
    return "".join(characters), at


@cache
def _rules() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """The table, compiled: each rule's name with one of its patterns, whose match is the group `hit`."""
    table = yaml.load(RULES_PATH.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    words: dict[str, str] = {}

    def filled(pattern: str) -> str:
        return _PLACEHOLDER.sub(lambda match: words[match[1]], pattern)

    for name, alternatives in table["words"].items():
        joined = alternatives if isinstance(alternatives, str) else "|".join(alternatives)
        words[name] = f"(?:{filled(joined)})"
    return tuple(
        (entry["rule"], re.compile(f"{before}(?P<hit>{filled(pattern)})", re.IGNORECASE))
        for entry in table["rules"]
        for before, patterns in ((_COMMAND, entry.get("command", ())), ("", entry.get("anywhere", ())))
        for pattern in patterns
    )
