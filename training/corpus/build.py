"""Build the corpus: validate, drop duplicates, split by event, write train, validation and test with their counts."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.corpus.generate import generate
from training.corpus.grammar import divide
from training.corpus.schema import (
    SPLITS,
    TASKS,
    ComplianceItem,
    InjectionItem,
    Item,
    ReadingItem,
    SanityItem,
    Split,
    StanceItem,
    dump_item,
    read_handwritten,
    texts_of,
)

LATER = "later-"
"""What an event's name begins with that was written after the held-out lines were drawn: what was trained before and
what is trained after are then scored on the same lines."""
_WORD = re.compile(r"[a-z0-9']+")


@dataclass(frozen=True)
class Corpus:
    """Items by split, in a fixed order, and how many were dropped as duplicates."""

    items: Mapping[Split, list[Item]]
    duplicates: int

    def digest(self) -> str:
        """sha256 over every split's bytes: the corpus's version."""
        return hashlib.sha256(b"".join(render(self.items[split]) for split in SPLITS)).hexdigest()


def build_corpus() -> Corpus:
    """Hand-written and generated items together. Errors: pydantic.ValidationError for an item that is not one."""
    handwritten, generated = read_handwritten(), generate()
    split_of = split_events(handwritten)
    joined: dict[Split, list[Item]] = {split: [] for split in SPLITS}
    for item in handwritten:
        joined[split_of[item.event]].append(item)
    seen: set[str] = set()
    duplicates = 0
    for split in SPLITS:
        kept = []
        for item in [*joined[split], *generated[split]]:
            key = _key(item)
            duplicates += key in seen
            if key not in seen:
                kept.append(item)
            seen.add(key)
        joined[split] = kept
    return Corpus(joined, duplicates)


def split_events(handwritten: Iterable[Item]) -> dict[str, Split]:
    """The split of every hand-written event, drawn task by task so that each task is in each split.

    Events that begin with `LATER` train only.
    """
    items = list(handwritten)
    found: dict[str, Split] = {item.event: "train" for item in items if item.event.startswith(LATER)}
    for task in TASKS:
        drawn = (item.event for item in items if item.task == task and not item.event.startswith(LATER))
        found = divide(drawn) | found
    return found


def words(text: str) -> list[str]:
    """Lower-case words, as n-grams and duplicates count them."""
    return _WORD.findall(text.lower())


def render(items: Iterable[Item]) -> bytes:
    """JSON lines, one item each."""
    return "".join(json.dumps(dump_item(item), ensure_ascii=False) + "\n" for item in items).encode()


def counts(corpus: Corpus) -> dict[str, Any]:
    """Items, classes, slices, registers and events per split and task, and the clean texts of the test split."""
    found: dict[str, Any] = {"digest": corpus.digest(), "duplicates": corpus.duplicates, "splits": {}}
    for split in SPLITS:
        tasks = {}
        for task in TASKS:
            items = [item for item in corpus.items[split] if item.task == task]
            tasks[task] = {
                "items": len(items),
                "handwritten": sum(item.author == "finllm" for item in items),
                "events": len({item.event for item in items}),
                "labels": dict(sorted(Counter(label for item in items for label in labels_of(item)).items())),
                "slices": dict(sorted(Counter(item.slice or "-" for item in items).items())),
                "registers": dict(sorted(Counter(item.register_ for item in items).items())),
            }
        found["splits"][split] = {"items": len(corpus.items[split]), "tasks": tasks}
    found["clean_test_texts"] = len(clean_texts(corpus.items["test"]))
    return found


def labels_of(item: Item) -> list[str]:
    """The item's labels as flat words, for counting classes."""
    if isinstance(item, StanceItem):
        return [item.labels.stance]
    if isinstance(item, ReadingItem):
        kinds = [f"{k}={v}" for k in ("event", "region", "severity", "horizon") if (v := getattr(item.labels, k))]
        return [*kinds, *(f"{factor}={way}" for factor, way in item.labels.factors.items())]
    if isinstance(item, SanityItem):
        return [item.labels.verdict]
    if isinstance(item, ComplianceItem):
        return [f"{rule}={verdict}" for rule, verdict in item.labels.rules.items()]
    if isinstance(item, InjectionItem):
        return [item.labels.injection]
    return [f"{item.labels.verdict}/{item.labels.cause or '-'}"]


def clean_texts(items: Iterable[Item]) -> list[str]:
    """Texts without an attack: what false alarms of the injection checks are counted on."""
    return sorted({
        item.inputs.text
        for item in items
        if isinstance(item, StanceItem | ReadingItem)
        or (isinstance(item, SanityItem) and item.labels.verdict != "injected")
        or (isinstance(item, InjectionItem) and item.labels.injection == "clean")
    })  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """`python -m training.corpus.build --out DIR`: write DIR/{train,validation,test}.jsonl and DIR/counts.json."""
    parser = argparse.ArgumentParser(prog="python -m training.corpus.build", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to; made if it is missing")
    out: Path = parser.parse_args(argv).out
    corpus = build_corpus()
    out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        (out / f"{split}.jsonl").write_bytes(render(corpus.items[split]))
    summary = counts(corpus)
    (out / "counts.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sizes = ", ".join(f"{split} {len(corpus.items[split])}" for split in SPLITS)
    sys.stderr.write(f"{sizes}; {summary['clean_test_texts']} clean texts in test; digest {summary['digest'][:12]}\n")


def _key(item: Item) -> str:
    return f"{item.task} {' '.join(word for text in texts_of(item) for word in words(text))} {_numbers(item)}"


def _numbers(item: Item) -> str:
    if not isinstance(item, SanityItem):
        return ""
    seen = item.inputs
    return f"{seen.agreeing} {seen.opposing} {seen.twins} {seen.injections}"


if __name__ == "__main__":
    main()
