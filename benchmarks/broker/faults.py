"""Live faults: the engine's process is killed or stopped under load; what is lost, done twice, and when it is found.

`python -m benchmarks.broker.faults [FAULTS]`. Real models, a real ledger, a process of its own for each fault.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finllm.agents.roles import AGENTS
from finllm.errors import FinllmError
from finllm.events import CallFailed, Event, EventBus
from finllm.memory.ledger import Ledger
from finllm.scheduler.backends.llama_cpp import llama_backends
from finllm.scheduler.broker import Broker
from finllm.scheduler.decoding.template import compile_template
from finllm.scheduler.engine.process import EngineProcess
from finllm.scheduler.health.breaker import Patience
from finllm.scheduler.health.services import Services
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.scheduler.placement.task import Prompt, Task
from finllm.settings import Settings, load_settings

TASKS = 10
"""Tasks under way when the fault strikes; half of them want the edge tier, half the deep one."""
FOUND_WITHIN = 5.0
"""Bar: longest time until a fault is found, s."""
LONGEST = 120.0
"""Longest wait for all tasks of one fault, s."""
_NEWS = ("Oil rises after the strait is closed.", "A regional bank fails.", "The central bank raises rates again.")


@dataclass(frozen=True)
class Fault:
    """One fault and what came of it. `found`: s until its first call was told; None where it struck no call.

    `lost`: tasks without an answer; `twice`: answers written more than once, or keys answered for two tasks.
    """

    signal: str
    struck_after: float
    found: float | None
    recovered: float
    tasks: int
    lost: int
    twice: int


def live_faults(count: int = 20, seed: int = 7, settings: Settings | None = None) -> list[Fault]:
    """Strike `count` times, SIGKILL and SIGSTOP in turn, each at a random point of ten tasks' work."""
    dice = random.Random(seed)
    settings = settings or load_settings().settings
    return [
        asyncio.run(_strike(settings, signal.SIGKILL if at % 2 == 0 else signal.SIGSTOP, dice)) for at in range(count)
    ]


async def _strike(settings: Settings, kind: signal.Signals, dice: random.Random) -> Fault:
    failed: list[float] = []

    def watch(event: Event) -> None:
        if isinstance(event, CallFailed):
            failed.append(time.monotonic())

    bus = EventBus(watch)
    process = EngineProcess()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        try:
            backends = llama_backends(settings, process)
            broker = Broker(
                backends, ledger, bus, call_timeout=LONGEST, services=Services(backends, patience=Patience())
            )
            account = Account(Budget(), time.monotonic)
            await broker.run(_task(0, "warm", broker), account, run_id="warm")  # loaded, so that the fault finds work
            tasks = [_task(at, f"node-{at}", broker) for at in range(1, TASKS + 1)]
            started = time.monotonic()
            work = [asyncio.create_task(broker.run(task, account, run_id="run")) for task in tasks]
            await asyncio.sleep(dice.uniform(0.05, 1.5))
            struck, pid = time.monotonic(), process.pid
            if pid is not None:
                os.kill(pid, kind)
            answers = await asyncio.wait_for(asyncio.gather(*work, return_exceptions=True), LONGEST)
            ended = time.monotonic()
            unexpected = [a for a in answers if isinstance(a, BaseException) and not isinstance(a, FinllmError)]
            if unexpected:
                raise unexpected[0]
            uses = [use for use in ledger.uses("run", "call") if not use.reused]
            told = [at - struck for at in failed if at >= struck]
            return Fault(
                kind.name,
                struck - started,
                min(told, default=None),
                ended - struck,
                TASKS,
                sum(isinstance(answer, BaseException) for answer in answers),
                sum(n - 1 for n in Counter(use.key for use in uses).values())
                + sum(n - 1 for n in Counter(use.node for use in uses).values()),
            )
        finally:
            process.close()
            ledger.close()


def _task(at: int, node: str, broker: Broker) -> Task:
    agent = AGENTS[at % len(AGENTS)]
    labels = {name: "" for name, field in agent.judgement.model_fields.items() if field.annotation == tuple[str, ...]}
    precisions = sorted({offer.precision for offer in broker.offers if offer.tier == ("deep" if at % 2 else "edge")})
    news = " ".join(_NEWS[(at + step) % len(_NEWS)] for step in range(2))
    task = Task(
        agent.role, node, Prompt("You are a risk analyst. You judge news.", f"Case {at}. {news}"), "benchmark",
        compile_template(agent.judgement, labels), precisions[0], LONGEST, seed=at,
    )  # fmt: skip
    return replace(task, value=float(at))


def table(faults: Sequence[Fault]) -> list[str]:
    """The faults by signal, as lines of Markdown."""
    lines = [
        "| signal | faults | under a call | tasks | lost | done twice | found, median (s) | found, longest (s) "
        "| all answered, longest (s) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted({fault.signal for fault in faults}):
        those = [fault for fault in faults if fault.signal == name]
        found = [fault.found for fault in those if fault.found is not None]
        lines.append(
            f"| {name} | {len(those)} | {len(found)} | {sum(f.tasks for f in those)} | {sum(f.lost for f in those)} | "
            f"{sum(f.twice for f in those)} | {statistics.median(found) if found else 0:.2f} | "
            f"{max(found, default=0):.2f} | {max(f.recovered for f in those):.1f} |"
        )
    return lines


def met(faults: Sequence[Fault]) -> bool:
    """Nothing lost, nothing done twice, every fault found in time."""
    return all(not f.lost and not f.twice and (f.found or 0.0) <= FOUND_WITHIN for f in faults)


def main() -> None:
    """Strike, print the table, and exit with 1 where a bar is missed."""
    faults = live_faults(int((sys.argv[1:] or ["20"])[0]))
    print("\n".join(table(faults)))
    if not met(faults):
        sys.exit("a task was lost or done twice, or a fault was found too late")


if __name__ == "__main__":
    main()
