"""The one protocol of a policy, which runs live and in the simulator alike: which task goes where next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from finllm.scheduler.placement.fleet import Fleet, Ints
from finllm.scheduler.placement.waiting import Tasks

__all__ = ["Decision", "Policy"]


@dataclass(frozen=True)
class Decision:
    """A waiting task and its backend's index; None: it is refused, and `why` says so.

    `twin`: the backend that runs a critical task too; where it has none, `why` says so.
    """

    row: int
    backend: int | None
    why: str = ""
    twin: int | None = None


class Policy(Protocol):
    """Decides one task at a time; the caller carries a decision out and asks again until there is none.

    Times are s on the caller's clock, which never goes back.
    """

    def next(self, now: float, tasks: Tasks, waiting: Ints, fleet: Fleet) -> Decision | None:
        """Of the `waiting` rows, in order of arrival, one that starts on a free slot now or is refused; None: wait."""
        ...

    def arrive(self, row: int, tasks: Tasks, fleet: Fleet) -> None:
        """A task waits now."""
        ...

    def finish(self, row: int, backend: int, now: float, tasks: Tasks, output: float) -> None:
        """A task that ran has left its backend, having put out so many tokens."""
        ...
