"""RFC 6962's Merkle tree: hashes, roots, inclusion and consistency proofs, and their checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

RangeRoot = Callable[[int, int], bytes]
"""`root(low, high)`: the hash of the subtree over the leaves `low` to `high - 1`; `high > low`."""

EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes. Level by level, a lone last node moves up: the same tree as the RFC's recursion."""
    if not leaves:
        return EMPTY_ROOT
    level = list(leaves)
    while len(level) > 1:
        paired = [sha256(b"\1" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def split_of(count: int) -> int:
    """The largest power of two below `count` (two or more): how many leaves the left subtree has."""
    return 1 << ((count - 1).bit_length() - 1)


def inclusion_proof(index: int, size: int, root: RangeRoot) -> list[bytes]:
    """Sibling hashes from the leaf up (RFC 6962, 2.1.1). `0 <= index < size`."""
    low, high, path = 0, size, list[bytes]()
    while high - low > 1:
        middle = low + split_of(high - low)
        if index < middle:
            path.append(root(middle, high))
            high = middle
        else:
            path.append(root(low, middle))
            low = middle
    return path[::-1]


def consistency_proof(old: int, new: int, root: RangeRoot) -> list[bytes]:
    """Hashes that show the tree of `old` leaves to be the beginning of that of `new` (RFC 6962, 2.1.2)."""
    if old in (0, new):
        return []
    low, high, whole, path = 0, new, True, list[bytes]()
    while old != high:
        middle = low + split_of(high - low)
        if old <= middle:
            path.append(root(middle, high))
            high = middle
        else:
            path.append(root(low, middle))
            low, whole = middle, False
    return [*([] if whole else [root(low, high)]), *path[::-1]]


def includes(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof shows the leaf hash at `index` of the tree with this size and root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if at % 2 or at == last:
            found = node_hash(sibling, found)
            while at % 2 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows the old tree to be the beginning of the new one (RFC 9162, 2.1.4.2)."""
    if old in (0, new):
        return not proof and (old_root == EMPTY_ROOT if old == 0 else old_root == new_root)
    if not 0 < old < new or not proof:
        return False
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    at, last = old - 1, new - 1
    while at % 2:
        at, last = at >> 1, last >> 1
    first = second = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if at % 2 or at == last:
            first, second = node_hash(node, first), node_hash(node, second)
            while at % 2 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            second = node_hash(second, node)
        at, last = at >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root
