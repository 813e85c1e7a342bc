"""A seeded drawing of sentences: fragments and frames from the files in parts/, forms of verbs, capitals, splits."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from training.corpus.schema import SPLITS, Split

PARTS = Path(__file__).parent / "parts"
_SLOT = re.compile(r"\{(\w+)\}")
_START = re.compile(r"(\A|[.!?:]\s+)([a-zà-ÿ])")
_SENTENCE = re.compile(r"(\A|[.!?]\s+)([a-zà-ÿ])")
T = TypeVar("T")


@cache
def parts(name: str) -> dict[str, Any]:
    """The fragments of a task, from parts/<name>.yaml."""
    return yaml.safe_load((PARTS / f"{name}.yaml").read_text(encoding="utf-8"))


def rows(block: str, columns: int = 0) -> list[list[str]]:
    """The lines of a block, each cut at its `|`; with `columns` the last of so many may hold a `|` of its own."""
    return [[cell.strip() for cell in line.split("|", columns - 1)] for line in lines(block)]


def lines(block: str) -> list[str]:
    return [line.strip() for line in block.splitlines() if line.strip()]


def digest(text: str) -> str:
    """Eight hexadecimal digits that name a frame or an event for good."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def divide(keys: Iterable[str], share: float = 0.1) -> dict[str, Split]:
    """Each key's split: about `share` of them to test and to validation each (at least one of three), by digest."""
    return dict(_divided(tuple(keys), share))


@cache
def _divided(keys: tuple[str, ...], share: float) -> dict[str, Split]:
    ranked = sorted(set(keys), key=lambda key: (hashlib.sha256(f"split {key}".encode()).hexdigest(), key))
    held = max(1, round(len(ranked) * share)) if len(ranked) >= len(SPLITS) else 0
    split: dict[str, Split] = dict.fromkeys(ranked, "train")
    split.update(dict.fromkeys(ranked[:held], "test"))
    split.update(dict.fromkeys(ranked[held : 2 * held], "validation"))
    return split


def portion(options: Sequence[T], split: Split, key: Callable[[T], str] = str, share: float = 0.1) -> list[T]:
    """The options that belong to a split: fragments that would give a label away are held out like frames."""
    of = _divided(tuple(key(option) for option in options), share)
    return [option for option in options if of[key(option)] == split]


def fill(frame: str, slots: Mapping[str, Callable[[], str]]) -> str:
    """The frame with every `{slot}` drawn anew. Errors: KeyError for a slot that nobody fills."""
    return " ".join(_SLOT.sub(lambda match: slots[match[1]](), frame).replace("{{", "{").replace("}}", "}").split())


def cap(text: str) -> str:
    return text[:1].upper() + text[1:]


def styled(text: str, register: str, rng: random.Random) -> str:
    """The text as its register would spell it: posts in small letters, broken English short of articles."""
    if register == "social":
        return text.lower() if rng.random() < 0.6 else text
    if register == "broken":
        text = re.sub(r"\b(?:the|a|an) ", lambda m: "" if rng.random() < 0.55 else m[0], text)
        text = re.sub(r"\b(is|are|was|were) ", lambda m: "" if rng.random() < 0.2 else m[0], text)
    text = _SENTENCE.sub(lambda m: m[1] + m[2].upper(), text)
    if register == "wire" and rng.random() < 0.12:
        return text.rstrip(".").upper()
    return text


def plural(noun: str) -> tuple[str, bool]:
    """A noun without its mark, and whether `:p` marked it as a plural."""
    return (noun[:-2], True) if noun.endswith(":p") else (noun, False)


def joined(clauses: Sequence[str]) -> str:
    return clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])} and {clauses[-1]}"


def draw(rng: random.Random, options: Sequence[str]) -> Callable[[], str]:
    return lambda: rng.choice(options)
