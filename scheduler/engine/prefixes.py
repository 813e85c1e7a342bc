"""A cache of prompt beginnings, kept outside the model's context; the least recently used make room."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True)
class Saved:
    """A prompt's cells as bytes. `key` is the holder's name in the trie."""

    key: str
    cells: bytes
    length: int
    pinned: bool


class PrefixStore:
    """Saved prompts within `budget` bytes; pinned ones stay and count.

    They are not left in the context, since attention runs over every cell there, used by the request or not.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._saved: OrderedDict[str, Saved] = OrderedDict()
        self._used = 0

    def put(self, saved: Saved) -> list[str]:
        """Keep a prompt; returns the keys that had to go (its own where it does not fit)."""
        self.remove(saved.key)
        self._saved[saved.key] = saved
        self._used += len(saved.cells)
        gone: list[str] = []
        for key in [key for key, kept in self._saved.items() if not kept.pinned]:
            if self._used <= self._budget:
                break
            self.remove(key)
            gone.append(key)
        return gone

    def get(self, key: str) -> Saved:
        """The prompt at a key, which counts as used now. Errors: KeyError."""
        self._saved.move_to_end(key)
        return self._saved[key]

    def remove(self, key: str) -> None:
        saved = self._saved.pop(key, None)
        if saved is not None:
            self._used -= len(saved.cells)

    def __len__(self) -> int:
        return len(self._saved)
