"""The circuit breaker: failures in a row open it, one call tries again, and it closes by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.scheduler.health.breaker import Breaker, Patience

PATIENCE = Patience(failures=3, pause=1.0, longest=5.0)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(PATIENCE)
    for _ in range(3):
        breaker.fail(now, "the engine's process ended")
    return breaker


def test_failures_in_a_row_open_it_and_others_do_not() -> None:
    breaker = Breaker(PATIENCE)
    for _ in range(5):
        breaker.fail(0.0, "out of memory")
        breaker.fail(0.0, "out of memory")
        breaker.succeed(0.0)
    assert breaker.state(0.0) == "closed"
    assert opened().state(0.0) == "open"
    assert not opened().admits(0.9)


def test_after_the_pause_one_call_tries_and_its_success_closes_it() -> None:
    breaker = opened()
    assert breaker.state(1.0) == "half-open"
    breaker.begin(1.0)
    assert not breaker.admits(1.0)
    with pytest.raises(InputError, match="the circuit is half-open"):
        breaker.begin(1.0)
    breaker.succeed(2.0)
    assert breaker.state(2.0) == "closed"
    assert breaker.why == ""


def test_a_try_that_fails_opens_it_for_twice_as_long_up_to_a_bound() -> None:
    breaker, now = opened(), 0.0
    for pause in (1.0, 2.0, 4.0, 5.0, 5.0):
        assert breaker.wait(now) == pytest.approx(pause)
        now += pause
        breaker.begin(now)
        breaker.fail(now, "still down")
    assert breaker.opened == 6


def test_a_try_whose_caller_left_lets_another_try() -> None:
    breaker = opened()
    breaker.begin(1.0)
    breaker.leave(1.5)
    assert breaker.admits(1.5)


def test_no_progress_trips_it_at_once() -> None:
    breaker = Breaker(PATIENCE)
    breaker.trip(3.0, "no token for 20 s")
    breaker.trip(3.5, "heard of again")
    assert (breaker.state(3.5), breaker.opened, breaker.why) == ("open", 1, "no token for 20 s")


def test_a_clock_that_goes_back_is_refused() -> None:
    breaker = opened(5.0)
    with pytest.raises(InputError, match="went back"):
        breaker.admits(4.0)


@given(
    st.lists(st.tuples(st.sampled_from(["begin", "succeed", "fail", "leave", "trip"]), st.floats(0, 3)), max_size=40)
)
def test_it_always_recovers_by_itself(events: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(PATIENCE), 0.0
    for what, seconds in events:
        now += seconds
        if what == "begin":
            if breaker.admits(now):
                breaker.begin(now)
        elif what in ("fail", "trip"):
            getattr(breaker, what)(now, "down")
        else:
            getattr(breaker, what)(now)
    breaker.leave(now)
    now += PATIENCE.longest
    assert breaker.admits(now)
    breaker.begin(now)
    breaker.succeed(now)
    assert breaker.state(now) == "closed"
