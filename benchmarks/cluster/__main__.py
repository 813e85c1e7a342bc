"""The cluster beside one process: overhead, dispatch, a node that joins and drains under load, and live faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.scheduler.executors.nodes import Nodes
from tests.scheduler.executors.play import BURST, Play

from benchmarks.cluster.faults import FOUND_WITHIN, Struck, campaign, table
from benchmarks.page import write_section
from finllm.settings import load_settings

ROUNDS, SIDE_BY_SIDE = 6, 6
"""Times that as many calls as a run makes at once are asked on either side, in turns."""
CALLS = 100
FAULTS = 20
OVERHEAD, DISPATCH_MS, JOIN_SECONDS = 1.05, 3.0, 60.0
"""Bars."""


@dataclass(frozen=True)
class Beside:
    """p50 and total of the same calls in one process and through a cluster of one node, s."""

    here: float
    there: float
    here_total: float
    there_total: float
    opened_in: float


def beside(folder: Path, *, embedded: bool, rounds: int, at_once: int) -> Beside:
    """Ask the same number of fresh calls on either side, in turns; both engines are warm."""
    with contextlib.ExitStack() as closing:
        nodes = Nodes(folder, embedded=embedded)
        closing.callback(nodes.close)
        nodes.begin("first")
        os.environ.update(nodes.environment("first"))
        settings = load_settings().settings
        inner = closing.enter_context(contextlib.ExitStack())
        sides = {"there": Play(settings, inner), "here": Play(settings, inner, cluster=False)}
        took: dict[str, list[float]] = {name: [] for name in sides}
        whole = dict.fromkeys(sides, 0.0)

        async def ask(name: str, seed: int) -> None:
            started = time.perf_counter()
            await sides[name].ask(seed)
            took[name].append(time.perf_counter() - started)

        async def turns(name: str, first: int) -> float:
            started = time.perf_counter()
            await asyncio.gather(*(ask(name, first + at) for at in range(at_once)))
            return time.perf_counter() - started

        async def play() -> None:
            for name in sides:
                await turns(name, 1_000_000)
            for values in took.values():
                values.clear()
            for at in range(rounds):
                for name in sorted(sides, reverse=bool(at % 2)):
                    whole[name] += await turns(name, at * at_once)

        asyncio.run(play())
        return Beside(statistics.median(took["here"]), statistics.median(took["there"]), whole["here"], whole["there"],
                      sides["there"].opened_in)  # fmt: skip


@dataclass(frozen=True)
class Came:
    """A node that came and drained under tasks: s until it offered and until its first answer; what was lost."""

    offered: float
    first_work: float | None
    lost: int
    twice: int
    its: int


def comes_and_goes(folder: Path) -> Came:
    """Ask a hundred tasks in bursts while a node joins, and drains once it has answered."""
    with contextlib.ExitStack() as closing:
        nodes = Nodes(folder)
        closing.callback(nodes.close)
        nodes.begin("first")
        os.environ.update(nodes.environment("first"))
        play = Play(load_settings().settings, closing.enter_context(contextlib.ExitStack()))
        times: dict[str, float] = {"begun": time.monotonic()}

        def come() -> None:
            nodes.join("second")
            times["offered"] = time.monotonic()

        async def ask() -> list[object]:
            coming = threading.Thread(target=come)
            coming.start()
            answers: list[object] = []
            drained: threading.Thread | None = None
            while len(answers) < CALLS or "offered" not in times or drained is None or drained.is_alive():
                seeds = range(len(answers), len(answers) + BURST)
                answers += await asyncio.gather(*(play.ask(seed, 30) for seed in seeds), return_exceptions=True)
                by = play.sums(answers)["by"]  # pyright: ignore[reportArgumentType]
                if by.get("second") and "first work" not in times:
                    times["first work"] = time.monotonic()
                    drained = threading.Thread(target=nodes.finllm, args=("first", "cluster", "drain", "second"))
                    drained.start()
                await asyncio.sleep(0.5)
                if time.monotonic() - times["begun"] > 300:
                    break
            coming.join()
            return answers

        said = play.sums(asyncio.run(ask()))  # pyright: ignore[reportArgumentType]
        work = times.get("first work")
        return Came(times["offered"] - times["begun"], None if work is None else work - times["begun"], said["lost"],
                    said["twice"], said["by"].get("second", 0))  # fmt: skip


def in_a_process(part: str) -> Any:
    """What a part measured, from a process of its own: Ray reads its certificates once in each."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.cluster", part], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(part: str) -> None:
    """Measure one part, and print it as one JSON object."""
    with tempfile.TemporaryDirectory(prefix="finllm-cluster-") as folder:
        if part == "run":
            found = asdict(beside(Path(folder), embedded=True, rounds=ROUNDS, at_once=SIDE_BY_SIDE))
        elif part == "call":
            found = asdict(beside(Path(folder), embedded=False, rounds=CALLS, at_once=1))
        elif part == "comes":
            found = asdict(comes_and_goes(Path(folder)))
        else:
            found = [asdict(one) for one in campaign(int(part))]
    print(json.dumps(found))


def main() -> None:
    """Measure, write the section, and exit with 1 where a bar is missed."""
    if len(sys.argv) > 1:
        measured(sys.argv[1])
        return
    run, call = Beside(**in_a_process("run")), Beside(**in_a_process("call"))
    came, struck = Came(**in_a_process("comes")), [Struck(**one) for one in in_a_process(str(FAULTS))]
    ratio, dispatch = run.there_total / run.here_total, (call.there - call.here) * 1e3
    found = max((one.found for one in struck if one.found is not None), default=0.0)
    lost, twice = sum(one.lost for one in struck), sum(one.twice for one in struck)
    bars = [
        ("a run's calls through one node beside in process", f"{ratio:.3f} ×", f"≤ {OVERHEAD} ×", ratio <= OVERHEAD),
        ("dispatch of one call, p50", f"{dispatch:.2f} ms", f"≤ {DISPATCH_MS:.0f} ms", dispatch <= DISPATCH_MS),
        ("a joining node's first work", "never" if came.first_work is None else f"{came.first_work:.1f} s",
         f"≤ {JOIN_SECONDS:.0f} s", (came.first_work or 1e9) <= JOIN_SECONDS),
        ("lost or twice while a node joins and drains", f"{came.lost}, {came.twice}", "0, 0",
         not came.lost and not came.twice),
        (f"lost or twice in {len(struck)} faults", f"{lost}, {twice}", "0, 0", not lost and not twice),
        ("longest until a fault is found", f"{found:.2f} s", f"≤ {FOUND_WITHIN:.0f} s", found <= FOUND_WITHIN
         and all(one.good for one in struck)),
    ]  # fmt: skip
    lines = ["| what | measured | bar | met |", "|---|---|---|---|",
             *(f"| {what} | {value} | {bar} | {'yes' if good else '**no**'} |" for what, value, bar, good in bars), "",
             f"Calls of the embedded model, {SIDE_BY_SIDE} side by side: {run.here_total:.1f} s in process, "
             f"{run.there_total:.1f} s through a node. One call of a model of some kilobytes: {call.here * 1e3:.2f} "
             f"and {call.there * 1e3:.2f} ms. A process is connected in {call.opened_in:.1f} s. The joining node "
             f"offered after {came.offered:.1f} s and answered {came.its} calls until it was drained.", "",
             *table(struck)]  # fmt: skip
    write_section("The cluster", "make bench-cluster", "\n".join(lines))
    print("\n".join(lines))
    if not all(good for *_, good in bars):
        sys.exit("a bar is missed")


if __name__ == "__main__":
    main()
