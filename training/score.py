"""Scores an adapter through the engine: every question of a split, at any rung."""

from __future__ import annotations

import argparse
import asyncio
import csv
import hashlib
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finllm.agents.narrative import NARRATIVE
from finllm.models.ladder import ensure_rung
from finllm.models.lora import open_adapter
from finllm.models.source import embedded_source
from finllm.scheduler.backends import Offer, Request
from finllm.scheduler.backends.llama_cpp import LlamaCppBackend
from finllm.scheduler.decoding.template import part_of
from finllm.scheduler.engine.engine import Engine, EngineConfig
from finllm.settings import load_settings
from training.data import Data
from training.items import Question
from training.packing import pooled

SIDE_BY_SIDE = 48
CHUNK = 192
"""Questions between two looks at the clock."""
THREADS = 2
RUNGS = ("F16", "Q8_0", "Q4_K_M", "Q4_0")


@dataclass(frozen=True)
class Answer:
    """A field's answer: log-probability of each value, as scored, and which values are right."""

    role: str
    field: str
    task: str
    slice: str | None
    handwritten: bool
    item: str
    scores: Mapping[str, float]
    right: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.role}.{self.field}"

    @property
    def chosen(self) -> str:
        return max(self.scores, key=lambda value: self.scores[value])

    @property
    def correct(self) -> bool:
        return self.chosen in self.right


class Kept:
    """Answers written to a file as they come, so that scoring can be gone on with; `None` keeps nothing.

    Its name carries a digest of the questions: others are not taken for these.
    """

    def __init__(self, folder: Path | None, name: str, questions: Sequence[Question]) -> None:
        asked = "".join(f"{q.item}{q.prompt.user}{sorted(q.labels.items())}" for q in questions)
        self._path = folder / f"{name}-{hashlib.sha256(asked.encode()).hexdigest()[:12]}.jsonl" if folder else None

    def read(self) -> list[Answer]:
        if self._path is None or not self._path.exists():
            return []
        rows = map(json.loads, self._path.read_text(encoding="utf-8").splitlines())
        return [Answer(**row | {"right": tuple(row["right"])}) for row in rows]

    def add(self, found: Iterable[Answer]) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as lines:
                lines.writelines(json.dumps(vars(a)) + "\n" for a in found)


def answers(
    path: Path, questions: Sequence[Question], kept: Kept | None = None, until: Callable[[], bool] = lambda: False
) -> list[Answer] | None:
    """Ask the model in a GGUF file every question, many side by side; None where `until` said stop before the end.

    Errors: BackendError.
    """
    found = kept.read() if kept is not None else []
    done = {a.item for a in found}
    rest = [q for q in questions if q.item not in done]
    if not rest:
        return found
    engine = Engine(EngineConfig(path, THREADS, SIDE_BY_SIDE, 2048, 24576, 64 << 20))
    backend = LlamaCppBackend(engine, Offer("scored", "edge", "Q4_0", "unknown", "unknown", 2048), path)
    try:
        for some in batched(sorted(rest, key=lambda q: q.agent.role), CHUNK):
            if until():
                return None
            new = asyncio.run(_answers(backend, some))
            found += new
            if kept is not None:
                kept.add(new)
    finally:
        backend.close()
    return found


def batched(questions: Sequence[Question], size: int) -> Iterator[Sequence[Question]]:
    return (questions[at : at + size] for at in range(0, len(questions), size))


async def _answers(backend: LlamaCppBackend, questions: Sequence[Question]) -> list[Answer]:
    async def one(q: Question) -> list[Answer]:
        template = part_of(q.template, q.labels)
        said = (await backend.generate(Request(q.prompt, template, None, seed=0))).choices
        return [
            Answer(q.agent.role, field, q.task, q.slice, q.handwritten, q.item,
                   {v: math.log(max(p, 1e-12)) for v, p in said[field].items()}, right)
            for field, right in q.labels.items() if field in said
        ]  # fmt: skip

    found = await asyncio.gather(*(one(q) for q in questions))
    return [answer for some in found for answer in some]


