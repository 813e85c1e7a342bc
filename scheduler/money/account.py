"""Spending against budgets: a call's account lies within its run's, that within its tenant's; each a hard stop."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from finllm.errors import BackendError, BudgetExceeded
from finllm.scheduler.money.amount import Amount, Grams, grams_total, total
from finllm.scheduler.money.budget import DIMENSIONS, SAID, Budget, Dimension
from finllm.scheduler.placement.task import Tier

Scope = Literal["call", "run", "tenant"]

_METERED: frozenset[Dimension] = frozenset(("joules", "grams", "usd"))
"""What no backend keeps a limit of by itself: watched while the call goes on."""
_FIX: dict[Scope, str] = {
    "call": "give the call a larger budget, or a shorter prompt",
    "run": "resume the run with a larger --budget",
    "tenant": "raise FINLLM_TENANT_BUDGET, or go on tomorrow (UTC)",
}


@dataclass(frozen=True)
class Spent:
    """What was spent: s, tokens and those of the deep tier, J, gCO₂e, USD. None: not known."""

    seconds: float
    tokens: int
    deep_tokens: int
    joules: Amount | None = None
    grams: Grams | None = None
    usd: Amount | None = None

    def __add__(self, other: Spent) -> Spent:
        """Errors: InputError for grams by two kinds of intensity."""
        return Spent(
            self.seconds + other.seconds,
            self.tokens + other.tokens,
            self.deep_tokens + other.deep_tokens,
            total((self.joules, other.joules)),
            grams_total((self.grams, other.grams)),
            total((self.usd, other.usd)),
        )

    def of(self, dimension: Dimension) -> float:
        """The figure in a dimension; 0 where it is not known."""
        found = getattr(self, dimension)
        return found.value if isinstance(found, Amount) else float(found or 0)

    @property
    def words(self) -> str:
        """Such as `2.1 s, 300 tokens, 0 of them deep, 14.2 J (modelled)`."""
        amounts = ((self.joules, "J"), (self.grams, "gCO₂e"), (self.usd, "USD"))
        known = [f"{one.value:.4g} {unit} ({one.provenance})" for one, unit in amounts if one is not None]
        return ", ".join([f"{self.seconds:.1f} s", f"{self.tokens} tokens", f"{self.deep_tokens} of them deep", *known])

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Spent:
        """What `dataclasses.asdict` made of it."""

        def amount(name: str) -> Amount | None:
            return None if row.get(name) is None else Amount(**row[name])

        grams = None if row.get("grams") is None else Grams(**row["grams"])
        return cls(row["seconds"], row["tokens"], row["deep_tokens"], amount("joules"), grams, amount("usd"))


NOTHING = Spent(0.0, 0, 0)


@dataclass(eq=False)
class Hold:
    """A call until it is `over`: what is set `aside` for it, its `limit` (infinity: none), and what it has `used`."""

    aside: Mapping[Dimension, float]
    limit: Mapping[Dimension, float]
    used: Spent = field(default=NOTHING)
    over: bool = False

    def tokens(self, tier: Tier) -> float:
        """Tokens that the call may use on `tier`."""
        limit = self.limit["tokens"]
        return min(limit, self.limit["deep_tokens"]) if tier == "deep" else limit


class Account:
    """What is spent against a budget, also by calls side by side; `above` is charged and asked with it.

    `clock` returns monotonic seconds. `carried` is what earlier processes spent. `scope` says whose budget it is: a
    call's ends that call (BackendError), any other stops (BudgetExceeded).
    """

    def __init__(
        self,
        budget: Budget,
        clock: Callable[[], float],
        carried: Spent | None = None,
        *,
        scope: Scope = "run",
        above: Account | None = None,
    ) -> None:
        self.budget = budget
        self.scope: Scope = scope
        self.above = above
        self._clock = clock
        self._started = clock()
        self._carried = carried or NOTHING
        self._charged = NOTHING
        self._holds: list[Hold] = []
        self._released = asyncio.Event()

    def within(self, budget: Budget) -> Account:
        """The account of one call, which spends from this one too."""
        return Account(budget, self._clock, scope="call", above=self)

    def spent(self) -> Spent:
        """All that was spent, by earlier processes too; seconds go by whether anything runs or not."""
        called = self._carried + self._charged
        seconds = self._carried.seconds + self._clock() - self._started
        return Spent(seconds, called.tokens, called.deep_tokens, called.joules, called.grams, called.usd)

    def spend(self, cost: Spent) -> None:
        """Charge what a call used; the account's own clock counts the seconds."""
        for account in self._levels():
            charged = account._charged + cost
            account._charged = Spent(0.0, charged.tokens, charged.deep_tokens, charged.joules, charged.grams,
                                     charged.usd)  # fmt: skip

    def left(self, dimension: Dimension) -> float:
        """What is not spent in a dimension, on every level; infinity without a limit."""
        return min(level.budget.limit(dimension) - level.spent().of(dimension) for level in self._levels())

    def seconds_left(self) -> float:
        return self.left("seconds")

    def tokens_left(self, tier: Tier) -> float:
        """Tokens that calls on `tier` have not spent."""
        left = self.left("tokens")
        return min(left, self.left("deep_tokens")) if tier == "deep" else left

    @contextlib.asynccontextmanager
    async def hold(self, tier: Tier, need: Mapping[Dimension, float]) -> AsyncGenerator[Hold, None]:
        """Set aside what a call may need at most; gives what it may use.

        A call that might not fit beside those under way waits for them, and then may use all that is left.
        """
        most: dict[Dimension, float] = {name: float(amount) for name, amount in need.items()}
        if tier == "deep":
            most["deep_tokens"] = most.get("tokens", 0.0)
        while (full := self._without_room(most)) is not None:
            await full._released.wait()
        left: dict[Dimension, float] = {name: max(self.left(name), 0.0) for name in DIMENSIONS}
        aside: dict[Dimension, float] = {name: min(amount, left[name]) for name, amount in most.items()}
        hold = Hold(aside, {name: rest if math.isinf(rest) else aside.get(name, rest) for name, rest in left.items()})
        for level in self._levels():
            level._holds.append(hold)
        try:
            yield hold
        finally:
            hold.over = True
            for level in self._levels():
                level._holds.remove(hold)
                level._released.set()
                level._released = asyncio.Event()

    def over(self) -> tuple[Account, Dimension] | None:
        """Whose budget is spent, in which dimension; deep tokens stop nothing, the work goes on without them."""
        for level in self._levels():
            spent = level.spent()
            for name in DIMENSIONS:
                if name == "deep_tokens":
                    continue
                under_way = sum(hold.used.of(name) for hold in level._holds) if name in _METERED else 0.0
                if spent.of(name) + under_way >= level.budget.limit(name):
                    return level, name
        return None

    def check(self, not_done: str) -> None:
        """Errors: as `exceeded`, once a budget is spent, naming what was spent and what was not done."""
        found = self.over()
        if found is not None:
            raise found[0].exceeded(found[1], not_done)

    def exceeded(self, dimension: Dimension, not_done: str, need: float = 0.0) -> BudgetExceeded | BackendError:
        """The error of a budget that does not reach; `need`: about how much more it would take, where that is known."""
        whose = "" if self.scope == "run" else f"{self.scope}'s "
        message = f"the {whose}budget of {SAID[dimension]} is spent ({self.spent().words}); not done: {not_done}"
        if self.scope == "call":
            return BackendError(message, fix=_FIX[self.scope])
        spent, limit = self.spent().of(dimension), self.budget.limit(dimension)
        short = f"{spent:.4g} of {whose and f'the {whose}'}{limit:.6g} {SAID[dimension]} are spent"
        short += f", and this takes about {need:.0f}" if need else ""
        return BudgetExceeded(message, fix=_FIX[self.scope], short=short)

    def tightest(self, dimension: Dimension) -> Account:
        """The level that has the least left in a dimension."""
        return min(self._levels(), key=lambda level: level.budget.limit(dimension) - level.spent().of(dimension))

    def _levels(self) -> Iterator[Account]:
        level: Account | None = self
        while level is not None:
            yield level
            level = level.above

    def _without_room(self, most: Mapping[Dimension, float]) -> Account | None:
        """The first level where the call would not fit beside those under way, though it would alone."""
        for level in self._levels():
            for name, amount in most.items():
                left = level.budget.limit(name) - level.spent().of(name)
                held = sum(hold.aside.get(name, 0.0) for hold in level._holds)
                if left - held < min(amount, left):
                    return level
        return None
