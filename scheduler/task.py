"""What the broker is asked and what it may spend: tasks, budgets, accounts. It knows no agent and no finance."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from finllm.errors import BudgetExceeded
from finllm.scheduler.template import Template, Write

Tier = Literal["edge", "deep"]

PRECISIONS: tuple[str, ...] = ("Q4_0", "Q4_1", "Q4_K_M", "Q5_K_M", "Q8_0", "F16", "BF16", "F32")
"""From coarse to fine. The order decides whether a backend meets a task's floor."""


def meets_floor(precision: str, floor: str) -> bool:
    """True if `precision` is at least as fine as `floor`. Errors: ValueError for a precision not in `PRECISIONS`."""
    return PRECISIONS.index(precision) >= PRECISIONS.index(floor)


CHAT_OVERHEAD = 256
"""Tokens that a chat template may put around the messages, at most."""


@dataclass(frozen=True)
class Prompt:
    """The two messages of a call. `user` may hold retrieved text: it is tokenised as data, never as control tokens."""

    system: str
    user: str


@dataclass(frozen=True)
class Task:
    """One model call that an agent asks for.

    `floor`: coarsest precision that may answer. `deadline`: longest useful wait, s. `value`: what the answer is
    expected to be worth, a pure number that orders tasks. `priors`: probabilities to divide by, see `filling.walk`.
    `background`: the call gives way to every one that is not.
    """

    agent: str
    node: str
    prompt: Prompt
    prompt_version: str
    template: Template
    floor: str
    deadline: float
    seed: int
    value: float = 1.0
    tenant: str = "default"
    priors: Mapping[str, Mapping[str, float]] | None = None
    background: bool = False

    def content(self) -> dict[str, Any]:
        """Everything that may change the answer, as JSON-able data; who asked and how urgently is not part of it."""
        return {
            "prompt": asdict(self.prompt),
            "template": [{"step": type(step).__name__, **asdict(step)} for step in self.template],
            "priors": self.priors,
            "seed": self.seed,
        }

    def most_tokens(self) -> int:
        """More than any call of this task uses: a token is at least one byte of what goes in or may come out."""
        written = sum(step.tokens for step in self.template if isinstance(step, Write))
        return len(json.dumps(self.content(), ensure_ascii=False).encode()) + written + CHAT_OVERHEAD


def canonical(value: Any) -> bytes:
    """A value as the one JSON text that it has: keys sorted, no spaces, UTF-8. Errors: ValueError for NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def key_of(kind: str, content: Mapping[str, Any]) -> str:
    """The ledger's key: hex sha256 of the kind and of the content as canonical JSON."""
    return hashlib.sha256(canonical([kind, content])).hexdigest()


@dataclass(frozen=True)
class Budget:
    """What a run may spend: wall-clock s, tokens (prompt and output) and those of the deep tier. None: no limit."""

    seconds: float | None = None
    tokens: int | None = None
    deep_tokens: int | None = None


@dataclass(frozen=True)
class Spent:
    seconds: float
    tokens: int
    deep_tokens: int


class Account:
    """A run's spending against its budget; a hard stop, also for calls side by side.

    `clock` returns monotonic seconds. `carried` is what earlier processes of the same run spent.
    """

    def __init__(self, budget: Budget, clock: Callable[[], float], carried: Spent | None = None) -> None:
        self.budget = budget
        self._clock = clock
        self._started = clock()
        self._carried = carried or Spent(0.0, 0, 0)
        self._tokens = self._carried.tokens
        self._deep_tokens = self._carried.deep_tokens
        self._held: list[tuple[Tier, float]] = []
        self._released = asyncio.Event()

    def spent(self) -> Spent:
        return Spent(self._carried.seconds + self._clock() - self._started, self._tokens, self._deep_tokens)

    def spend(self, tier: Tier, tokens: int) -> None:
        self._tokens += tokens
        if tier == "deep":
            self._deep_tokens += tokens

    def seconds_left(self) -> float:
        return float("inf") if self.budget.seconds is None else self.budget.seconds - self.spent().seconds

    def tokens_left(self, tier: Tier) -> float:
        """Tokens that calls on `tier` have not spent."""
        left = float("inf") if self.budget.tokens is None else self.budget.tokens - self._tokens
        if tier == "deep" and self.budget.deep_tokens is not None:
            left = min(left, self.budget.deep_tokens - self._deep_tokens)
        return left

    @contextlib.asynccontextmanager
    async def hold(self, tier: Tier, most: int) -> AsyncGenerator[float, None]:
        """Set tokens aside for a call that uses at most `most`; gives the limit that the call must keep.

        A call that might not fit beside those under way waits for them, and then may use all that is left.
        """
        while self._unheld(tier) < min(most, self.tokens_left(tier)):
            await self._released.wait()
        left = max(self.tokens_left(tier), 0)
        hold = (tier, min(most, left))
        self._held.append(hold)
        try:
            yield left if left == float("inf") else hold[1]
        finally:
            self._held.remove(hold)
            self._released.set()
            self._released = asyncio.Event()

    def _unheld(self, tier: Tier) -> float:
        held = {kind: sum(tokens for of, tokens in self._held if of == kind) for kind in ("edge", "deep")}
        free = self.tokens_left("edge") - held["edge"] - held["deep"]
        return min(free, self.tokens_left("deep") - held["deep"]) if tier == "deep" else free

    def check(self, not_done: str) -> None:
        """Errors: BudgetExceeded, naming what was spent and what was not done, once seconds or tokens are spent."""
        for name, limit, used in (
            ("seconds", self.budget.seconds, self.spent().seconds),
            ("tokens", self.budget.tokens, float(self._tokens)),
        ):
            if limit is not None and used >= limit:
                raise self.exceeded(name, not_done)

    def exceeded(self, name: str, not_done: str) -> BudgetExceeded:
        spent = self.spent()
        return BudgetExceeded(
            f"the budget of {name} is spent ({spent.seconds:.1f} s, {spent.tokens} tokens, {spent.deep_tokens} of "
            f"them deep); not done: {not_done}",
            fix="resume the run with a larger --budget",
        )
