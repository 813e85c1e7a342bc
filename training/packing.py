"""Packs questions into token trees: an agent's shared prefix, each text behind it, each stem behind its text."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.items import Question

Tokenise = Callable[[str], list[int]]
PAD = -1
"""The branch of a token that pads: it sees the prefix and itself, and nobody sees it."""


@dataclass(frozen=True)
class Branch:
    """A stem behind a text. `candidates`: each value's first token; `right`: which of them are right answers."""

    field: str
    tokens: tuple[int, ...]
    candidates: tuple[int, ...]
    right: tuple[bool, ...]
    weight: float


@dataclass(frozen=True)
class Tree:
    """A question: the chat prompt with the template's opening, and the branches behind it."""

    role: str
    item: str
    tokens: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def size(self) -> int:
        return len(self.tokens) + sum(len(branch.tokens) for branch in self.branches)


@dataclass(frozen=True)
class Batch:
    """Trees of one agent behind the prefix that they share, padded to one length.

    `prefix`: (n_prefix,). `tokens`, `position` and `branch`: (n_trees, length); `branch` numbers the stems of a tree
    from 1, 0 is its text and PAD nothing. `ends`: (n_branches, 2), tree and place of the last token of each stem;
    `candidates`, `right`: (n_branches, most values), padded with -1 and False; `weight`: (n_branches,); `key`:
    (n_branches, 2), which of the packed trees and which of its branches.
    """

    prefix: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    branch: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    candidates: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]
    weight: npt.NDArray[np.float32]
    key: npt.NDArray[np.int64]

    @property
    def size(self) -> int:
        return len(self.prefix) + self.tokens.size


def trees(questions: Sequence[Question], chat: Callable[[Question], list[int]], tokenise: Tokenise,
          weights: Callable[[Question, str, str], float]) -> list[Tree]:  # fmt: skip
    """Tokenise questions piece by piece as the engine does. `weights(question, field, right value)` weighs a branch."""
    known: dict[str, tuple[int, ...]] = {}

    def cut(text: str) -> tuple[int, ...]:
        if text not in known:
            known[text] = tuple(tokenise(text))
        return known[text]

    found = []
    for q in questions:
        branches = [
            Branch(
                asked.field, cut(asked.stem), tuple(cut(value)[0] for value in asked.values),
                tuple(value in asked.right for value in asked.values), weights(q, asked.field, asked.right[0]),
            )
            for asked in q.asked()
        ]  # fmt: skip
        found.append(Tree(q.agent.role, q.item, tuple(chat(q)) + cut(q.opening), tuple(branches)))
    return found


def balanced(questions: Sequence[Question], handwritten: float) -> Callable[[Question, str, str], float]:
    """Weights by which rare values count more (to the power of a half, at most threefold), and hand-written items."""
    counts: Counter[tuple[str, str]] = Counter()
    of: defaultdict[str, set[str]] = defaultdict(set)
    for q in questions:
        for field, right in q.labels.items():
            name = f"{q.agent.role}.{pooled(field)}"
            counts[name, right[0]] += 1
            of[name].add(right[0])

    def weigh(q: Question, field: str, right: str) -> float:
        name = f"{q.agent.role}.{pooled(field)}"
        mean = sum(counts[name, value] for value in of[name]) / len(of[name])
        rare = min(3.0, max(0.5, (mean / counts[name, right]) ** 0.5))
        return rare * (handwritten if q.handwritten else 1.0)

    return weigh


def pooled(field: str) -> str:
    """A field's kind: the factors' directions are one, and so are their sizes and the rules' verdicts."""
    parts = field.split(".")
    return f"{parts[0]}.{parts[2]}" if len(parts) == 3 else field


def pack(found: Sequence[Tree], most: int, rng: random.Random | None) -> list[Batch]:
    """Batches of at most about `most` tokens; in each, trees of one agent and of nearly one size.

    With `rng` trees and batches come in a drawn order.
    """
    by_role: defaultdict[str, list[int]] = defaultdict(list)
    for at, tree in enumerate(found):
        by_role[tree.role].append(at)
    batches: list[Batch] = []
    for members in by_role.values():
        shared = _shared([found[at].tokens for at in members])
        blur = {at: rng.uniform(0, 12) if rng is not None else 0.0 for at in members}
        members.sort(key=lambda at, blur=blur: found[at].size + blur[at])
        row: list[int] = []
        longest = 0
        for at in members:
            size = found[at].size - shared
            if row and (len(row) + 1) * max(longest, size) + shared > most:
                batches.append(_batch(found, row, shared))
                row, longest = [], 0
            row.append(at)
            longest = max(longest, size)
        batches.append(_batch(found, row, shared))
    if rng is not None:
        rng.shuffle(batches)
    return batches


def _shared(of: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all begin with; each keeps at least one of its own."""
    first, last = min(of), max(of)
    most = min(map(len, of)) - 1
    count = 0
    while count < most and first[count] == last[count]:
        count += 1
    return count


def _batch(found: Sequence[Tree], row: Sequence[int], shared: int) -> Batch:
    shape = (len(row), max(found[at].size for at in row) - shared)
    tokens, position = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    branch = np.full(shape, PAD, np.int64)
    ends: list[tuple[int, int]] = []
    asked: list[Branch] = []
    key: list[tuple[int, int]] = []
    for number, member in enumerate(row):
        tree = found[member]
        at = len(tree.tokens) - shared
        tokens[number, :at] = tree.tokens[shared:]
        position[number, :at] = range(shared, len(tree.tokens))
        branch[number, :at] = 0
        for which, stem in enumerate(tree.branches):
            to = at + len(stem.tokens)
            tokens[number, at:to] = stem.tokens
            position[number, at:to] = range(len(tree.tokens), len(tree.tokens) + len(stem.tokens))
            branch[number, at:to] = which + 1
            ends.append((number, to - 1))
            asked.append(stem)
            key.append((member, which))
            at = to
    widest = max(len(one.candidates) for one in asked)
    candidates = np.full((len(asked), widest), -1, np.int64)
    right = np.zeros((len(asked), widest), np.bool_)
    for at, one in enumerate(asked):
        candidates[at, : len(one.candidates)] = one.candidates
        right[at, : len(one.right)] = one.right
    weight = np.array([one.weight for one in asked], np.float32)
    prefix = np.array(found[row[0]].tokens[:shared], np.int64)
    return Batch(prefix, tokens, position, branch, np.array(ends), candidates, right, weight, np.array(key))
