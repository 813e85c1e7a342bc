# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# scipy comes without types.
"""The exact sign test of pairs: in what share does the first beat the second, with its Clopper–Pearson interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class SignTest:
    """Pairs in which the first was larger (`more`), smaller (`less`) or equal (`ties`, which tell nothing).

    `share`: more / (more + less), within `low` and `high` at `level`; None where every pair ties. `p`: two-sided, of a
    share at least so far from one half if both were alike.
    """

    more: int
    less: int
    ties: int
    level: float = LEVEL
    share: float | None = None
    low: float = 0.0
    high: float = 1.0
    p: float = 1.0

    @property
    def pairs(self) -> int:
        return self.more + self.less + self.ties

    @property
    def shown(self) -> bool:
        """Whether the first is larger more often, beyond chance: the whole interval lies above one half."""
        return self.share is not None and self.low > 0.5


def sign_test(pairs: Iterable[tuple[float, float]], level: float = LEVEL) -> SignTest:
    """Count pairs and test them (Clopper & Pearson 1934). Errors: ValueError for NaN, or a level not in (0, 1)."""
    from scipy.stats import binomtest

    if not 0 < level < 1:
        raise ValueError(f"a level of {level}")
    more = less = ties = 0
    for first, second in pairs:
        if math.isnan(first) or math.isnan(second):
            raise ValueError("a pair holds NaN")
        more, less, ties = more + (first > second), less + (first < second), ties + (first == second)
    if not more + less:
        return SignTest(more, less, ties, level)
    test = binomtest(more, more + less)
    interval = test.proportion_ci(level, method="exact")
    return SignTest(more, less, ties, level, more / (more + less), float(interval.low), float(interval.high),
                    float(test.pvalue))  # fmt: skip
