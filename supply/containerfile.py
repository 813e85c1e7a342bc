"""Reads a Containerfile: its stages with their steps in order. What finllm's own does not use is an error."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

STEPS = ("ARG", "RUN", "COPY", "WORKDIR", "ENV", "USER", "VOLUME", "ENTRYPOINT", "CMD")


@dataclass(frozen=True)
class Step:
    """One instruction and its words; of RUN, the shell's line as one word."""

    kind: str
    words: tuple[str, ...]


@dataclass
class Stage:
    """A stage: the image that it begins with, its name, its steps."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list[Step])

    def last(self, kind: str) -> tuple[str, ...]:
        """The words of the last step of a kind, none where there is none."""
        return next((step.words for step in reversed(self.steps) if step.kind == kind), ())


def read(text: str) -> list[Stage]:
    """The stages. Errors: ValueError for an instruction that is not known here."""
    stages: list[Stage] = []
    arguments: dict[str, str] = {}
    for kind, rest in _lines(text):
        if kind == "ARG" and not stages:
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif kind == "FROM":
            base, *named = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], rest).split()
            stages.append(Stage(base, named[1] if named else ""))
        elif kind in STEPS and stages:
            stages[-1].steps.append(Step(kind, _words(kind, rest)))
        else:
            raise ValueError(f"the instruction {kind} {rest!r} is not known")
    return stages


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip() and not line.startswith("#"):
            kind, _, rest = line.strip().partition(" ")
            yield kind, rest.strip()


def _words(kind: str, rest: str) -> tuple[str, ...]:
    if kind == "RUN":
        return (rest,)
    return tuple(json.loads(rest)) if rest.startswith("[") else tuple(shlex.split(rest))
