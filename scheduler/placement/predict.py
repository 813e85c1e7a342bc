"""Predicts how many tokens a task will put out, from the last answers of its agent (median and P90)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

WINDOW = 256
"""Answers of an agent that are remembered."""
EVERY = 8
"""New answers after which the quantiles are taken again."""


@dataclass(frozen=True)
class Length:
    """Tokens of output: median and 90th percentile."""

    median: float
    most: float

    @property
    def planned(self) -> float:
        """What placing reckons with: halfway between the two, for an answer that is longer than thought costs more."""
        return (self.median + self.most) / 2


@dataclass
class Lengths:
    """Quantiles by agent, of its last answers."""

    _seen: dict[str, deque[float]] = field(default_factory=dict[str, deque[float]])
    _known: dict[str, Length] = field(default_factory=dict[str, Length])
    _new: dict[str, int] = field(default_factory=dict[str, int])

    FIRST = Length(64.0, 256.0)

    def predict(self, agent: str, first: Length | None = None) -> Length:
        """What is known of an agent; before its first answer `first`, or `FIRST`."""
        return self._known.get(agent) or first or self.FIRST

    def observe(self, agent: str, tokens: float) -> None:
        """An agent's answer had so many tokens. Errors: ValueError below 0."""
        if tokens < 0:
            raise ValueError(f"an answer of {tokens} tokens")
        seen = self._seen.setdefault(agent, deque(maxlen=WINDOW))
        seen.append(tokens)
        self._new[agent] = self._new.get(agent, EVERY) + 1
        if self._new[agent] >= EVERY:
            self._new[agent] = 0
            median, most = np.quantile(np.array(seen), (0.5, 0.9))
            self._known[agent] = Length(float(median), float(most))
