"""What a call has used so far, as its backend reports it: a sign of life while it runs, and what it is charged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from finllm.scheduler.money.amount import Amount


@dataclass(frozen=True)
class Used:
    """`tokens` of prompt and output so far, `seconds` of the model's work and `joules` of it that are this call's."""

    tokens: int = 0
    seconds: float = 0.0
    joules: Amount | None = None


class Meter:
    """Read by a backend whenever a call got on, from any thread. `moved` is called after each reading with more."""

    def __init__(self, moved: Callable[[], None] = lambda: None) -> None:
        self.used = Used()
        self._moved = moved

    def read(self, used: Used) -> None:
        """Take a reading; one with fewer tokens than before came late, and says nothing new."""
        if used.tokens < self.used.tokens or used == self.used:
            return
        self.used = used
        self._moved()
