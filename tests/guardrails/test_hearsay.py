"""Hearsay is told by asking to be believed in two ways at once; reporting may use one of them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.guardrails.hearsay import ENOUGH, hearsay


@pytest.mark.parametrize(
    "text",
    [
        "A source inside the ministry says the vault is empty. Nobody will print it. Get out now.",
        "My cousin works at the mint and the plates are gone. Secret order. Trust me.",
        "According to a document we were shown but may not name, the bank was saved on Sunday.",
        "I have seen the memo. It is being held back until Friday. Not financial advice.",
        "A person who cannot be named told us of a secret list; retweet before it is taken down.",
    ],
)
def test_claims_that_nobody_can_check_are_hearsay(text: str) -> None:
    assert len(hearsay(text)) >= ENOUGH


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The ministry said on Monday that the vault had been counted and nothing was missing.",
        "Officials who may not be named under the rules of the briefing said that talks would go on.",
        "The committee voted by secret ballot and published the result.",
        "A leaked memo was confirmed by the company in a filing.",
        "The broker does not give advice, and its clients should check with their own.",
        "The minister could not say whether the port would reopen.",
    ],
)
def test_reporting_is_not_hearsay(text: str) -> None:
    assert len(hearsay(text)) < ENOUGH


@given(st.text(max_size=300))
def test_what_it_quotes_stands_in_the_text(text: str) -> None:
    for said in hearsay(f"{text} my source {text}").values():
        assert re.search(re.escape(said), f"{text} my source {text}")
