"""A training that is broken off and gone on with gives the weights of one that ran through."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from finllm.models.lora import layers_of, open_gguf
from tests.training.test_model import SHAPE, random_tree, random_weights
from training.config import Config
from training.export import export
from training.packing import Batch, pack
from training.train import Training, begin, changes_of, go_on

CONFIG = Config(epochs=2, rank=4, alpha=8.0, rate=1e-2, tokens=64, accumulate=2, rounded_from=0.5)


@cache
def batches(epoch: int) -> list[Batch]:
    rng = random.Random(epoch)
    return pack([random_tree(rng, str(at)) for at in range(30)], CONFIG.tokens, rng)


def begun() -> Training:
    return begin(CONFIG, SHAPE, random_weights(), torch.device("cpu"))


def run(training: Training, steps: int | None = None) -> list[dict[str, float]]:
    log: list[dict[str, float]] = []
    go_on(training, batches, lambda: steps is not None and len(log) >= steps, log.append)
    return log


def test_going_on_gives_the_same_weights(tmp_path: Path) -> None:
    through = begun()
    log = run(through)
    assert len(log) >= 6
    first = begun()
    run(first, 3)
    first.save(tmp_path)
    again = begun()
    again.load(tmp_path)
    assert again.step == 3
    run(again)
    for name, value in changes_of(through.model).items():
        assert torch.equal(value, changes_of(again.model)[name]), name


def test_a_pruned_training_begins_with_the_other_ones_changes_to_the_layers_it_keeps(tmp_path: Path) -> None:
    whole = begun()
    run(whole, 3)
    path = export(changes_of(whole.model), SHAPE, CONFIG.alpha, "whole", tmp_path / "whole.gguf")
    last = SHAPE.layers - 1
    config = replace(CONFIG, layers=(last,), start=str(path))
    pruned = begin(config, SHAPE, random_weights(), torch.device("cpu"))
    assert pruned.model.shape.layers == 1
    for name, value in changes_of(pruned.model).items():
        half, _, rest = name.partition(".0_")
        expected = changes_of(whole.model)[f"{half}.{last}_{rest}"]
        assert torch.allclose(value, expected, atol=1e-2, rtol=1e-2), name
    small = export(
        changes_of(pruned.model), pruned.model.shape, CONFIG.alpha, "small", tmp_path / "small.gguf", (last,)
    )
    assert layers_of(open_gguf(small)) == (last,)
    further = begin(replace(config, start=str(small)), SHAPE, random_weights(), torch.device("cpu"))
    for name, value in changes_of(further.model).items():
        assert torch.allclose(value, changes_of(pruned.model)[name], atol=1e-2, rtol=1e-2), name
    assert layers_of(open_gguf(path)) is None


def test_training_lowers_the_loss() -> None:
    log = run(begin(Config(epochs=30, rank=4, alpha=8.0, rate=1e-2, tokens=512, accumulate=1, rounded_from=1.0),
                    SHAPE, random_weights(), torch.device("cpu")))  # fmt: skip
    assert log[-1]["loss"] < 0.7 * log[0]["loss"]
