"""Which request or shared prefix holds which cells of the KV cache; shared ones count once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.int32]
"""Numbers of cells, in the order of a sequence's positions; shape (length,). Ours, not llama.cpp's own."""


class CellCount:
    """Counts the users of each of `total` cells."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._users = np.zeros(total, dtype=np.int32)
        self._free = list(range(total - 1, -1, -1))

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self, count: int) -> Cells:
        """New cells with one user. Errors: ValueError where fewer are free."""
        if count > len(self._free):
            raise ValueError(f"{count} cells wanted, {len(self._free)} free")
        taken = np.array([self._free.pop() for _ in range(count)], dtype=np.int32)
        self._users[taken] = 1
        return taken

    def share(self, cells: Cells) -> Cells:
        """The same cells for one more user."""
        self._users[cells] += 1
        return cells

    def give_back(self, cells: Cells) -> None:
        """One user fewer; what nobody uses is free."""
        self._users[cells] -= 1
        self._free.extend(cells[self._users[cells] == 0].tolist())
