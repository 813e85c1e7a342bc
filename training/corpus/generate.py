"""Generate items over causal channels: seeded, the same bytes each time, events and frames of each split apart."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from training.corpus.gen_checks import compliance_items, sanity_items, validator_items
from training.corpus.gen_injection import injection_items
from training.corpus.gen_reading import reading_items
from training.corpus.gen_stance import stance_items
from training.corpus.schema import SPLITS, Item, Split, TaskName, parse_item

SEED = 20260
GENERATORS: dict[TaskName, Callable[[Split, int, random.Random], Iterator[dict[str, Any]]]] = {
    "stance": stance_items,
    "reading": reading_items,
    "sanity": sanity_items,
    "validator": validator_items,
    "compliance": compliance_items,
    "injection": injection_items,
}
WANTED: dict[TaskName, int] = {
    "stance": 4000, "reading": 3400, "sanity": 1500, "validator": 4000, "compliance": 1800, "injection": 3200,
}  # fmt: skip
SHARES: dict[Split, float] = {"train": 0.8, "validation": 0.08, "test": 0.12}


def generate(seed: int = SEED) -> dict[Split, list[Item]]:
    """The generated items of each split; texts that come twice are left out, so that counts may fall short a little."""
    found: dict[Split, list[Item]] = {split: [] for split in SPLITS}
    for task, wanted in WANTED.items():
        number = 0
        for split in SPLITS:
            seen: set[str] = set()
            for data in GENERATORS[task](split, round(wanted * SHARES[split]), _rng(seed, task, split)):
                key = json.dumps(data["inputs"], sort_keys=True)
                if key in seen:
                    continue
                seen.add(key)
                number += 1
                found[split].append(
                    parse_item({"id": f"g-{task}-{number:05d}", "task": task, "author": "finllm-generator", **data})
                )
    return found


def _rng(seed: int, task: str, split: str) -> random.Random:
    return random.Random(int.from_bytes(hashlib.sha256(f"{seed}/{task}/{split}".encode()).digest()[:8]))
