"""Learned values: running means, drawn to what was expected while little was seen, and always above zero."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.scheduler.placement.value import LEAST, MOST, STRENGTH, UNIT, Learned, Seen, shrunk

NARROWING = st.floats(-2.0, 2.0)
SEVERAL = st.lists(NARROWING, min_size=1, max_size=30)
PRIOR = st.floats(LEAST, 5.0)


def taught(agent: str, kind: str, narrowings: list[float], learned: Learned | None = None) -> Learned:
    learned = learned or Learned()
    for one in narrowings:
        learned = learned.observe(agent, kind, one)
    return learned


@given(SEVERAL)
def test_the_running_mean_is_the_mean(narrowings: list[float]) -> None:
    seen = taught("a", "k", narrowings).agents["a"]
    assert seen.count == len(narrowings)
    assert seen.mean == pytest.approx(math.fsum(narrowings) / len(narrowings), abs=1e-9)


@given(PRIOR)
def test_an_agent_that_was_never_seen_is_worth_its_prior(prior: float) -> None:
    assert Learned().value("a", prior) == pytest.approx(prior)
    assert taught("other", "k", [1.0]).value("a", prior, "k") == pytest.approx(prior)


@given(SEVERAL, PRIOR, st.sampled_from([None, "k", "new"]))
def test_a_value_stays_above_zero_and_below_the_most(narrowings: list[float], prior: float, kind: str | None) -> None:
    assert LEAST <= taught("a", "k", narrowings).value("a", prior, kind) <= MOST


@given(NARROWING, NARROWING, st.integers(0, 100))
def test_shrinking_stays_between_what_was_seen_and_what_was_expected(mean: float, expected: float, count: int) -> None:
    found = shrunk(Seen(count, mean), expected)
    assert min(mean, expected) - 1e-12 <= found <= max(mean, expected) + 1e-12
    if count == STRENGTH:
        assert found == pytest.approx((mean + expected) / 2)


@given(SEVERAL, NARROWING, PRIOR)
def test_more_narrowing_is_never_worth_less(narrowings: list[float], more: float, prior: float) -> None:
    low, high = sorted([more, more + 0.5])
    learned = taught("a", "k", narrowings)
    assert learned.observe("a", "k", low).value("a", prior) <= learned.observe("a", "k", high).value("a", prior)


def test_a_kind_with_a_history_of_its_own_is_told_apart_and_a_new_one_is_the_agent_s() -> None:
    learned = taught("a", "calm", [0.0] * 40, taught("a", "war", [0.4] * 40))
    assert learned.value("a", 1.0, "war") > learned.value("a", 1.0) > learned.value("a", 1.0, "calm")
    assert learned.value("a", 1.0, "new") == learned.value("a", 1.0)
    assert learned.value("a", 1.0, "war") == pytest.approx(0.4 / UNIT, rel=0.15)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_narrowing_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="a narrowing of"):
        Learned().observe("a", "k", bad)
