"""Backends as a placement sees them: what each can do, and what it is doing now, as arrays over backends and slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from finllm.scheduler.calibration.measured import Speed
from finllm.scheduler.money.amount import Provenance
from finllm.scheduler.placement.task import PRECISIONS, Tier

CHUNK = 512
"""Prompt tokens that an engine puts through between two decoding steps, at most."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
ALL = slice(None)


@dataclass(frozen=True)
class Profile:
    """Speed and energy of a backend. `decode`: batch → tokens/s of all its sequences together; joules are per token."""

    prefill: float
    decode: Mapping[int, float]
    prefill_joules: float
    decode_joules: Mapping[int, float]
    energy: Provenance = "modelled"

    @classmethod
    def of(cls, speed: Speed) -> Profile:
        """What was measured."""
        return cls(
            speed.prefill_tokens_per_second,
            {rate.batch: rate.tokens_per_second for rate in speed.decode},
            speed.prefill_joules_per_token,
            {rate.batch: rate.joules_per_token for rate in speed.decode},
            speed.energy,
        )

    def faster(self, times: float, joules: float = 1.0) -> Profile:
        """The same machine, so many times as fast, and with so many times the joules per token."""
        return Profile(
            self.prefill * times,
            {batch: rate * times for batch, rate in self.decode.items()},
            self.prefill_joules * joules,
            {batch: each * joules for batch, each in self.decode_joules.items()},
            self.energy,
        )


@dataclass(frozen=True)
class BackendSpec:
    """A backend's standing facts.

    `kv_tokens`: room for keys and values, shared by its `slots`. `link`: s to reach it and back. `usd_per_token`:
    money. `quality`: lower bound by agent, 0 to 1; an agent not named has 1 (nothing is known against it). `wake`: s
    until it answers after it slept. `asleep_after`: idle s after which it sleeps. `power`, `network`: the domains that
    it fails with, empty where nobody told. Backends of one `node` that share its compute slow each other down
    (`shared`). `stalls`: share of a prompt's time for which its other tasks stand
    still; 0 where prompts are computed apart.
    """

    name: str
    tier: Tier
    precision: str
    profile: Profile
    slots: int = 8
    kv_tokens: int = 32_768
    context: int = 4_096
    node: str = "local"
    zone: str = "local"
    family: str = "default"
    link: float = 0.0
    usd_per_token: float = 0.0
    quality: Mapping[str, float] = field(default_factory=dict[str, float])
    wake: float = 0.0
    asleep_after: float = float("inf")
    shared: bool = False
    stalls: float = 1.0
    power: str = ""
    network: str = ""


def by_batch(values: Mapping[int, float], most: int) -> Floats:
    """Values at batch 1…most, between those given in a straight line, beyond the last as the last."""
    known = sorted(values)
    return np.interp(np.arange(1, most + 1), known, [values[batch] for batch in known])


def _codes(names: Sequence[str]) -> Ints:
    """A number for each name, the same for the same; −1 for an empty one."""
    known = sorted(set(names) - {""})
    return np.array([known.index(name) if name else -1 for name in names], dtype=np.int64)


