"""The parts of prefix sharing: the trie, the count of cells, and the store of saved prompts."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.scheduler.engine.cells import CellCount
from finllm.scheduler.engine.prefixes import PrefixStore, Saved
from finllm.scheduler.engine.trie import PrefixTrie

tokens = st.lists(st.integers(0, 2), max_size=8)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), tokens), max_size=30), tokens)
def test_the_trie_agrees_with_comparing_every_holder(
    moves: list[tuple[bool, int, list[int]]], asked: list[int]
) -> None:
    trie = PrefixTrie()
    held: dict[int, list[int]] = {}
    for enter, holder, sequence in moves:
        if enter:
            trie.hold(holder, sequence)
            held[holder] = sequence
        else:
            trie.drop(holder)
            held.pop(holder, None)
    agreed = {
        holder: next(
            (i for i, (a, b) in enumerate(zip(mine, asked, strict=False)) if a != b), min(len(mine), len(asked))
        )
        for holder, mine in held.items()
    }
    assert trie.agreements(asked) == {holder: length for holder, length in agreed.items() if length}


@given(st.lists(st.tuples(st.sampled_from(["take", "share", "give"]), st.integers(0, 9)), max_size=40))
def test_cells_are_free_exactly_when_nobody_uses_them(moves: list[tuple[str, int]]) -> None:
    count = CellCount(20)
    held: list[list[int]] = []
    for move, n in moves:
        if move == "take" and n <= count.free:
            held.append(count.take(n).tolist())
        elif move == "share" and held:
            held.append(count.share(np.array(held[n % len(held)][: n // 2], dtype=np.int32)).tolist())
        elif move == "give" and held:
            count.give_back(np.array(held.pop(n % len(held)), dtype=np.int32))
        assert count.free == 20 - len({cell for cells in held for cell in cells})


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 60), st.booleans()), max_size=30))
def test_saved_prompts_keep_to_their_budget_but_for_those_pinned(puts: list[tuple[int, int, bool]]) -> None:
    store = PrefixStore(100)
    kept: dict[str, Saved] = {}
    for key, size, pinned in puts:
        saved = Saved(str(key), b"x" * size, size, pinned)
        kept[saved.key] = saved
        for gone in store.put(saved):
            assert not kept.pop(gone).pinned
        assert len(store) == len(kept)
        loose = sum(len(saved.cells) for saved in kept.values() if not saved.pinned)
        fixed = sum(len(saved.cells) for saved in kept.values() if saved.pinned)
        assert loose == 0 or loose + fixed <= 100
