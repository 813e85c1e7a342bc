"""A thousand mixed requests with cancels and preemptions: nobody hears another's text, and nothing leaks.

`python -m benchmarks.engine.soak MODEL [COUNT]` prints one JSON object.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from finllm.scheduler.decoding.filling import Filled
from finllm.scheduler.decoding.template import Choose, Force, Template, Write
from finllm.scheduler.engine.job import Finished, Job, Work
from finllm.scheduler.engine.live import LiveJob
from finllm.scheduler.engine.loop import Loop
from finllm.scheduler.engine.native import BATCH, Logits, Native, Run
from finllm.scheduler.engine.programs import typed
from finllm.scheduler.placement.task import Prompt

THREADS, CELLS, SEQUENCES, STEPS = 2, 1024, 8, 12
SAYS: Template = (Write("text", 12, None),)
JUDGES: Template = (
    Force('{"oil":"'),
    Choose("oil", ("up", "down", "none")),
    Force('","stance":"'),
    Choose("stance", ("hawkish", "dovish", "neutral")),
    Force('"}'),
)
_SYSTEM = "You are a risk analyst at a bank. You read news about markets and answer briefly, in plain words. " * 2
_NEWS = ("Oil rises.", "A bank fails.", "Rates fall.", "The strait is closed.", "Tariffs come.", "Gold is sold.")


@dataclass
class Asked:
    """One request with what became of it; `pieces` are its text as it was written."""

    canary: str
    work: Work
    pieces: list[str] = field(default_factory=list)
    answers: list[Finished | Exception] = field(default_factory=list)
    job: Job | None = None

    @property
    def finished(self) -> Finished | None:
        return self.answers[0] if self.answers and isinstance(self.answers[0], Finished) else None


@dataclass
class Alone:
    """A request's answer when nothing else runs; `gaps[i]`: lead of the best token over the next at each logits."""

    filled: Filled
    pieces: list[str]
    gap_at_piece: list[float]


@dataclass(frozen=True)
class Lead:
    """The two best tokens at a position, and by how much the first leads, nat."""

    first: int
    second: int
    lead: float


def main() -> None:
    print(json.dumps(play(Path(sys.argv[1]), int((sys.argv[2:] or ["1000"])[0]))))


def play(model: Path, count: int, seed: int = 11, noise: float | None = None) -> dict[str, float]:
    """So many requests drawn from a seed: what became of them, and what is left behind.

    `noise`: how far batching may move a lead, nat; None: it is measured, which takes longer than all the rest.
    """
    native = Native(model, threads=THREADS, cells=CELLS, sequences=SEQUENCES)
    started = time.monotonic()
    asked, parked, free = serve(native, count, seed)
    seconds = time.monotonic() - started
    if noise is None:
        noise = batch_noise(native, [one.work for one in asked if one.work.template is SAYS][:48])
    outcome = compare(native, asked, noise)
    answered_once = all(len(one.answers) == 1 for one in asked)
    report = {
        "requests": len(asked),
        "seconds": round(seconds, 1),
        "finished": sum(one.finished is not None for one in asked),
        "cancelled": sum(one.finished is None for one in asked),
        "preemptions": parked,
        "noise": round(noise, 3),
        "answered_once": answered_once,
        "leaked_cells": CELLS - free,
        "leaked_sequences": sum(native.length(sequence) > 0 for sequence in [*range(SEQUENCES), *native.branches]),
        "filled_to_capacity": fills(native),
        **outcome,
    }
    native.close()
    return report


def serve(native: Native, count: int, seed: int = 11) -> tuple[list[Asked], int, int]:
    """Ask at random moments, cancelling some; returns the requests, preemptions and free cells at the end."""
    dice = random.Random(seed)
    loop = Loop(native, context=512, store=32 << 20, turn=nullcontext())
    parked = _count_parks(loop)
    asked: list[Asked] = []
    while len(asked) < count or not loop.idle:
        if len(asked) < count and loop.unfinished < 24:
            for _ in range(dice.randint(1, 8)):
                asked.append(_request(dice))
                _submit(loop, asked[-1])
        for _ in range(dice.randint(1, 6)):
            loop.step()
        waiting = [one.job for one in asked[-64:] if one.job is not None and not one.answers]
        if waiting and dice.random() < 0.5:
            dice.choice(waiting).stop.set()
    return asked[:], parked["parks"], loop._cells.free


def _request(dice: random.Random) -> Asked:
    canary = "".join(dice.choice("bcdfghjklmnpqrstvwxz") for _ in range(6))
    says = dice.random() < 0.6
    news = " ".join(dice.choice(_NEWS) for _ in range(dice.randint(1, 24)))
    user = f"Code word: {canary}. {news} " + ("Repeat the code word and explain." if says else "Judge.")
    background = dice.random() < 0.4
    work = Work(Prompt(_SYSTEM, user), SAYS if says else JUDGES, rank=dice.random(), background=background)
    return Asked(canary, work)


def _submit(loop: Loop, one: Asked) -> None:
    one.job = Job(one.work, one.answers.append, one.pieces.append)
    loop.add(one.job)


def _count_parks(loop: Loop) -> Counter[str]:
    counted: Counter[str] = Counter()
    park = loop._park

    def counting(live: LiveJob) -> None:
        counted["parks"] += 1
        park(live)

    loop._park = counting
    return counted


