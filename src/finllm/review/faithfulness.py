"""Tests whether citations are faithful: does removing a cited line change a judgement more often than another?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from finllm.review.influence import Influence, Moved
from finllm.review.sign_test import SignTest, sign_test

Finding = Literal["faithful", "not faithful", "the reverse of faithful", "not tested"]


@dataclass(frozen=True)
class Faithfulness:
    """Pairs of removals, the cited line's first. `top`: did a chosen value change; `odds`: how far did odds move."""

    top: SignTest
    odds: SignTest


def of_citations(found: Sequence[Influence]) -> Faithfulness:
    """What agents cite themselves against what they do not, as they were asked."""
    return _tested([pair for one in found for pair in one.cited_pairs()])


def of_movers(found: Sequence[Influence]) -> Faithfulness:
    """What is cited as measured against what is not, asked on another precision with the lines reversed."""
    return _tested([pair for one in found for pair in one.mover_pairs()])


def finding(test: SignTest) -> Finding:
    """What a test shows: faithful only where the whole interval lies above one half."""
    if test.share is None:
        return "not tested"
    if test.high < 0.5:
        return "the reverse of faithful"
    return "faithful" if test.shown else "not faithful"


def _tested(pairs: Sequence[tuple[Moved, Moved]]) -> Faithfulness:
    return Faithfulness(
        sign_test((float(bool(first.changed)), float(bool(second.changed))) for first, second in pairs),
        sign_test((first.distance, second.distance) for first, second in pairs),
    )
