"""Learns what an agent's answer is worth: how much it narrowed the P&L's interval in runs that had it.

Pure arithmetic over names; whoever observes says what was narrowed by how much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

STRENGTH = 8.0
"""Runs' worth that the expectation behind a mean counts as: k of the credibility weight n/(n + k)."""
UNIT = 0.1
"""Narrowing that a value of 1 stands for: an interval narrower by a tenth, in logs."""
LEAST = 0.1
"""The least value: a task that never narrowed anything still gets its turn."""
MOST = 10.0
"""The largest value that one agent may be given."""


@dataclass(frozen=True)
class Seen:
    """Narrowings seen: how many, and their mean (ln of width without over width with; below 0 it widened)."""

    count: int = 0
    mean: float = 0.0

    def with_one(self, narrowing: float) -> Seen:
        """One more. Errors: ValueError for a narrowing that is no finite number."""
        if not math.isfinite(narrowing):
            raise ValueError(f"a narrowing of {narrowing!r}")
        count = self.count + 1
        return Seen(count, self.mean + (narrowing - self.mean) / count)


@dataclass(frozen=True)
class Learned:
    """Narrowings seen by agent, and by agent and kind of run."""

    agents: Mapping[str, Seen] = field(default_factory=dict[str, Seen])
    kinds: Mapping[tuple[str, str], Seen] = field(default_factory=dict[tuple[str, str], Seen])

    def observe(self, agent: str, kind: str, narrowing: float) -> Learned:
        """With one more narrowing of an agent in a run of a kind. Errors: as `Seen.with_one`."""
        pair = (agent, kind)
        return replace(
            self,
            agents={**self.agents, agent: self.agents.get(agent, Seen()).with_one(narrowing)},
            kinds={**self.kinds, pair: self.kinds.get(pair, Seen()).with_one(narrowing)},
        )

    def value(self, agent: str, prior: float, kind: str | None = None) -> float:
        """What an agent's answer is worth in a run of a kind; None: not known yet. From `LEAST` to `MOST`.

        The mean of the pair is shrunk to the agent's and that to `prior`, a value, each by credibility: Z·mean +
        (1 − Z)·expected with Z = n/(n + k) (Bühlmann 1967; the empirical-Bayes form of James and Stein's estimator,
        Efron and Morris 1973, with k fixed instead of estimated).
        """
        value = shrunk(_as_value(self.agents.get(agent, Seen())), prior)
        if kind is not None:
            value = shrunk(_as_value(self.kinds.get((agent, kind), Seen())), value)
        return min(max(value, LEAST), MOST)


def _as_value(seen: Seen) -> Seen:
    return Seen(seen.count, seen.mean / UNIT)


def shrunk(seen: Seen, expected: float, strength: float = STRENGTH) -> float:
    """The mean of what was seen, drawn to what was expected: the more, the less was seen."""
    weight = seen.count / (seen.count + strength)
    return weight * seen.mean + (1 - weight) * expected
