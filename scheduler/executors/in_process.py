"""The default executor: every backend is opened here, and none joins later."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from finllm.scheduler.backends import Backend
from finllm.scheduler.backends.kind import Opening


class InProcess:
    """Backends in this process, and engines in a child of it. `opens` is the registry's `open_backends`."""

    def __init__(self, opens: Callable[[Opening], list[Backend]]) -> None:
        self._opens = opens

    def open(self, opening: Opening) -> list[Backend]:
        return self._opens(opening)

    def joined(self) -> Sequence[Backend]:
        return ()
