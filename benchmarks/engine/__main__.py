"""The engine beside its peers: chat throughput, typed judgements, an urgent request, and a thousand mixed requests."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from benchmarks.page import write_section
from finllm.models.ladder import ensure_rung
from finllm.models.registry import default_source
from finllm.scheduler.decoding.template import Template, Write
from finllm.scheduler.engine.job import Finished, Job, Work
from finllm.scheduler.engine.loop import Loop
from finllm.scheduler.engine.native import Native
from finllm.scheduler.placement.task import Prompt
from finllm.settings import load_settings

ROUNDS = 2
CONTENDERS = (
    ("stock", 1),
    ("engine", 6),
    ("engine", 24),
    ("limit", 6),
    ("limit", 24),
    ("xllamacpp", 6),
    ("xllamacpp", 24),
)
Bar = tuple[str, float, str, float]


def main() -> None:
    settings = load_settings().settings
    model = ensure_rung(default_source(settings), "Q4_0", settings).path
    rounds = [{(name, n): _peer(name, model, f"r{r} ", n) for name, n in CONTENDERS} for r in range(ROUNDS)]
    bars = [*chat_bars(rounds), *judgement_bars(rounds)]
    steps, lost = urgent(model)
    soak = _json("benchmarks.engine.soak", str(model))
    bars += [
        ("urgent first token behind 5 background streams, decode steps after its prefill, worst of 10", steps, "≤", 2),
        ("background requests that lost text to it", lost, "≤", 0),
        ("1,000 mixed requests: code words heard by others", soak["crosstalk"], "≤", 0),
        ("greedy answers that differ beyond the batch noise", soak["unexplained"], "≤", 0),
        ("cells and sequences leaked", soak["leaked_cells"] + soak["leaked_sequences"], "≤", 0),
        (
            "answered exactly once, and the cache fills to capacity after",
            soak["answered_once"] and soak["filled_to_capacity"],
            "≥",
            1,
        ),
    ]
    text = "\n\n".join([_speeds(rounds), _table(bars), _soak(soak)])
    print(text)
    write_section("The engine", "make bench-engine", text)
    if any(not _met(bar) for bar in bars):
        sys.exit(1)


def chat_bars(rounds: list[dict[tuple[str, int], dict[str, float]]]) -> list[Bar]:
    def speed(name: str, n: int) -> float:
        return statistics.median(found[name, n]["chat"] for found in rounds)

    six, many = speed("engine", 6), speed("engine", 24)
    best = max(speed("xllamacpp", 6), speed("xllamacpp", 24))
    return [
        ("chat, 6 at a time / limit", six / speed("limit", 6), "≥", 0.9),
        ("chat, 24 at once / limit", many / speed("limit", 24), "≥", 0.9),
        ("chat, 6 at a time / stock", six / speed("stock", 1), "≥", 1.2),
        ("chat, 24 at once / stock", many / speed("stock", 1), "≥", 1.35),
        ("chat, 6 at a time / xllamacpp", six / speed("xllamacpp", 6), "≥", 1.0),
        ("chat, 24 at once / xllamacpp", many / speed("xllamacpp", 24), "≥", 1.9),
        ("chat, 24 at once / xllamacpp's best", max(six, many) / best, "≥", 1.05),
    ]


def judgement_bars(rounds: list[dict[tuple[str, int], dict[str, float]]]) -> list[Bar]:
    def figure(name: str, n: int, what: str) -> float:
        return statistics.median(found[name, n][what] for found in rounds)

    alone = figure("engine", 6, "judgement") / figure("stock", 1, "judgement")
    together = figure("engine", 24, "judgements") / figure("stock", 1, "judgements")
    return [
        ("six-field judgement, time / stock's grammar", alone, "≤", 0.18),
        ("24 judgements at once, throughput / stock's grammar", together, "≥", 8.0),
    ]


def urgent(model: Path) -> tuple[int, int]:
    """Ten times five background streams and an urgent request: the worst delay of its first token, and losses."""
    native = Native(model, threads=os.cpu_count() or 1, cells=4096, sequences=6)
    worst, lost = 0, 0
    for trial in range(10):
        loop = Loop(native, context=2048, store=0, turn=nullcontext())
        answers: list[Finished | Exception] = []
        for i in range(5):
            work = Work(Prompt("Explain.", f"Background {trial} {i}"), (Write("text", 64, None),), background=True)
            loop.add(Job(work, answers.append))
        for _ in range(10):
            loop.step()
        said: list[int] = []
        says: Template = (Write("text", 4, None),)
        first = Work(Prompt("Explain.", "The strait is closed. " * 60), says, rank=9.0)
        length = len(native.vocabulary.chat_tokens(first.prompt))
        asked_at = loop.steps
        loop.add(Job(first, answers.append, lambda _, said=said, loop=loop: said.append(loop.steps)))
        while not loop.idle:
            loop.step()
        worst = max(worst, said[0] - asked_at - -(-length // 256))
        lost += sum(not isinstance(answer, Finished) for answer in answers) + 6 - len(answers)
    native.close()
    return worst, lost


def _peer(name: str, model: Path, mark: str, n: int) -> dict[str, float]:
    return _json("benchmarks.engine.peers", name, str(model), mark, str(n))


def _json(module: str, *arguments: str) -> dict[str, float]:
    """Run a module in a process of its own; the last line it prints is JSON."""
    environment = {"GOMP_SPINCOUNT": "20000", **os.environ}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=1500)
    print(module, *arguments[:1], *arguments[3:], done.stdout.splitlines()[-1], file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _met(bar: Bar) -> bool:
    _, value, sign, limit = bar
    return value >= limit if sign == "≥" else value <= limit


def _table(bars: list[Bar]) -> str:
    lines = ["| what | measured | bar | |", "| --- | --- | --- | --- |"]
    for bar in bars:
        what, value, sign, limit = bar
        lines.append(f"| {what} | {float(value):.3g} | {sign} {limit:g} | {'met' if _met(bar) else 'MISSED'} |")
    return "\n".join(lines)


def _speeds(rounds: list[dict[tuple[str, int], dict[str, float]]]) -> str:
    lines = ["| | chat, tok/s | one judgement, s | judgements/s |", "| --- | --- | --- | --- |"]
    for name, n in CONTENDERS:
        found = [each[name, n] for each in rounds]
        cells = [
            " / ".join(f"{figures[what]:.3g}" for figures in found) if what in found[0] else ""
            for what in ("chat", "judgement", "judgements")
        ]
        lines.append(f"| {name}, {n} at once | {' | '.join(cells)} |")
    return (
        "SmolLM2-135M at Q4_0, two threads, 24 requests; every figure of the rounds, of which the bars take the "
        "median.\n\n" + "\n".join(lines)
    )


def _soak(soak: dict[str, float]) -> str:
    compared = soak["same"] + soak["near_ties"] + soak["unexplained"]
    return (
        f"{soak['requests']} mixed requests in {soak['seconds']} s: {soak['finished']} finished, {soak['cancelled']} "
        f"cancelled, {soak['preemptions']} preemptions. Of {compared} greedy answers {soak['near_ties']} differ from "
        f"the same request alone; where they part, the lead of the best token was at most {soak['widest_gap']} nat, "
        f"and batching moves a lead by up to {soak['noise']} nat."
    )


if __name__ == "__main__":
    main()
