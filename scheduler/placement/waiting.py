"""The tasks that wait for a placement, as columns: what each wants, and which backends may ever serve it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finllm.scheduler.placement.fleet import Bools, Fleet, Floats

NO_PREFIX = -1


@dataclass(frozen=True)
class Want:
    """What a task asks of a placement; times in s on the caller's clock, lengths in tokens.

    `output` and `output_most`: reckoned with, and P90. `rank`: index in `PRECISIONS` of the floor. `least_quality`:
    the lower bound that a backend must reach for the agent. `until`: a deferrable task may start as late as this.
    `shared`: how much of the prompt its `prefix` covers. `critical`: it runs in two domains, where two hold
    its weights.
    """

    agent: str
    tenant: str
    arrived: float
    prompt: float
    output: float
    output_most: float
    due: float
    value: float = 1.0
    rank: int = 0
    least_quality: float = 0.0
    background: bool = False
    until: float = 0.0
    prefix: int = NO_PREFIX
    shared: float = 0.0
    critical: bool = False


_FLOATS = ("arrived", "due", "value", "until", "shared")


class Tasks:
    """Rows of tasks, (N,) a column.

    `length` (N, 3): 1, tokens of prompt, and of output predicted. `most`: tokens that it may come to. `may` (N, B): the
    backends that meet floor, quality, context and room. `solo`: s that a task takes on the best of them when alone.
    """

    def __init__(self, fleet: Fleet, room: int = 256) -> None:
        self._fleet = fleet
        self.count = 0
        self._free: list[int] = []
        for name in _FLOATS:
            setattr(self, name, np.zeros(room))
        self.solo, self.most = np.zeros(room), np.zeros(room)
        self.length = np.ones((room, 3))
        self.agent = np.zeros(room, dtype=np.int64)
        self.tenant = np.zeros(room, dtype=np.int64)
        self.prefix = np.full(room, NO_PREFIX, dtype=np.int64)
        self.background = np.zeros(room, dtype=np.bool_)
        self.critical = np.zeros(room, dtype=np.bool_)
        self.may: Bools = np.zeros((room, len(fleet)), dtype=np.bool_)
        self.tenants: list[str] = []

    arrived: Floats
    due: Floats
    value: Floats
    until: Floats
    shared: Floats

    def add(self, want: Want) -> int:
        """Its row. A row given back is used again."""
        row = self._free.pop() if self._free else self._next()
        for name in _FLOATS:
            getattr(self, name)[row] = getattr(want, name)
        self.length[row] = 1.0, want.prompt, want.output
        self.most[row] = want.prompt + want.output_most
        if want.tenant not in self.tenants:
            self.tenants.append(want.tenant)
        self.agent[row] = self._fleet.agents.index(want.agent)
        self.tenant[row] = self.tenants.index(want.tenant)
        self.prefix[row] = want.prefix
        self.background[row] = want.background
        self.critical[row] = want.critical
        self.may[row] = self.allowed(want)
        alone = solo_seconds(self._fleet, want.prompt, want.output)
        self.solo[row] = np.min(alone, where=self.may[row], initial=np.inf)
        return row

    def allowed(self, want: Want) -> Bools:
        """Which backends a task may ever run on, (B,)."""
        fleet = self._fleet
        length = want.prompt + want.output_most
        quality = fleet.quality[fleet.agents.index(want.agent)]
        return (fleet.rank >= want.rank) & (quality >= want.least_quality) & (
            length <= np.minimum(fleet.context, fleet.kv)
        )  # fmt: skip

    def grow(self, fleet: Fleet) -> None:
        """The fleet has more backends from now on; the tasks that are here may run on none of those."""
        more = np.zeros((len(self.may), len(fleet) - len(self._fleet)), dtype=np.bool_)
        self.may = np.concatenate([self.may, more], axis=1)
        self._fleet = fleet

    def prompt(self, row: int) -> float:
        """Tokens of its prompt."""
        return float(self.length[row, 1])

    def output(self, row: int) -> float:
        """Tokens of output predicted."""
        return float(self.length[row, 2])

    def bar(self, row: int, backend: int) -> None:
        """A task is not to be sent to this backend again."""
        self.may[row, backend] = False

    def release(self, row: int) -> None:
        """Give a row back, once its task is answered or given up."""
        self._free.append(row)

    def _next(self) -> int:
        if self.count == len(self.solo):
            for name in (
                *_FLOATS,
                "solo",
                "most",
                "length",
                "agent",
                "tenant",
                "prefix",
                "background",
                "critical",
                "may",
            ):
                column = getattr(self, name)
                setattr(self, name, np.concatenate([column, np.zeros_like(column)]))
        self.count += 1
        return self.count - 1


def solo_seconds(fleet: Fleet, prompt: float, output: float) -> Floats:
    """Time of a task that has each backend to itself, awake and with nothing cached, s, (B,)."""
    return fleet.link + prompt * fleet.per_prompt_token + output * fleet.step[:, 1]


def refusals(want: Want, fleet: Fleet, names: Sequence[str]) -> dict[str, str]:
    """For each backend that may never serve the task, which constraint forbids it; `names`: precisions, coarse to
    fine.
    """
    quality = fleet.quality[fleet.agents.index(want.agent)]
    length = want.prompt + want.output_most
    found: dict[str, str] = {}
    for at, spec in enumerate(fleet.specs):
        if fleet.rank[at] < want.rank:
            found[spec.name] = f"{spec.precision} is below the floor {names[want.rank]}"
        elif quality[at] < want.least_quality:
            found[spec.name] = f"quality {quality[at]:.2f} for {want.agent!r} is below {want.least_quality:.2f}"
        elif length > fleet.context[at]:
            found[spec.name] = f"needs about {length:.0f} tokens, its context holds {fleet.context[at]:.0f}"
        elif length > fleet.kv[at]:
            found[spec.name] = f"needs about {length:.0f} tokens of KV, it has {fleet.kv[at]:.0f}"
    return found
