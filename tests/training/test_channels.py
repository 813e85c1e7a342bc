"""The channel reader's training: what is left out stays out, the shift keeps its bounds, the loss sees every label."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from finllm.models import channel_heads
from finllm.models.channel_reader import NAMES, ChannelCard, Heard, reading
from finllm.models.embedding import EMBEDDING_NAME
from finllm.models.second_opinion import HEADS
from finllm.tools.channels import STATES, channel_table
from finllm.tools.data.factors import FACTOR_IDS
from training.channel_examples import CHANNELS, FIELDS, LEFT_OUT, OFF_TOPIC, SAYS, Example, kept_apart, split
from training.channel_network import Network, Plan, centres, loss_of, lower_states, train
from training.channels import OFF_TOPIC_MOST, calibrate, card_of, encoder_named, frozen, halves, opens, scores_of
from training.corpus.channel_items import HELD_OUT

WIDTH = 8


def _example(text: str, channels: dict[str, str] | None = None, **labels: int) -> Example:
    moves = channel_table()[next(iter(channels))].moves if channels else {}
    signs = {one: "+" if moves[one] > 0 else "-" for one in moves} if moves else dict.fromkeys(FACTOR_IDS, "0")
    return Example(text, "own/x", "wire", channels or {}, signs, labels, 1.0)


def _heard(examples: list[Example], sure: float) -> list[list[Heard]]:
    """As of a reader that knows the labels, `sure` of them."""
    found: list[list[Heard]] = []
    for example in examples:
        named = np.full(len(CHANNELS), -sure)
        states = np.zeros((len(CHANNELS), len(STATES)))
        for channel, state in (example.channels or {}).items():
            named[CHANNELS.index(channel)] = sure
            states[CHANNELS.index(channel), [*STATES].index(state)] = 6.0
        fields = {field: np.zeros(len(values)) for field, values in FIELDS.items()}
        found.append([Heard(named, states, fields, 10, [(0, 1)] * len(CHANNELS))])
    return found


def test_nothing_that_is_left_out_is_trained_on() -> None:
    parts = split()
    groups = {one.group for one in parts.train}
    assert not groups & set(LEFT_OUT)
    assert not groups & {f"own/{author}" for author in HELD_OUT}
    assert {one.group for one in parts.left_out} <= set(LEFT_OUT)
    apart = [one for author in HELD_OUT for one in kept_apart(author)]
    told = [{one.text for one in of} for of in (parts.train, parts.left_out, parts.off_topic, apart)]
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


def _blank() -> ChannelCard:
    return card_of(encoder_named(EMBEDDING_NAME), Plan(), "0" * 64, "none")


def test_a_reader_that_is_right_scores_one() -> None:
    examples = [_example(f"{name}", {name: "happens"}) for name in CHANNELS] + [
        _example(f"dull {n}") for n in range(20)
    ]
    heard = _heard(examples, 6.0)
    card = calibrate(_blank(), heard, examples, _heard([_example(f"off {n}") for n in range(50)], 6.0))
    found = scores_of([reading(card, one) for one in heard], examples, lambda one: one.manner)
    assert found["table.signs"] == found["table.nothing"] == found["state"] == found["wire.found"] == 1.0


def test_the_shift_keeps_off_topic_notices_shut() -> None:
    examples = [_example(f"{name}", {name: "happens"}) for name in CHANNELS]
    off = _heard([_example(f"off {n}", {CHANNELS[0]: "happens"}) for n in range(10)], 0.4)  # it names what is not there
    assert opens([reading(_blank(), one) for one in off]) == 1.0
    card = calibrate(_blank(), _heard(examples, 4.0), examples, off)
    assert opens([reading(card, one) for one in off]) <= OFF_TOPIC_MOST
    assert card.shift > 0


def test_what_is_frozen_is_weights_table_temperatures_and_thresholds() -> None:
    card = _blank()
    for change in (
        {"sha256": "1"},
        {"table_sha256": "1"},
        {"shift": 1.0},
        {"temperatures": {"a": 1.0}},
        {"floor": 0.2},
    ):
        assert frozen(card.model_copy(update=change)) != frozen(card)
    assert frozen(card.model_copy(update={"scores": {"a": 1.0}})) == frozen(card)


def test_the_shipped_card_was_scored_on_what_it_froze() -> None:
    card = ChannelCard.model_validate_json((HEADS / f"{NAMES[EMBEDDING_NAME]}.json").read_bytes())
    assert card.frozen == frozen(card)
    assert card.scores["off_topic.opened"] <= OFF_TOPIC_MOST
    assert {"second.signs", "second.tricky.signs", "left_out.signs"} <= set(card.scores)


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


def test_training_goes_on_where_it_was_stopped_and_is_the_same_again(tmp_path: Path) -> None:
    said = [one for one in split().train if one.group == SAYS]
    encoder = encoder_named(EMBEDDING_NAME)
    plan = Plan(frozen=5, epochs=2, batch=32)

    def trained(*, stopped: bool) -> dict[str, torch.Tensor]:
        kept = tmp_path / f"{stopped}.partial"
        learned: dict[str, torch.Tensor] = {}
        for _ in range(2 if stopped else 1):
            states, model = lower_states([one.text for one in said], encoder, plan)
            network = Network(model, plan, centres(said, states.pooled))
            before = {name: one.clone() for name, one in network.learned().items()}
            train(network, said, states.lower, plan, kept)
            learned = network.learned()
            assert any(not torch.equal(one, before[name]) for name, one in learned.items())
        return learned

    once, again = trained(stopped=False), trained(stopped=True)
    assert set(once) == set(again)
    for name, one in once.items():
        torch.testing.assert_close(one, again[name], atol=1e-3, rtol=1e-2)
