"""Two texts held against each other: counts of what moved as read and what moved otherwise."""

from __future__ import annotations

import pytest

from finllm.tools.words.compared import Compared, compare


@pytest.mark.parametrize(
    ("reading", "market", "found"),
    [
        ("Oil rises and US shares fall.", "Oil rose. US shares fell.", Compared(2, 0)),
        ("Oil rises and US shares fall.", "Oil fell. US shares fell.", Compared(1, 1)),
        ("Treasury yields rise.", "Treasury yields were unchanged.", Compared(0, 1)),
        ("Gold rises.", "Oil fell.", Compared(0, 0)),
        ("Nothing moves.", "The regime is calm.", Compared(0, 0)),
    ],
)
def test_what_the_market_did_is_counted_against_what_was_read(reading: str, market: str, found: Compared) -> None:
    assert compare(reading, market) == found
