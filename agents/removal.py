"""Makes counterfactual prompts: an asked prompt without a line of its evidence, or with the lines reversed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from finllm.scheduler.placement.task import Prompt


@dataclass(frozen=True)
class EvidenceLines:
    """The lines of evidence in a prompt: what stands before and after them, and each by its letter."""

    prompt: Prompt
    before: tuple[str, ...]
    lines: tuple[tuple[str, str], ...]
    after: tuple[str, ...]

    def without(self, *labels: str) -> Prompt:
        """The prompt without the lines of these letters; the others keep theirs. Errors: KeyError for no such line."""
        if unknown := set(labels) - {label for label, _line in self.lines}:
            raise KeyError(f"no line {sorted(unknown)}")
        kept = [line for label, line in self.lines if label not in labels]
        return replace(self.prompt, user="\n".join((*self.before, *kept, *self.after)))

    def reversed(self) -> EvidenceLines:
        """The same evidence from the last line to the first, each line under its own letter."""
        lines = self.lines[::-1]
        user = "\n".join((*self.before, *(line for _label, line in lines), *self.after))
        return EvidenceLines(replace(self.prompt, user=user), self.before, lines, self.after)

    def size(self, label: str) -> int:
        """Characters of a line."""
        return len(dict(self.lines)[label])


def evidence_lines(prompt: Prompt, labels: str) -> EvidenceLines | None:
    """Find the lines `A: …`, `B: …` of these letters, which stand together. None where a text hides where they are."""
    rows = prompt.user.split("\n")
    starts = [
        at
        for at in range(len(rows) - len(labels) + 1)
        if all(rows[at + n].startswith(f"{label}: ") for n, label in enumerate(labels))
    ]
    if not labels or len(starts) != 1:
        return None
    at, end = starts[0], starts[0] + len(labels)
    return EvidenceLines(prompt, tuple(rows[:at]), tuple(zip(labels, rows[at:end], strict=True)), tuple(rows[end:]))


def matched(lines: EvidenceLines, chosen: Collection[str]) -> tuple[tuple[str, str], ...]:
    """Each chosen line with one of the others, the nearest to it in length, none used twice.

    Removing a long text moves a model more than removing a short one, whatever they say. Lines for which no other is
    left stay without a partner.
    """
    others = [label for label, _line in lines.lines if label not in chosen]
    pairs: list[tuple[str, str]] = []
    for label in chosen:
        if others:
            near = min(others, key=lambda other: (abs(lines.size(other) - lines.size(label)), other))
            others.remove(near)
            pairs.append((label, near))
    return tuple(pairs)
