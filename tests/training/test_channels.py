"""The channel reader's training: what is left out stays out, the shift keeps its bounds, the loss sees every label."""

from __future__ import annotations

import math

import numpy as np
import torch

from finllm.models import channel_heads
from finllm.tools.channels import STATES, channel_table
from finllm.tools.data.factors import FACTOR_IDS
from training.channel_examples import CHANNELS, FIELDS, LEFT_OUT, OFF_TOPIC, Example, second_author, split
from training.channel_network import loss_of
from training.channels import OFF_TOPIC_MOST, Logits, calibrate, halves, opens, scores_of

WIDTH = 8


def _example(text: str, channels: dict[str, str] | None = None, **labels: int) -> Example:
    moves = channel_table()[next(iter(channels))].moves if channels else {}
    signs = {one: "+" if moves[one] > 0 else "-" for one in moves} if moves else dict.fromkeys(FACTOR_IDS, "0")
    return Example(text, "own/x", "wire", channels or {}, signs, labels, 1.0)


def _logits(examples: list[Example], sure: float) -> Logits:
    """As of a reader that knows the labels, `sure` of them."""
    named = np.full((len(examples), len(CHANNELS)), -sure)
    states = np.zeros((len(examples), len(CHANNELS), len(STATES)))
    fields = {field: np.zeros((len(examples), len(values))) for field, values in FIELDS.items()}
    for at, example in enumerate(examples):
        for channel, state in (example.channels or {}).items():
            named[at, CHANNELS.index(channel)] = sure
            states[at, CHANNELS.index(channel), STATES.index(state)] = sure  # pyright: ignore[reportArgumentType]
    return Logits(named, states, fields)


def test_nothing_that_is_left_out_is_trained_on() -> None:
    parts = split()
    groups = {one.group for one in parts.train}
    assert not groups & set(LEFT_OUT)
    assert "own/second" not in groups
    assert {one.group for one in parts.left_out} <= set(LEFT_OUT)
    told = [{one.text for one in of} for of in (parts.train, parts.left_out, parts.off_topic, second_author())]
    assert not told[1] & told[3]
    assert not told[0] & (told[2] | told[3])
    assert {one.group for one in parts.off_topic} <= {OFF_TOPIC}


def test_halves_are_a_matter_of_the_text_alone() -> None:
    examples = [_example(f"text {n}") for n in range(200)]
    choose, score = halves(examples)
    assert sorted([*choose, *score]) == list(range(200))
    assert 70 < len(choose) < 130
    assert {examples[at].text for at in choose} == {
        examples[::-1][at].text for at in halves(examples[::-1])[0]
    }  # fmt: skip


def test_a_reader_that_is_right_scores_one_and_opens_no_off_topic_notice() -> None:
    examples = [_example(f"{name} {state}", {name: state}) for name in CHANNELS for state in STATES[:1]]
    examples += [_example(f"dull {n}") for n in range(20)]
    logits = _logits(examples, 6.0)
    card = calibrate(logits, examples, _logits([_example(f"off {n}") for n in range(50)], 6.0))
    found = scores_of(logits, examples, card, lambda one: one.manner)
    assert found["table.signs"] == found["table.nothing"] == found["state"] == found["wire.state"] == 1.0


def test_the_shift_keeps_off_topic_notices_shut() -> None:
    examples = [_example(f"{name}", {name: "happens"}) for name in CHANNELS]
    off = _logits([_example(f"off {n}", {CHANNELS[0]: "happens"}) for n in range(10)], 0.2)  # it names what is not
    card = calibrate(_logits(examples, 4.0), examples, off)
    assert opens(off, card) <= OFF_TOPIC_MOST
    assert opens(off, card | {"shift": -3.0, "states": 0.05}) == 1.0


def test_the_loss_falls_with_each_label_that_is_read_right() -> None:
    example = Example("x", "own/x", "wire", {CHANNELS[3]: "denied"}, {}, {"stance": 1, "event": 2}, 1.0)
    shapes = channel_heads.shapes(WIDTH, len(CHANNELS), FIELDS)
    assert shapes["query"] == (len(CHANNELS) + len(FIELDS), WIDTH)

    def read(right: float) -> channel_heads.Read:
        named = torch.full((1, len(CHANNELS)), -right)
        states = torch.zeros(1, len(CHANNELS), len(STATES))
        fields = {field: torch.zeros(1, len(values)) for field, values in FIELDS.items()}
        named[0, 3], states[0, 3, STATES.index("denied")] = right, right
        fields["stance"][0, 1] = fields["event"][0, 2] = right
        return channel_heads.Read(named, states, fields, None)

    lost = [float(loss_of(read(right), [example])) for right in (0.0, 2.0, 6.0)]
    assert lost == sorted(lost, reverse=True)
    assert math.isfinite(lost[0])
    assert lost[2] < 0.2
