"""The broker's prices of lateness, joules, grams and deep tokens; a coordinator moves them by use of the budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from finllm.errors import InputError


@dataclass(frozen=True)
class Prices:
    """The λ of the objective, in one unit of account: that of a task's value.

    `miss`: for a deadline missed, by task of value 1. `late`: per s beyond it. `joule`, `gram` (CO₂e), `deep` (per
    token of the deep tier), `usd`. `busy`: per s that a task keeps a slot. `spread`: per share of one event's answers
    that one model family gives; off by default.
    """

    miss: float = 1.0
    late: float = 0.05
    joule: float = 1e-4
    gram: float = 1e-3
    deep: float = 1e-4
    usd: float = 1.0
    busy: float = 1e-2
    spread: float = 0.0

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if not 0 <= value < float("inf"):
                raise InputError(f"the price {name!r} is {value}", fix="prices are finite and not negative")


BUDGETED: Mapping[str, str] = {"deep_tokens": "deep", "joules": "joule", "grams": "gram", "usd": "usd"}
"""Which price a budget moves."""
STRONGEST = 4.0
"""Most by which one step of the coordinator multiplies or divides a price."""


MOST = 1e4
"""Times its base that a price may become."""


@dataclass(frozen=True)
class BudgetUse:
    """A budget's state: spent so far of `limit`, with `elapsed` of `period` s gone."""

    spent: float
    limit: float
    elapsed: float
    period: float

    @property
    def pace(self) -> float:
        """Spending against an even spend: 1 is on plan, 2 twice as fast. A tenth of the period is the least counted."""
        share = min(max(self.elapsed / self.period, 0.1), 1.0)
        return self.spent / (self.limit * share)


def stepped_prices(base: Prices, now: Prices, uses: Mapping[str, BudgetUse], gain: float = 0.5) -> Prices:
    """Prices after a step of the coordinator: λ ← λ·paceᵍ for each budget, never below its base (dual ascent).

    A budget used faster than planned becomes dearer, up to `MOST` times its base; one used slower falls back, and what
    has no budget costs its base. Errors: KeyError for an unknown budget.
    """
    changed: dict[str, float] = {}
    for budget, use in uses.items():
        name = BUDGETED[budget]
        factor = min(max(use.pace**gain if use.spent else 0.0, 1 / STRONGEST), STRONGEST)
        least = getattr(base, name)
        changed[name] = min(max(least, getattr(now, name) * factor), least * MOST)
    return replace(base, **changed)


@dataclass
class Coordinator:
    """The upper level: moves the prices by the use of the budgets, once a second, and gives them to the zones."""

    base: Prices
    period: float = 1.0
    now: Prices = field(init=False)
    _last: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        self.now = self.base

    def step(self, time: float, uses: Mapping[str, BudgetUse]) -> Prices:
        """The prices at `time`, s. Errors: InputError where the clock goes back."""
        if time < self._last:
            raise InputError(f"the clock went back from {self._last:.3f} to {time:.3f} s", fix="use a monotonic clock")
        if time - self._last >= self.period:
            self._last = time
            self.now = stepped_prices(self.base, self.now, uses)
        return self.now


@dataclass
class ZoneController:
    """The lower level: one zone's last known prices. Cut off from the coordinator, it goes on with them."""

    zone: str
    prices: Prices
    heard: float = 0.0

    def hear(self, prices: Prices, time: float) -> None:
        self.prices, self.heard = prices, time

    def age(self, time: float) -> float:
        """s since the coordinator was last heard."""
        return time - self.heard
