"""Leases: the right to run a task on a backend for a while; progress renews it, and what does not get on loses it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from finllm.errors import InputError


@dataclass(frozen=True)
class SlotLease:
    """One slot of a backend for one holder. `number` is its own; granted at `since`, on the clock of `SlotLeases`."""

    number: int
    backend: str
    holder: str
    since: float


class SlotLeases:
    """Who runs where. `slots`: calls that a backend serves side by side, by name; `life`: s without progress.

    Every method takes `now`, monotonic s, and lets go first of what has expired by then. Errors of every method:
    InputError for a clock that went back, or a backend that is not known.
    """

    def __init__(self, slots: Mapping[str, int], *, life: float) -> None:
        if not life > 0:
            raise InputError(f"a lease that lives {life:g} s is of no use", fix="give it more than 0 s")
        self._slots: dict[str, int] = {}
        for name, count in slots.items():
            self.add(name, count)
        self._life = life
        self._expires: dict[SlotLease, float] = {}
        self._numbers = itertools.count(1)
        self._now = float("-inf")

    def add(self, backend: str, slots: int) -> None:
        """A backend that came later, or one of those given at first. Errors: InputError for one without a slot."""
        if slots < 1:
            raise InputError(f"backend {backend!r} has {slots} slots", fix="give every backend one slot or more")
        self._slots[backend] = slots

    def grant(self, backend: str, holder: str, now: float) -> SlotLease | None:
        """A lease, if the backend has a slot free."""
        if self.free(backend, now) == 0:
            return None
        lease = SlotLease(next(self._numbers), backend, holder, now)
        self._expires[lease] = now + self._life
        return lease

    def renew(self, lease: SlotLease, now: float) -> bool:
        """Say that the holder got on; False where the lease is no longer held."""
        self._at(now)
        if lease not in self._expires:
            return False
        self._expires[lease] = now + self._life
        return True

    def release(self, lease: SlotLease) -> None:
        """Give a lease back. Again, or after it expired, does nothing."""
        self._expires.pop(lease, None)

    def free(self, backend: str, now: float) -> int:
        """Slots that nobody holds."""
        self._at(now)
        if backend not in self._slots:
            raise InputError(f"no backend {backend!r}", fix=f"use one of {', '.join(sorted(self._slots)) or 'none'}")
        return self._slots[backend] - sum(lease.backend == backend for lease in self._expires)

    def held(self, now: float, backend: str | None = None) -> tuple[SlotLease, ...]:
        """The leases that are held, of one backend or of all, oldest first."""
        self._at(now)
        return tuple(lease for lease in self._expires if backend in (None, lease.backend))

    def expire(self, now: float) -> tuple[SlotLease, ...]:
        """Let go of the leases whose holders did not get on for too long; they are told once."""
        self._not_back(now)
        gone = tuple(lease for lease, until in self._expires.items() if until <= now)
        for lease in gone:
            del self._expires[lease]
        return gone

    def _at(self, now: float) -> None:
        self.expire(now)

    def _not_back(self, now: float) -> None:
        if not now >= self._now:
            raise InputError(
                f"the clock of the leases went back from {self._now:.3f} s to {now:.3f} s",
                fix="pass a monotonic clock, such as time.monotonic",
            )
        self._now = now
