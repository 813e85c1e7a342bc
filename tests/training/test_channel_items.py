"""The channel corpus: channels of the table only, signs that agree with it, texts that exist."""

from __future__ import annotations

from collections import Counter

import pytest

from finllm.tools.channels import NOTHING, channel_table
from training.corpus.channel_items import HELD_OUT, own_items, real_labels, real_texts


def test_labels_name_channels_of_the_table_and_no_id_twice() -> None:
    named = {name for name in channel_table() if not name.startswith(NOTHING)}
    items = [*own_items(), *(item for author in HELD_OUT for item in own_items(held_out=author))]
    assert {name for item in [*items, *real_labels()] for name in item.channels or {}} <= named
    assert max(Counter(item.id for item in items).values()) == 1
    assert max(Counter((label.id, label.who) for label in real_labels()).values()) == 1


@pytest.mark.parametrize(("author", "count"), [("second", 240), ("third", 300)])
def test_nothing_of_a_held_out_author_is_in_the_training_items(author: str, count: int) -> None:
    held = {item.text for item in own_items(held_out=author)}
    assert len(held) == count
    assert not held & {item.text for item in own_items()}


def test_signs_of_a_single_channel_that_happens_agree_with_the_table() -> None:
    """Their authors knew the table and labelled each text by itself: this finds columns that no text bears out."""
    right = wrong = 0
    for item in own_items():
        happening = [name for name, state in (item.channels or {}).items() if state == "happens"]
        if len(item.channels or {}) != 1 or len(happening) != 1:
            continue
        moves = channel_table()[happening[0]].moves
        for factor, sign in item.signs.items():
            if sign != "0" and factor in moves:
                right, wrong = (right + 1, wrong) if (moves[factor] > 0) == (sign == "+") else (right, wrong + 1)
    assert right / (right + wrong) >= 0.95, (right, wrong)


def test_every_label_of_a_real_text_is_of_a_text_that_is_there() -> None:
    if not real_texts():
        pytest.skip("the real texts are not beside this checkout")
    assert {label.id for label in real_labels()} <= set(real_texts())
