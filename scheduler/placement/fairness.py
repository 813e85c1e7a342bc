"""Lets tenants take turns by the tokens they were served: a virtual token counter (Sheng et al., OSDI 2024)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from finllm.scheduler.placement.fleet import Bools, Floats, Ints

PROMPT_WEIGHT = 1.0
OUTPUT_WEIGHT = 2.0
"""What a token of prompt and of output counts (the paper's w_p and w_q)."""


def service(prompt: float, output: float) -> float:
    """Weighted tokens of a task."""
    return PROMPT_WEIGHT * prompt + OUTPUT_WEIGHT * output


def bound(most_prompt: float, kv_tokens: float) -> float:
    """U of the paper: between two tenants with work waiting, service never differs by more than twice this."""
    return max(PROMPT_WEIGHT * most_prompt, OUTPUT_WEIGHT * kv_tokens)


class ServedTokens:
    """Weighted tokens served by tenant. A tenant that comes back from idleness is lifted to the least of those waiting:
    what it did not ask for is not owed to it."""

    def __init__(self, window: float) -> None:
        self.window = window
        """By how many weighted tokens a tenant may be ahead of the one served least and still be next."""
        self._counters: Floats = np.zeros(8)
        self._waiting: set[int] = set()

    def arrive(self, tenant: int) -> None:
        """A task of this tenant waits now."""
        self._room(tenant)
        if tenant in self._waiting:
            return
        if self._waiting:
            least = min(self._counters[other] for other in self._waiting)
            self._counters[tenant] = max(self._counters[tenant], least)
        self._waiting.add(tenant)

    def idle(self, tenants: Iterable[int]) -> None:
        """These tenants have nothing left that waits."""
        self._waiting.difference_update(tenants)

    def charge(self, tenant: int, tokens: float) -> None:
        """Weighted tokens that a tenant was given (below 0: corrected after the fact)."""
        self._room(tenant)
        self._counters[tenant] = max(self._counters[tenant] + tokens, 0.0)

    def counter(self, tenant: int) -> float:
        return float(self._counters[tenant])

    def eligible(self, tenants: Ints) -> Bools:
        """Of waiting tasks, given by their tenants, (Q,): which may be next."""
        self._room(int(tenants.max(initial=0)))
        counters = self._counters[tenants]
        return counters <= counters.min(initial=np.inf) + self.window

    def _room(self, tenant: int) -> None:
        while tenant >= len(self._counters):
            self._counters = np.concatenate([self._counters, np.zeros_like(self._counters)])
