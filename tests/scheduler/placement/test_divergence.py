"""Divergence as a pure rule: what is under its threshold, what is finer, and what votes come to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.scheduler.decoding.filling import Choices, best
from finllm.scheduler.decoding.template import Choose, Force, Pick, Template, Unless
from finllm.scheduler.placement.divergence import Divergence, divergences, finer, permuted, shortfall, tally, turned
from finllm.scheduler.placement.task import PRECISIONS

TEMPLATE: Template = (
    Force('{"'), Force('event":"'), Choose("event", ("war", "policy", "routine"), stem='event":"'),
    Force('","direction":"'), Choose("direction", ("up", "down", "none"), stem='direction":"'),
    Force('","size":"'),
    Choose("size", ("small", "large"), Unless("direction", "none", "none"), '","size":"', "direction"),
    Force('","because":'), Pick("because", ("E1", "E2", "E3"), 2, 'because":["'), Force("}"),
)  # fmt: skip
PROBABILITY = st.floats(0.01, 1.0)


@st.composite
def answers(draw: st.DrawFn) -> Choices:
    """What one answer to the template says."""
    found: Choices = {}
    for step in TEMPLATE:
        if isinstance(step, Choose | Pick):
            values = step.values if isinstance(step, Choose) else step.labels
            odds = {value: draw(PROBABILITY) for value in values}
            found[step.field] = {value: p / sum(odds.values()) for value, p in odds.items()}
    if best(found["direction"]) == "none":
        found["size"] = {"none": 1.0}
    return found


def says(event: str, sure: float, direction: str = "up") -> Choices:
    rest = (1 - sure) / 2
    return {"event": {value: sure if value == event else rest for value in ("war", "policy", "routine")},
             "direction": {value: 0.8 if value == direction else 0.1 for value in ("up", "down", "none")},
             "size": {"none": 1.0} if direction == "none" else {"small": 0.3, "large": 0.7},
             "because": {"E1": 0.2, "E2": 0.5, "E3": 0.3}}  # fmt: skip


@given(answers(), st.dictionaries(st.sampled_from(["event", "direction", "size", "other"]), st.floats(0, 1)))
def test_a_field_diverges_exactly_where_its_value_is_under_its_threshold(
    choices: Choices, thresholds: dict[str, float]
) -> None:
    found = divergences(choices, thresholds)
    assert {one.field for one in found} == {
        field for field, least in thresholds.items() if field in choices and max(choices[field].values()) < least
    }
    short = [one.threshold - one.probability for one in found]
    assert short == sorted(short, reverse=True)
    assert divergences(choices, {}) == ()


def test_a_field_that_was_not_asked_does_not_diverge() -> None:
    assert divergences(says("war", 0.5), {"event": 0.8}) == (Divergence("event", 0.5, 0.8),)
    assert divergences(says("war", 0.5, "none"), {"size": 0.99}) == ()
    assert divergences({}, {"event": 0.8}) == ()


@given(st.sampled_from(PRECISIONS), st.lists(st.sampled_from(PRECISIONS)))
def test_the_next_precision_up_comes_first_and_each_once(precision: str, offered: list[str]) -> None:
    found = [PRECISIONS.index(one) for one in finer(precision, offered)]
    assert found == sorted(set(found))
    assert all(one > PRECISIONS.index(precision) for one in found)


@given(st.lists(st.integers(), unique=True, min_size=1), st.integers(0, 20))
def test_turning_keeps_every_item_and_lets_each_lead(items: list[int], turn: int) -> None:
    assert sorted(turned(items, turn)) == sorted(items)
    assert {turned(items, at)[0] for at in range(len(items))} == set(items)
    assert turned(items, 0) == tuple(items)


def test_a_permuted_template_asks_the_same_in_another_order() -> None:
    there, back = permuted(TEMPLATE, 1), permuted(TEMPLATE, 0)
    assert back == TEMPLATE
    assert there != TEMPLATE
    for step, other in zip(TEMPLATE, there, strict=True):
        if isinstance(step, Choose):
            assert isinstance(other, Choose)
            assert (other.field, other.unless, other.stem) == (step.field, step.unless, step.stem)
            assert sorted(other.values) == sorted(step.values)
        else:
            assert other == step


@given(st.lists(answers(), min_size=1, max_size=3))
def test_votes_come_to_one_valid_answer_among_those_given(votes: list[Choices]) -> None:
    counted = tally(TEMPLATE, votes)
    said = json.loads(counted.text)
    assert said["event"] in {best(vote["event"]) for vote in votes}
    assert (said["size"] == "none") == (said["direction"] == "none")
    assert len(said["because"]) == 2
    for odds in counted.choices.values():
        assert sum(odds.values()) == pytest.approx(1.0)
    for field, values in counted.split.items():
        tops = [best(vote[field]) for vote in votes]
        assert set(values) == set(tops)
        assert all(2 * tops.count(value) <= len(votes) for value in values)


@given(answers(), st.integers(1, 4))
def test_equal_votes_change_nothing(vote: Choices, times: int) -> None:
    counted = tally(TEMPLATE, [vote] * times)
    assert counted.split == {}
    for field, odds in vote.items():
        assert counted.choices[field] == pytest.approx(odds)


def test_the_mean_decides_and_a_vote_without_a_majority_is_split() -> None:
    counted = tally(TEMPLATE, [says("war", 0.9), says("policy", 0.4), says("policy", 0.4)])
    assert json.loads(counted.text)["event"] == "war"
    assert counted.split == {}
    apart = tally(TEMPLATE, [says("war", 0.4), says("policy", 0.5), says("routine", 0.6)])
    assert json.loads(apart.text)["event"] == "routine"
    assert set(apart.split) == {"event"}
    assert set(apart.split["event"]) == {"war", "policy", "routine"}


def test_no_votes_are_refused() -> None:
    with pytest.raises(ValueError, match="no votes"):
        tally(TEMPLATE, [])


def test_a_shortfall_is_summed_and_weighs_less_in_a_longer_prompt() -> None:
    found = [Divergence("event", 0.5, 0.8), Divergence("size", 0.6, 0.7)]
    assert shortfall(found, 1000) == pytest.approx(0.4)
    assert shortfall(found, 2000) == pytest.approx(0.2)
    assert shortfall((), 1000) == 0.0
