"""Traces of tasks: the project's CSV, the Azure LLM inference traces, and the rules that give them agents and
deadlines.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from finllm.errors import InputError
from finllm.scheduler.placement.task import PRECISIONS

COLUMNS = ("time", "prompt", "output", "agent", "deadline", "tenant")
OPTIONAL = ("value", "background", "defer", "prefix", "shared", "floor", "critical")
AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
URGENCIES = (2.0, 4.0, 8.0)
"""A deadline is one of these times the task's solo time."""


@dataclass(frozen=True)
class Arrival:
    """A task of a trace. `time`: s since its start; `prompt`, `output`: tokens; `deadline`: s after the arrival.

    `defer`: s for which it may wait to be started; `prefix`: name of a prompt that others share for `shared` tokens;
    `floor`: coarsest precision, none where empty; `critical`: it runs in two domains where it can.
    """

    time: float
    prompt: int
    output: int
    agent: str
    deadline: float
    tenant: str
    value: float = 1.0
    background: bool = False
    defer: float = 0.0
    prefix: str = ""
    shared: int = 0
    floor: str = ""
    critical: bool = False


def read_trace(path: Path) -> list[Arrival]:
    """A CSV with the columns `COLUMNS` and, where wanted, `OPTIONAL`.

    Errors: InputError naming the line, for a missing column, a value that is no number, or a time that goes back.
    """
    rows = _rows(path)
    missing = [name for name in COLUMNS if rows and name not in rows[0]]
    if missing:
        raise InputError(f"{str(path)!r} lacks the column {missing[0]!r}", fix=f"columns: {', '.join(COLUMNS)}")
    found: list[Arrival] = []
    for line, row in enumerate(rows, start=2):
        try:
            one = Arrival(
                float(row["time"]), int(row["prompt"]), int(row["output"]), row["agent"], float(row["deadline"]),
                row["tenant"], float(row.get("value") or 1), _yes(row.get("background")),
                float(row.get("defer") or 0), row.get("prefix") or "", int(row.get("shared") or 0),
                row.get("floor") or "", _yes(row.get("critical")),
            )  # fmt: skip
        except (ValueError, TypeError) as error:
            raise InputError(f"{str(path)!r}, line {line}: {error}", fix="correct the line") from error
        wrong = _wrong(one)
        if wrong:
            raise InputError(f"{str(path)!r}, line {line}: {wrong}", fix="correct the line")
        if found and one.time < found[-1].time:
            raise InputError(
                f"{str(path)!r}, line {line}: the clock goes back from {found[-1].time} to {one.time} s",
                fix="sort the trace by time",
            )
        found.append(one)
    if not found:
        raise InputError(f"{str(path)!r} holds no task", fix=f"a CSV with a header: {','.join(COLUMNS)}")
    return found


def is_azure(path: Path) -> bool:
    """True for a file with the Azure traces' header."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().strip().split(",") == list(AZURE)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", fix="name a readable CSV file") from error


def read_azure(path: Path) -> list[Arrival]:
    """An Azure LLM inference trace of 2023, by time, without agents, tenants or deadlines yet.

    Errors: InputError for a line that cannot be read.
    """
    found: list[tuple[datetime, int, int]] = []
    for line, row in enumerate(_rows(path), start=2):
        try:
            at = datetime.fromisoformat(row["TIMESTAMP"][:26])
            found.append((at, max(int(row["ContextTokens"]), 1), max(int(row["GeneratedTokens"]), 1)))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{str(path)!r}, line {line}: {error!r}", fix="columns: " + ", ".join(AZURE)) from error
    found.sort()
    if not found:
        raise InputError(f"{str(path)!r} holds no task", fix="columns: " + ", ".join(AZURE))
    start = found[0][0]
    return [Arrival((at - start).total_seconds(), p, o, "", math.inf, "") for at, p, o in found]


def assigned(arrivals: Sequence[Arrival], agents: Sequence[str], tenants: int, seed: int) -> list[Arrival]:
    """Give each task an agent and a tenant by a seeded rule.

    An agent's template fixes how much it puts out, so agents are bands of output length, short to long, with one task
    in five moved to a random one; tenants are drawn with probabilities 1/rank.
    """
    random = np.random.default_rng(seed)
    ranks = np.argsort(np.argsort([one.output for one in arrivals], kind="stable"), kind="stable")
    band = np.minimum(ranks * len(agents) // max(len(arrivals), 1), len(agents) - 1)
    moved = random.random(len(arrivals)) < 0.2
    band = np.where(moved, random.integers(0, len(agents), len(arrivals)), band)
    weights = 1 / np.arange(1, tenants + 1)
    whose = random.choice(tenants, len(arrivals), p=weights / weights.sum())
    return [
        replace(one, agent=agents[b], tenant=f"tenant-{t + 1}") for one, b, t in zip(arrivals, band, whose, strict=True)
    ]


def with_deadlines(arrivals: Sequence[Arrival], solo: Callable[[Arrival], float], seed: int) -> list[Arrival]:
    """Deadlines: a task's solo time, s, times 2, 4 or 8, drawn evenly; for one that may wait, after its window."""
    drawn = np.random.default_rng(seed).choice(URGENCIES, len(arrivals))
    return [
        replace(one, deadline=one.defer + float(times) * solo(one)) for one, times in zip(arrivals, drawn, strict=True)
    ]


def at_rate(arrivals: Sequence[Arrival], per_second: float) -> list[Arrival]:
    """The same tasks, with the time axis stretched so that on average so many come in a second."""
    if len(arrivals) < 2:
        return list(arrivals)
    span = arrivals[-1].time - arrivals[0].time
    times = (len(arrivals) / per_second) / span if span > 0 else 1.0
    start = arrivals[0].time
    return [
        replace(one, time=(one.time - start) * times, defer=one.defer * times) for one in arrivals
    ]  # fmt: skip


def clipped(arrivals: Sequence[Arrival], context: int, output: int) -> list[Arrival]:
    """Tasks cut to what a context holds: at most so many tokens of output, and the prompt beside it."""
    return [
        replace(one, output=min(one.output, output), prompt=min(one.prompt, context - 2 * output)) for one in arrivals
    ]  # fmt: skip


def _wrong(one: Arrival) -> str:
    checks: Mapping[str, bool] = {
        "the time is below 0": one.time < 0,
        "the prompt has no token": one.prompt < 1,
        "the output has no token": one.output < 1,
        "the deadline is not above 0": not one.deadline > 0,
        "the value is not above 0": not one.value > 0,
        "defer is below 0": one.defer < 0,
        "more is shared than the prompt has": one.shared > one.prompt,
        f"the precision {one.floor!r} is unknown": bool(one.floor) and one.floor not in PRECISIONS,
        "a number is not finite": not all(map(math.isfinite, (one.time, one.value, one.defer))),
    }
    return next((said for said, wrong in checks.items() if wrong), "")


def _yes(text: str | None) -> bool:
    return text in ("1", "true", "True")


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", fix="name a readable CSV file") from error