def alone(native: Native, work: Work) -> Alone:
    """The same request with the context to itself, prefilled at once."""
    pieces: list[str] = []
    gaps: list[float] = []
    gap_at_piece: list[float] = []

    def on_text(piece: str) -> None:
        pieces.append(piece)
        gap_at_piece.append(gaps[-1])

    program = typed(native.vocabulary, work.template, work.priors, work.seed, on_text)
    tokens = native.vocabulary.chat_tokens(work.prompt) + next(program).tokens
    position = 0
    try:
        while True:
            for start in range(0, len(tokens), BATCH):
                chunk = tokens[start : start + BATCH]
                (row,) = native.decode([Run(0, position, chunk, scored=True)])
                position += len(chunk)
            logits = native.logits(row)
            gaps.append(_lead(logits))
            tokens = program.send(logits).tokens
    except StopIteration as end:
        filled: Filled = end.value
    native.forget(0)
    native.clear()
    return Alone(filled, pieces, gap_at_piece)


def batch_noise(native: Native, works: Sequence[Work]) -> float:
    """The most that batching changes the lead of one token over another, in nat.

    The same tokens go through the model alone and side by side, behind a shared prefix, beside a long prefill and in
    cells out of order, as in service; of the two best tokens alone, the lead is compared at every position.
    """
    prompts = [native.vocabulary.chat_tokens(work.prompt) for work in works]
    others = SEQUENCES - 1
    return max(
        _group_noise(native, prompts[start : start + others]) for start in range(0, len(prompts) - others + 1, others)
    )


def _group_noise(native: Native, group: Sequence[list[int]]) -> float:
    lone = [_leads_alone(native, prompt) for prompt in group]
    shared = next(i for i, tokens in enumerate(zip(*group, strict=False)) if len(set(tokens)) > 1)
    worst = 0.0
    for rows in (1, 32, 128):
        native.decode([Run(SEQUENCES - 1, 0, (group[0] * 8)[:400], scored=False)])
        native.decode([Run(0, 0, group[0][:shared], scored=False)])
        native.forget(
            SEQUENCES - 1
        )  # what follows is put into cells before those of the prefix, as holes are in service
        for sequence in range(1, len(group)):
            native.share(0, sequence, shared)
        for step in range(STEPS):
            runs = [
                Run(s, len(prompt) + step - 1, [lone[s][step - 1].first], scored=True)
                if step
                else Run(s, shared, prompt[shared:], scored=True)
                for s, prompt in enumerate(group)
            ]
            for few in [runs] if step else [[run] for run in runs]:
                beside = Run(SEQUENCES - 1, 0, (group[0] * 4)[:rows], scored=False)
                found = native.decode([*few, beside])
                for run, row in zip(few, found, strict=False):
                    lead = lone[run.sequence][step]
                    logits = native.logits(row)
                    worst = max(worst, abs(float(logits[lead.first] - logits[lead.second]) - lead.lead))
                native.forget(SEQUENCES - 1)
        for sequence in range(len(group)):
            native.forget(sequence)
        native.clear()
    return worst


def _leads_alone(native: Native, prompt: list[int]) -> list[Lead]:
    """What the prompt's greedy answer leads by at each of its tokens, with the context to itself."""
    leads: list[Lead] = []
    for step in range(STEPS):
        run = Run(0, len(prompt) + step - 1, [leads[-1].first], scored=True) if step else Run(0, 0, prompt, scored=True)
        (row,) = native.decode([run])
        logits = native.logits(row)
        second, first = (int(token) for token in np.argsort(logits)[-2:])
        leads.append(Lead(first, second, float(logits[first] - logits[second])))
    native.forget(0)
    native.clear()
    return leads


def _lead(logits: Logits) -> float:
    second, first = np.partition(logits, -2)[-2:]
    return float(first - second)


def compare(native: Native, asked: Sequence[Asked], noise: float) -> dict[str, float]:
    """How the answers compare with those of the same requests alone, and whether any holds another's code word."""
    counted: Counter[str] = Counter(crosstalk=0, same=0, near_ties=0, unexplained=0)
    widest = 0.0
    canaries = [one.canary for one in asked]
    for one in asked:
        said = "".join(one.pieces)
        counted["crosstalk"] += sum(canary in said for canary in canaries if canary != one.canary)
        finished = one.finished
        if finished is None:
            continue
        lone = alone(native, one.work)
        gap = _difference(finished.filled, one.pieces, lone)
        if gap is None:
            counted["same"] += 1
        else:
            widest = max(widest, gap)
            counted["near_ties" if gap < noise else "unexplained"] += 1
    return {**counted, "widest_gap": round(widest, 3)}


def _difference(filled: Filled, pieces: Sequence[str], lone: Alone) -> float | None:
    """The lead, alone, of what was chosen where the two answers part; None where they are the same."""
    for field_, probabilities in lone.filled.choices.items():
        best = max(probabilities, key=lambda value: probabilities[value])
        chosen = filled.choices[field_]
        other = max(chosen, key=lambda value: chosen[value])
        if other != best:
            return float(np.log(probabilities[best] / probabilities[other]))
    for index, (mine, theirs) in enumerate(zip(pieces, lone.pieces, strict=False)):
        if mine != theirs:
            return lone.gap_at_piece[index]
    if len(pieces) != len(lone.pieces):
        return lone.gap_at_piece[min(len(pieces), len(lone.pieces) - 1)]
    return None


def fills(native: Native) -> bool:
    """Whether every cell can be used again."""
    for start in range(0, native.cells, 256):
        native.decode([Run(0, start, [1] * 256, scored=False)])
    full = native.length(0) == native.cells
    native.forget(0)
    native.clear()
    return full


if __name__ == "__main__":
    main()
