"""Cross-modal checks: what was read, held against what the sources' words and the precedents say."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.guardrails.crossmodal import SURE, FactorCheck, Heard, Support, check_factors, check_second, majority
from finllm.tools.data.factors import FACTOR_IDS, Direction, FactorId

NONE: dict[FactorId, Direction] = dict.fromkeys(FACTOR_IDS, "none")

TABLE: dict[str, Support] = {  # read / words / precedents
    "up/up/*": "supported",
    "up/down/*": "contradicted",
    "up/none/up": "supported",
    "up/none/down": "contradicted",
    "up/none/none": "unsupported",
    "up/none/mixed": "unsupported",
    "up/none/unmoved": "unsupported",
    "up/mixed/up": "supported",
    "up/mixed/down": "contradicted",
    "up/mixed/none": "unsupported",
    "up/mixed/mixed": "unsupported",
    "up/mixed/unmoved": "unsupported",
    "up/unmoved/*": "contradicted",
    "none/up/*": "missed",
    "none/none/*": "silent",
    "none/mixed/*": "silent",
    "none/unmoved/*": "silent",
}
MIRROR: dict[str, str] = {"up": "down", "down": "up"}


def expected(read: str, words: str, precedents: str) -> Support:
    """The table has `up` and `none` read; `down` is its mirror image, and `none` reads the same both ways."""
    if read == "down" or (read == "none" and words == "down"):
        read, words, precedents = (MIRROR.get(said, said) for said in (read, words, precedents))
    return TABLE.get(f"{read}/{words}/*") or TABLE[f"{read}/{words}/{precedents}"]


def check(read: Direction, words: Heard, precedents: Heard) -> FactorCheck:
    found = check_factors({**NONE, "GOLD": read}, {"GOLD": words}, {"GOLD": precedents})
    return next(one for one in found if one.factor == "GOLD")


@pytest.mark.parametrize(
    ("read", "words", "precedents"), list(itertools.product(get_args(Direction), get_args(Heard), get_args(Heard)))
)
def test_the_whole_table(read: Direction, words: Heard, precedents: Heard) -> None:
    found = check(read, words, precedents)
    assert found.support == expected(read, words, precedents)
    assert found.diverged == (found.support in ("contradicted", "missed"))


def test_every_factor_is_checked_once_and_in_order_also_where_nothing_is_said_of_it() -> None:
    found = check_factors(NONE, {}, {})
    assert [one.factor for one in found] == list(FACTOR_IDS)
    assert {one.support for one in found} == {"silent"}


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ([], "none"),
        (["none"], "none"),
        (["up"], "up"),
        (["up", "none", "none"], "up"),
        (["up", "down"], "mixed"),
        (["up", "down", "down"], "down"),
        (["up", "down", "none"], "mixed"),
    ],
)
def test_the_majority_of_those_who_say_something_counts(said: list[Direction], heard: Heard) -> None:
    assert majority(said) == heard


@given(st.lists(st.sampled_from(get_args(Direction)), max_size=8), st.randoms())
def test_a_majority_does_not_depend_on_the_order_and_mirrors(said: list[Direction], random: object) -> None:
    shuffled = sorted(said, key=lambda _: random.random())  # pyright: ignore[reportAttributeAccessIssue]
    assert majority(shuffled) == majority(said)
    mirrored: list[Direction] = [MIRROR.get(one, one) for one in said]  # pyright: ignore[reportAssignmentType]
    assert majority(mirrored) == MIRROR.get(majority(said), majority(said))


@pytest.mark.parametrize(
    ("field", "read", "second", "probability", "diverged"),
    [
        ("stance", "hawkish", "dovish", SURE, True),
        ("stance", "hawkish", "dovish", SURE - 0.01, False),
        ("stance", "hawkish", "neutral", 0.99, False),
        ("stance", "hawkish", "hawkish", 0.99, False),
        ("event", "war", "routine", 0.9, True),
        ("factors.GOLD.direction", "up", "down", 0.9, True),
        ("factors.GOLD.direction", "none", "down", 0.9, False),
        ("factors.GOLD.direction", "up", "none", 0.9, False),
    ],
)
def test_a_second_opinion_diverges_when_it_is_sure_of_the_opposite(
    field: str, read: str, second: str, probability: float, diverged: bool
) -> None:
    told = {field: (second, probability), "injection": ("clean", 1.0)}
    (check,) = check_second({field: read, "region": "us"}, told, {})
    assert (check.field, check.diverged) == (field, diverged)


@pytest.mark.parametrize(("own", "diverged"), [(0.4, True), (0.45, False), (0.6, False)])
def test_of_two_that_are_unsure_the_surer_one_counts(own: float, diverged: bool) -> None:
    (check,) = check_second({"event": "ceasefire"}, {"event": ("blockade", 0.5)}, {"event": own})
    assert check.diverged == diverged
