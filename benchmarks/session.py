"""How quick a session is: opening, edits with and without a model, a run answered from the ledger; the real model.

Seconds on the clock are held to the bars; on a machine that has other work, which is said, it is the CPU seconds of
this process (the engine's own apart), as the clock then tells of the others. Exits with 1 where a bar is missed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.page import write_section
from finllm.sessions.answers import Answer
from finllm.sessions.session import Session
from finllm.settings import Settings

SCENARIO = "hormuz-blockade"
QUIET = 0.5
"""Load for each core below which a machine has nothing else to do."""
NOTE = """\
One round on the real model in a home that has run the scenario before. *Shown*: the new total, factors and limits, from
the state in memory, provisional; *recorded*: the version's run is on record. CPU is of the session's process alone.
Python's byte code is kept, as where finllm is installed, and the session has loaded what hedges need, as at a terminal.
`make bench-session` exits with 1 where a bar is missed: it is meant for two quiet cores."""


@dataclass(frozen=True)
class Row:
    """`seconds` on the clock, `cpu` of this process, `bar` on the clock."""

    what: str
    seconds: float
    cpu: float
    bar: float
    asked: int | None = None

    def missed(self, quiet: bool) -> bool:
        return (self.seconds if quiet else self.cpu) > self.bar


def main() -> None:
    before = os.getloadavg()[0]
    quiet = before < QUIET * (os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(os.environ.get("FINLLM_BENCH_HOME", folder))
        rows = list(measured(Settings(home=home)))
    head = "| what | s | CPU s | bar, s | model calls |\n|---|---|---|---|---|\n"
    table = head + "\n".join(
        f"| {one.what} | {one.seconds:.2f} | {one.cpu:.2f} | {one.bar:g}{' (missed)' if one.missed(quiet) else ''} "
        f"| {'-' if one.asked is None else one.asked} |" for one in rows
    )  # fmt: skip
    held = "the bars are held against the clock" if quiet else \
        "it had other work: the bars are held against CPU seconds, and the clock tells of the others"  # fmt: skip
    print(table)
    write_section("Sessions", "make bench-session",
                  f"{NOTE}\n\nLoad of the machine when it began: {before:.1f}; {held}.\n\n{table}")  # fmt: skip
    sys.exit(1 if any(one.missed(quiet) for one in rows) else 0)


def measured(settings: Settings) -> Iterator[Row]:
    warm_up(settings)
    yield from run_again(settings)
    clock, cpu = time.monotonic(), time.process_time()
    with Session.open(SCENARIO, settings=settings, who="bench") as session:
        session.begin()
        yield Row("open and run, answered from the ledger", *since(clock, cpu), 5.0, session.calls(session.version)[0])
        session.hand()
        session.warm().join()  # as it is before anybody has read the opening
        for what, line, shown, recorded in (
            ("a shock", 'shock OIL_WTI +60% because "bench"', 0.5, 2.5),
            ("hold", "hold", 0.5, 2.5), ("a trade", "trade AAPL -1000", 0.5, 2.5), ("undo", "undo", 0.5, 0.5),
            ("hedge", "hedge 5%", 0.5, 0.5),
            ("a dropped source", 'source off hrz-navy-1 because "bench"', 6.0, 6.0),
            ("a changed story", "story The strait is open again and tankers pass it freely", 12.0, 12.0),
        ):  # fmt: skip
            yield from edit(session, what, line, shown, recorded)
        id = session.id
    clock, cpu = time.monotonic(), time.process_time()
    with Session.open(id, settings=settings, who="bench") as session:
        session.begin()
        yield Row("open a session again", *since(clock, cpu), 2.0)


def edit(session: Session, what: str, line: str, shown: float, recorded: float) -> Iterator[Row]:
    seen: list[tuple[float, float]] = []
    clock, cpu = time.monotonic(), time.process_time()
    answer = session.do(line, watch(seen, clock, cpu))
    if answer.error is not None:
        raise answer.error
    if seen:
        yield Row(f"{what}: shown", *seen[0], shown)
    yield Row(f"{what}: recorded" if seen else what, *since(clock, cpu), recorded, answer.asked)


def watch(seen: list[tuple[float, float]], clock: float, cpu: float) -> Callable[[Answer], None]:
    return lambda _: seen.append(since(clock, cpu))


def since(clock: float, cpu: float) -> tuple[float, float]:
    return time.monotonic() - clock, time.process_time() - cpu


def warm_up(settings: Settings) -> None:
    """Let the home have run the scenario."""
    command(settings, "run", SCENARIO, "--quiet", "--json")


def run_again(settings: Settings) -> Iterator[Row]:
    """`finllm run` of what is on record, in a process of its own."""
    before = os.times()
    clock = time.monotonic()
    command(settings, "run", SCENARIO, "--quiet", "--json")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    yield Row("`finllm run` answered from the ledger", time.monotonic() - clock, cpu, 3.0, 0)


def command(settings: Settings, *arguments: str) -> None:
    """With the byte code of an installed finllm, whatever the environment says: what is compiled anew each time is not
    what a person waits for."""
    code = "import sys; from finllm.cli.main import main; sys.exit(main())"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-c", code, *arguments], env={**environ, "FINLLM_HOME": str(settings.home)},
                   stdout=subprocess.DEVNULL, check=True)  # fmt: skip


if __name__ == "__main__":
    main()
