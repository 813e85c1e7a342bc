"""The settings of a training that decide its result, and the file in its folder that keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CONFIG = "config.json"


@dataclass(frozen=True)
class Config:
    """What decides the result. `share`: of the generated items in each epoch; `handwritten`: weight of the others.

    `tokens`: of a batch; `accumulate`: batches to a step; `rounded_from`: share of the steps after which the merged
    weights are rounded to Q4_0 in training; `decay`: of the changes, per step and learning rate; `layers`: those of the
    base that are kept, all where none is named; `start`: an adapter with these layers, whose changes it begins with.
    """

    seed: int = 7
    epochs: int = 8
    share: float = 0.7
    handwritten: float = 3.0
    rank: int = 16
    alpha: float = 32.0
    rate: float = 1e-3
    decay: float = 0.01
    tokens: int = 8192
    accumulate: int = 1
    warmup: float = 0.05
    rounded_from: float = 0.5
    splits: tuple[str, ...] = ("train",)
    layers: tuple[int, ...] = ()
    start: str = ""


def config_of(given: Mapping[str, Any]) -> Config:
    """Settings as JSON gives them."""
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    return Config(**values)


def settle(out: Path, given: dict[str, Any]) -> Config:
    """The run's settings: those of its folder where there are some. Errors: ValueError for others than these."""
    path = out / CONFIG
    if not path.exists():
        config = config_of(given)
        path.write_text(json.dumps(asdict(config), indent=1), encoding="utf-8")
        return config
    known = json.loads(path.read_text(encoding="utf-8"))
    config = config_of(known)
    if other := {k: v for k, v in given.items() if json.loads(json.dumps(v)) != known[k]}:
        raise ValueError(f"{str(out)!r} was begun with other settings than {other}; name another folder")
    return config