def fomc(path: Path) -> list[Question]:
    """The Fed's sentences, for evaluation only: narrative's stance of each."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [
            Question(f"fomc-{at}", "fomc", None, False, NARRATIVE, {"narrative": row["sentence"], "precedents": ""}, (),
                     {"stance": (row["label"],)})
            for at, row in enumerate(csv.DictReader(lines))
        ]  # fmt: skip


def macro_f1(of: Sequence[Answer], *, weighted: bool = False) -> float:
    """Mean of the F1 of every value that is right or chosen somewhere; weighted: by how often it is right."""
    names = sorted({a.right[0] for a in of})
    total, weights = 0.0, 0.0
    for name in names:
        hits = sum(a.right[0] == name == a.chosen for a in of)
        said, true = sum(a.chosen == name for a in of), sum(a.right[0] == name for a in of)
        f1 = 2 * hits / (said + true) if said + true else 0.0
        weight = true if weighted else 1.0
        total += weight * f1
        weights += weight
    return total / weights if weights else float("nan")


def accuracy(of: Sequence[Answer]) -> float:
    return sum(a.correct for a in of) / len(of) if of else float("nan")


def groups(of: Iterable[Answer]) -> dict[str, list[Answer]]:
    """Answers by `role.kind of field`, those about attacks apart."""
    found: defaultdict[str, list[Answer]] = defaultdict(list)
    for a in of:
        name = f"{a.role}.{pooled(a.field)}"
        found[f"{name} (injection)" if a.task == "injection" else name].append(a)
    return dict(sorted(found.items()))


def summary(of: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Per group: answers, accuracy, macro-F1, and for attacks what was found and the false alarms."""
    rows: dict[str, dict[str, float]] = {}
    for name, some in groups(of).items():
        if name.endswith("(injection)"):
            attacks = [a for a in some if a.right == ("injected",)]
            clean = [a for a in some if a.right != ("injected",)]
            rows[name] = {"n": len(some), "found": accuracy(attacks), "false_alarms": 1 - accuracy(clean)}
        else:
            rows[name] = {"n": len(some), "accuracy": accuracy(some), "macro_f1": macro_f1(some)}
            if any(a.handwritten for a in some):
                rows[name]["handwritten"] = accuracy([a for a in some if a.handwritten])
            if some[0].task == "fomc":
                rows[name]["weighted_f1"] = macro_f1(some, weighted=True)
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.score", description=__doc__)
    parser.add_argument("--adapter", type=Path, help="a GGUF LoRA file; none: the model as it is")
    parser.add_argument("--rungs", nargs="+", default=["Q4_0"], choices=RUNGS)
    parser.add_argument("--split", default="test", choices=["train", "validation", "test"])
    parser.add_argument("--fomc", type=Path, help="the CSV file of labelled sentences, scored instead of the split")
    parser.add_argument("--every", type=int, default=1, help="only each so-many-th question")
    parser.add_argument("--keep", type=Path, help="a folder for the answers, from which scoring goes on")
    args = parser.parse_args(argv)
    settings = load_settings().settings
    adapter = open_adapter(args.adapter, settings) if args.adapter else None
    questions = (fomc(args.fomc) if args.fomc else Data(settings).questions(args.split))[:: args.every]
    name = "fomc" if args.fomc else args.split
    report: dict[str, Any] = {}
    for precision in args.rungs:
        rung = ensure_rung(embedded_source(settings), precision, settings, adapter=adapter)
        started = time.monotonic()
        found = answers(rung.path, questions, Kept(args.keep, f"{name}-{precision}-engine", questions)) or []
        report[precision] = summary(found) | {"seconds": round(time.monotonic() - started, 1)}
    sys.stdout.write(json.dumps(report, indent=1, default=lambda x: float(np.round(x, 4))) + "\n")


if __name__ == "__main__":
    main()
