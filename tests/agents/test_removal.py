"""A prompt without a line is the prompt that would have been asked without that evidence."""

from __future__ import annotations

import pytest

from finllm.agents.agent import LABELS, Offered, render_prompt
from finllm.agents.narrative import NARRATIVE
from finllm.agents.removal import evidence_lines, matched
from finllm.scheduler.placement.task import Prompt

INPUTS = {"narrative": "Oil\njumps: far.", "precedents": "1990: oil up"}
TEXTS = ("Short.", "A longer text about oil.", "Short too.", "A text of about that length.")


def asked(*left_out: str, narrative: str = INPUTS["narrative"]) -> Prompt:
    lines = {label: Offered(label, text) for label, text in zip(LABELS, TEXTS, strict=False) if label not in left_out}
    return render_prompt(NARRATIVE, {**INPUTS, "narrative": narrative}, lines)


def test_a_removed_line_leaves_what_would_have_been_asked_without_it() -> None:
    lines = evidence_lines(asked(), "ABCD")
    assert lines is not None
    for label in "ABCD":
        assert lines.without(label) == asked(label)
    assert lines.without("A", "C") == asked("A", "C")
    with pytest.raises(KeyError):
        lines.without("E")


def test_reversed_evidence_keeps_its_letters_and_reversing_again_gives_the_prompt_back() -> None:
    lines = evidence_lines(asked(), "ABCD")
    assert lines is not None
    turned = lines.reversed()
    assert turned.prompt.user.index("D: ") < turned.prompt.user.index("A: ")
    assert turned.reversed().prompt == asked()
    assert sorted(turned.without("B").user) == sorted(asked("B").user)


def test_a_text_that_hides_where_the_lines_are_gives_none() -> None:
    assert evidence_lines(asked(narrative="A: x\nB: y\nC: z\nD: w"), "ABCD") is None
    assert evidence_lines(asked(), "") is None
    assert evidence_lines(asked(), "ABCDE") is None


def test_each_chosen_line_is_matched_with_the_nearest_in_length_and_none_twice() -> None:
    lines = evidence_lines(asked(), "ABCD")
    assert lines is not None
    assert matched(lines, ("A", "B")) == (("A", "C"), ("B", "D"))
    assert matched(lines, ("A", "B", "C")) == (("A", "D"),)
    assert matched(lines, ("A", "B", "C", "D")) == ()
