"""Small fleets, and traces of tasks, for the tests of placing and of the simulator."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from finllm.scheduler.placement.fleet import BackendSpec, Profile
from finllm.scheduler.simulation.trace import COLUMNS, OPTIONAL, Arrival

SLOW = Profile(500, {1: 50, 8: 100}, 0.02, {1: 0.2, 8: 0.1})
FAST = Profile(2000, {1: 100, 8: 400}, 0.03, {1: 0.3, 8: 0.15})

EDGE = BackendSpec("edge", "edge", "Q4_0", SLOW, slots=4, zone="south")
DEEP = BackendSpec("deep", "deep", "F16", FAST, slots=4, node="rack", zone="north", family="other")


def edges(count: int) -> list[BackendSpec]:
    return [replace(EDGE, name=f"edge-{at}", node=f"box-{at}") for at in range(count)]


def arrival(time: float, deadline: float = 100.0, **changed: object) -> Arrival:
    return replace(Arrival(time, 400, 40, "reader", deadline, "one"), **changed)  # pyright: ignore[reportArgumentType]


def write_trace(path: Path, arrivals: Iterable[Arrival]) -> None:
    """Write what `read_trace` reads."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*COLUMNS, *OPTIONAL))
        for one in arrivals:
            writer.writerow(
                (f"{one.time:.3f}", one.prompt, one.output, one.agent, f"{one.deadline:.3f}", one.tenant, one.value,
                 int(one.background), f"{one.defer:.3f}", one.prefix, one.shared, one.floor, int(one.critical))
            )  # fmt: skip