class Fleet:
    """All backends side by side; columns of shape (B,), slots of shape (B, S).

    What changes while they work: `occupied`, `left` (predicted tokens still to come) and `due` of each slot's task;
    `pending` (prompt tokens not yet put through), `held` (tokens of KV set aside), `up`, `asleep`, `cached`.
    """

    def __init__(self, specs: Sequence[BackendSpec], agents: Sequence[str]) -> None:
        self.specs = tuple(specs)
        self.index = {spec.name: at for at, spec in enumerate(specs)}
        self.agents = tuple(agents)
        count, most = len(specs), max((spec.slots for spec in specs), default=1)
        self.slots = np.array([spec.slots for spec in specs], dtype=np.int64)
        self.kv = np.array([spec.kv_tokens for spec in specs], dtype=np.float64)
        self.context = np.array([spec.context for spec in specs], dtype=np.float64)
        self.link = np.array([spec.link for spec in specs])
        self.wake = np.array([spec.wake for spec in specs])
        self.stalls = np.array([spec.stalls for spec in specs])
        self.usd = np.array([spec.usd_per_token for spec in specs])
        self.deep = np.array([spec.tier == "deep" for spec in specs])
        self.deep_weight = self.deep.astype(np.float64)
        self.rank = np.array([PRECISIONS.index(spec.precision) for spec in specs], dtype=np.int64)
        self.per_prompt_token = np.array([1.0 / spec.profile.prefill for spec in specs])
        self.prompt_joules = np.array([spec.profile.prefill_joules for spec in specs])
        self.step = np.zeros((count, most + 2))
        self.step_joules = np.zeros((count, most + 2))
        batches = np.arange(1, most + 2)
        for at, spec in enumerate(specs):
            self.step[at, 1:] = batches / by_batch(spec.profile.decode, most + 1)
            self.step_joules[at, 1:] = batches * by_batch(spec.profile.decode_joules, most + 1)
        self.quality = np.array(
            [[spec.quality.get(agent, 1.0) for spec in specs] for agent in agents], dtype=np.float64
        )
        self.zones = sorted({spec.zone for spec in specs})
        self.zone = np.array([self.zones.index(spec.zone) for spec in specs], dtype=np.int64)
        self.families = sorted({spec.family for spec in specs})
        self.family = np.array([self.families.index(spec.family) for spec in specs], dtype=np.int64)
        self._power, self._network = _codes([s.power for s in specs]), _codes([s.network for s in specs])
        self.tells_domains = bool(((self._power >= 0) & (self._network >= 0)).any())
        nodes = sorted({spec.node for spec in specs})
        self.node = np.array([nodes.index(spec.node) for spec in specs], dtype=np.int64)
        self.shared = np.array([spec.shared for spec in specs])
        beside: dict[str, list[int]] = {}
        for at, spec in enumerate(specs):
            if spec.shared:
                beside.setdefault(spec.node, []).append(at)
        self._beside = [beside[spec.node] if spec.shared else [at] for at, spec in enumerate(specs)]
        self.shares = any(len(others) > 1 for others in beside.values())
        self.rows = np.arange(count)

        self.occupied = np.zeros((count, most), dtype=np.bool_)
        self.left = np.zeros((count, most))
        self.due = np.full((count, most), np.inf)
        self.running = np.zeros(count, dtype=np.int64)
        self._working = np.zeros(len(nodes))
        self.pending = np.zeros(count)
        self.held = np.zeros(count)
        self.up = np.ones(count, dtype=np.bool_)
        self.asleep = np.zeros(count, dtype=np.bool_)
        self.cached: dict[int, Floats] = {}
        self.touched: set[int] | None = None
        """Backends whose state changed since it was last taken in; None: all of them."""

    def grown(self, spec: BackendSpec) -> Fleet:
        """The same fleet at the same moment, with one more backend, which is idle; agents keep their places."""
        fleet = Fleet((*self.specs, spec), (*self.agents, *sorted(set(spec.quality) - set(self.agents))))
        count, most = self.occupied.shape
        for name in ("occupied", "left", "due"):
            getattr(fleet, name)[:count, :most] = getattr(self, name)
        for name in ("running", "pending", "held", "up", "asleep"):
            getattr(fleet, name)[:count] = getattr(self, name)
        np.add.at(fleet._working, fleet.node[fleet.shared & (fleet.running > 0)], 1.0)
        fleet.cached = {prefix: np.append(held, 0.0) for prefix, held in self.cached.items()}
        return fleet

    def apart(self, backend: int) -> Bools:
        """The backends that share neither power nor network with this one, as far as both tell, (B,)."""
        told = (self._power >= 0) & (self._network >= 0)
        others = (self._power != self._power[backend]) & (self._network != self._network[backend])
        return told & others & bool(told[backend])

    def __len__(self) -> int:
        return len(self.specs)

    @property
    def free(self) -> Ints:
        """Slots that a task may have now, (B,); none where the backend is down."""
        return (self.slots - self.running) * self.up

    def crowd(self, at: int | slice = ALL) -> Floats:
        """By how much work on these backends is stretched by others on their nodes: how many of them work, itself
        too.
        """
        shared = self.shared[at]
        counts = np.where(shared, self._working[self.node[at]], 0.0)
        return counts + (~shared | (self.running[at] == 0))

    def touch(self, backend: int) -> None:
        """This backend's state has changed, and with it that of those which share its compute."""
        if self.touched is not None:
            self.touched.update(self._beside[backend])

    def set_up(self, backend: int, up: bool) -> None:
        """Take a backend out of service, or back in."""
        self.up[backend] = up
        self.touch(backend)

    def set_asleep(self, backend: int, asleep: bool) -> None:
        self.asleep[backend] = asleep
        self.touch(backend)

    def take(self, backend: int, tokens: float, kv: float, prompt: float, due: float) -> int:
        """Put a task in a free slot; which one. `tokens`: output predicted. Errors: ValueError where none is free."""
        if self.running[backend] >= self.slots[backend]:
            raise ValueError(f"{self.specs[backend].name!r} has no free slot")
        slot = int(self.occupied[backend].argmin())
        self.occupied[backend, slot] = True
        self.left[backend, slot], self.due[backend, slot] = tokens, due
        self.running[backend] += 1
        if self.running[backend] == 1 and self.shared[backend]:
            self._working[self.node[backend]] += 1
        self.pending[backend] += prompt
        self.held[backend] += kv
        self.touch(backend)
        return slot

    def leave(self, backend: int, slot: int, kv: float) -> None:
        """Empty a slot. Errors: ValueError where it is empty."""
        if not self.occupied[backend, slot]:
            raise ValueError(f"slot {slot} of {self.specs[backend].name!r} is empty")
        self.occupied[backend, slot] = False
        self.left[backend, slot], self.due[backend, slot] = 0.0, np.inf
        self.running[backend] -= 1
        self.held[backend] = max(self.held[backend] - kv, 0.0)
        if self.running[backend] == 0:
            self.pending[backend] = 0.0
            if self.shared[backend]:
                self._working[self.node[backend]] -= 1
        self.touch(backend)

    def remember(self, backend: int, prefix: int, tokens: float) -> None:
        """A backend now holds so many tokens of a prefix."""
        self.cached.setdefault(prefix, np.zeros(len(self)))[backend] = tokens
