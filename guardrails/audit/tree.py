"""The log's Merkle tree over its segment files: the hash of a full one is kept, others are computed when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from finllm.guardrails.audit.merkle import (
    EMPTY_ROOT,
    consistency_proof,
    inclusion_proof,
    node_hash,
    root_of,
    split_of,
)

HASH = 32


class LogTree:
    """Roots and proofs of a log.

    `sealed`: the root of each full segment of `width` leaves. `leaves(segment)`: a segment's leaf hashes.
    """

    def __init__(self, width: int, sealed: Sequence[bytes], leaves: Callable[[int], Sequence[bytes]]) -> None:
        self._width = width
        self._sealed = sealed
        self._leaves = leaves

    def root(self, size: int) -> bytes:
        """The root of the tree over the first `size` records."""
        return self._range(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int) -> list[bytes]:
        return inclusion_proof(index, size, self._range)

    def consistency(self, old: int, new: int) -> list[bytes]:
        return consistency_proof(old, new, self._range)

    def leaf(self, index: int) -> bytes:
        return self._leaves(index // self._width)[index % self._width]

    def _range(self, low: int, high: int) -> bytes:
        segment, within = divmod(low, self._width)
        if high - low <= self._width - within:
            if high - low == self._width and segment < len(self._sealed):
                return self._sealed[segment]
            return root_of(self._leaves(segment)[within : within + high - low])
        middle = low + split_of(high - low)
        return node_hash(self._range(low, middle), self._range(middle, high))


class Frontier:
    """What it takes to add leaves to a tree and to know its root: the roots of its whole subtrees, large to small."""

    def __init__(self, stack: Sequence[tuple[int, bytes]] = ()) -> None:
        self.stack = list(stack)

    def push(self, hash: bytes) -> None:
        """Add a leaf hash. The stack holds (level, hash)."""
        level = 0
        while self.stack and self.stack[-1][0] == level:
            hash = node_hash(self.stack.pop()[1], hash)
            level += 1
        self.stack.append((level, hash))

    def root(self) -> bytes:
        if not self.stack:
            return EMPTY_ROOT
        *larger, (_level, found) = self.stack
        for _level, left in reversed(larger):
            found = node_hash(left, found)
        return found


def packed(hashes: Sequence[bytes]) -> bytes:
    return b"".join(hashes)


def unpacked(data: bytes) -> list[bytes]:
    """Hashes one after another; an unfinished last one is left out."""
    return [data[at : at + HASH] for at in range(0, len(data) - HASH + 1, HASH)]
