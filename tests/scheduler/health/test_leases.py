"""Leases: never more than there are slots, always given back, and gone when nothing is heard for their life."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from finllm.errors import InputError
from finllm.scheduler.health.leases import SlotLease, SlotLeases

SLOTS = {"edge": 3, "deep": 1}
LIFE = 10.0


def test_a_lease_is_granted_while_a_slot_is_free_and_again_once_it_is_given_back() -> None:
    leases = SlotLeases(SLOTS, life=LIFE)
    first = leases.grant("deep", "run/narrative", 0.0)
    assert first is not None
    assert leases.grant("deep", "run/validator", 1.0) is None
    leases.release(first)
    leases.release(first)
    assert leases.free("deep", 1.0) == 1


def test_progress_renews_a_lease_and_silence_ends_it() -> None:
    leases = SlotLeases(SLOTS, life=LIFE)
    lease = leases.grant("edge", "run/narrative", 0.0)
    assert lease is not None
    assert leases.renew(lease, 9.0)
    assert leases.expire(18.0) == ()
    assert leases.expire(19.0) == (lease,)
    assert not leases.renew(lease, 19.0)
    assert leases.held(19.0) == ()


def test_a_clock_that_goes_back_is_refused() -> None:
    leases = SlotLeases(SLOTS, life=LIFE)
    leases.grant("edge", "run/narrative", 5.0)
    for ask in (lambda: leases.grant("edge", "x", 4.0), lambda: leases.expire(4.9), lambda: leases.free("edge", 0.0)):
        with pytest.raises(InputError, match=r"went back from 5.000 s") as failure:
            ask()
        assert "monotonic" in failure.value.fix
    with pytest.raises(InputError, match="to nan"):
        leases.expire(float("nan"))


@pytest.mark.parametrize(("slots", "life"), [({"edge": 0}, 1.0), ({"edge": 1}, 0.0), ({"edge": 1}, float("nan"))])
def test_leases_of_nothing_are_refused(slots: dict[str, int], life: float) -> None:
    with pytest.raises(InputError):
        SlotLeases(slots, life=life)


def test_an_unknown_backend_is_named_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match="no backend 'far'") as failure:
        SlotLeases(SLOTS, life=LIFE).grant("far", "run", 0.0)
    assert "deep, edge" in failure.value.fix


class Held(RuleBasedStateMachine):
    """Whatever happens in whatever order, beside a plain list of who should hold what until when."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = SlotLeases(SLOTS, life=LIFE)
        self.now = 0.0
        self.until: dict[SlotLease, float] = {}

    @rule(backend=st.sampled_from(list(SLOTS)))
    def grant(self, backend: str) -> None:
        lease = self.leases.grant(backend, "run", self.now)
        holders = [one for one in self.until if one.backend == backend]
        assert (lease is None) == (len(holders) == SLOTS[backend])
        if lease is not None:
            self.until[lease] = self.now + LIFE

    @precondition(lambda self: self.until)
    @rule(at=st.integers(0, 9))
    def renew(self, at: int) -> None:
        lease = list(self.until)[at % len(self.until)]
        assert self.leases.renew(lease, self.now)
        self.until[lease] = self.now + LIFE

    @precondition(lambda self: self.until)
    @rule(at=st.integers(0, 9))
    def release(self, at: int) -> None:
        lease = list(self.until)[at % len(self.until)]
        self.leases.release(lease)
        del self.until[lease]

    @rule(seconds=st.floats(0, 15))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds
        gone = {lease for lease, until in self.until.items() if until <= self.now}
        assert set(self.leases.expire(self.now)) == gone
        for lease in gone:
            del self.until[lease]

    @invariant()
    def never_over_allocated(self) -> None:
        assert set(self.leases.held(self.now)) == set(self.until)
        for backend, slots in SLOTS.items():
            assert 0 <= self.leases.free(backend, self.now) <= slots


TestHeld = Held.TestCase


@given(st.lists(st.sampled_from(list(SLOTS)), max_size=20))
def test_all_slots_are_free_again_once_nothing_is_heard(asked: list[str]) -> None:
    leases = SlotLeases(SLOTS, life=LIFE)
    for backend in asked:
        leases.grant(backend, "run", 0.0)
    leases.expire(LIFE)
    assert {backend: leases.free(backend, LIFE) for backend in SLOTS} == SLOTS
