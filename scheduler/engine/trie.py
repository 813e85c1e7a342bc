"""A radix trie over tokens: who holds which prefix, and how far a new prompt agrees with each holder."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field


@dataclass
class _Node:
    """`edge` leads here from the parent; `holders` are those whose tokens run through the whole edge."""

    edge: tuple[int, ...]
    children: dict[int, _Node] = field(default_factory=dict[int, "_Node"])
    holders: set[Hashable] = field(default_factory=set[Hashable])


class PrefixTrie:
    """Token sequences by holder. Time of every method: the length of the tokens it is given."""

    def __init__(self) -> None:
        self._root = _Node(())
        self._held: dict[Hashable, tuple[int, ...]] = {}

    def hold(self, holder: Hashable, tokens: Sequence[int]) -> None:
        """Enter a holder with its tokens, in place of what it held."""
        self.drop(holder)
        whole = tuple(tokens)
        self._held[holder] = whole
        node, start = self._root, 0
        while start < len(whole):
            child = node.children.get(whole[start])
            if child is None:
                node.children[whole[start]] = _Node(whole[start:], holders={holder})
                return
            common = _agreement(child.edge, whole[start:])
            if common < len(child.edge):
                child = _split(node, child, common)
            child.holders.add(holder)
            node, start = child, start + common

    def drop(self, holder: Hashable) -> None:
        """Forget a holder; nothing happens where it holds nothing."""
        whole = self._held.pop(holder, None)
        if whole is None:
            return
        node, start = self._root, 0
        while start < len(whole):
            child = node.children[whole[start]]
            child.holders.discard(holder)
            start += len(child.edge)
            if not child.holders:
                del node.children[child.edge[0]]
                return
            _merge(child)
            node = child

    def agreements(self, tokens: Sequence[int]) -> dict[Hashable, int]:
        """For each holder that begins as `tokens` does, how many tokens agree."""
        whole = tuple(tokens)
        found: dict[Hashable, int] = {}
        node, start = self._root, 0
        while start < len(whole):
            child = node.children.get(whole[start])
            if child is None:
                break
            common = _agreement(child.edge, whole[start:])
            start += common
            found.update(dict.fromkeys(child.holders, start))
            if common < len(child.edge):
                break
            node = child
        return found


def _agreement(edge: tuple[int, ...], tokens: tuple[int, ...]) -> int:
    length = min(len(edge), len(tokens))
    if edge[:length] == tokens[:length]:
        return length
    return next(index for index in range(length) if edge[index] != tokens[index])


def _split(parent: _Node, child: _Node, at: int) -> _Node:
    """Cut an edge in two; returns the new node between."""
    between = _Node(child.edge[:at], {child.edge[at]: child}, set(child.holders))
    child.edge = child.edge[at:]
    parent.children[between.edge[0]] = between
    return between


def _merge(node: _Node) -> None:
    """Join a node with its only child where nobody ends between them."""
    while len(node.children) == 1:
        (child,) = node.children.values()
        if child.holders != node.holders:
            return
        node.edge += child.edge
        node.children = child.children
