"""The circuit breaker of a backend: no progress or failures in a row open it, one call that succeeds closes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finllm.errors import InputError

BreakerState = Literal["closed", "open", "half-open"]


@dataclass(frozen=True)
class Patience:
    """`stall`: s without a token while calls are under way; `first`: the same until the engine has answered once, since
    it may have to load its weights. `failures` in a row open the circuit for `pause` s, twice as long each time it
    opens again, at most `longest` s.
    """

    stall: float = 20.0
    first: float = 120.0
    failures: int = 3
    pause: float = 0.5
    longest: float = 30.0


class Breaker:
    """One backend's circuit. closed: calls go through. open: none does. half-open: one does, and decides.

    `opened` counts how often it did, `why` it did last; `recovers`: through its engine's death, which is mended by
    itself, so that waiting for it is better than doing without.

    Every method takes `now`, monotonic s. Errors: InputError for a clock that went back.
    """

    def __init__(self, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self.opened = 0
        self.why = ""
        self.recovers = False
        self._failures = 0
        self._in_a_row = 0
        self._until = float("-inf")
        self._open = False
        self._probing = False
        self._now = float("-inf")

    def state(self, now: float) -> BreakerState:
        self._at(now)
        return self.peek(now)

    def peek(self, now: float) -> BreakerState:
        """The state at a time that need not be the latest; from any thread."""
        if not self._open:
            return "closed"
        return "open" if now < self._until else "half-open"

    def admits(self, now: float) -> bool:
        """Whether a call may begin now."""
        state = self.state(now)
        return state == "closed" or (state == "half-open" and not self._probing)

    def wait(self, now: float) -> float:
        """Seconds until a call may try it; 0 where one may now, or is trying already."""
        return max(self._until - now, 0.0) if self.state(now) == "open" else 0.0

    def begin(self, now: float) -> None:
        """A call begins. Errors: InputError where none may."""
        if not self.admits(now):
            raise InputError(f"the circuit is {self.state(now)}: {self.why}", fix="ask 'admits' first")
        self._probing = self._open

    def succeed(self, now: float) -> None:
        """A call was answered: whatever was wrong is over."""
        self._at(now)
        self._failures = self._in_a_row = 0
        self._open = self._probing = False
        self.why = ""

    def fail(self, now: float, why: str, *, lost: bool = False) -> None:
        """A call failed through the backend's fault; `lost`: its engine died, and is started anew."""
        self._at(now)
        self._failures += 1
        self.recovers = lost
        if self._probing or self._failures >= self.patience.failures:
            self.trip(now, why)

    def leave(self, now: float) -> None:
        """A call ended and says nothing about the backend: its caller left, or the question was at fault."""
        self._at(now)
        self._probing = False

    def stall(self, now: float, why: str) -> None:
        """The backend stands still: open the circuit at once. Its engine is started anew."""
        self.recovers = True
        self.trip(now, why)

    def trip(self, now: float, why: str) -> None:
        """Open the circuit; while it is open, this changes nothing."""
        if self.state(now) == "open":
            return
        pause = min(self.patience.pause * 2**self._in_a_row, self.patience.longest)
        self._open, self._until, self._probing = True, now + pause, False
        self._in_a_row = min(self._in_a_row + 1, 32)
        self._failures = 0
        self.opened += 1
        self.why = why

    def _at(self, now: float) -> None:
        if not now >= self._now:
            raise InputError(
                f"the clock of the circuit breaker went back from {self._now:.3f} s to {now:.3f} s",
                fix="pass a monotonic clock, such as time.monotonic",
            )
        self._now = now
