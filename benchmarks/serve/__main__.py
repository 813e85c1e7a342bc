"""The desk under load and under faults, on two cores; exits with 1 where a bar is missed. `make bench-serve`."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.page import write_section
from benchmarks.serve.desk import books_at, prepare, server_at
from benchmarks.serve.faults import connections, full_disk, kills, races
from benchmarks.serve.load import READERS, SESSIONS, Measured, load, mean, quantile

P95, LAG, GROWTH = 0.150, 1.0, 16.0
"""s of a page, s of a live page, MiB over the second thousand connections."""
NOTE = """\
A real server, its sessions' processes and all clients on the same machine. A reader looks at a page for 5 to 10 s; a
page is timed from the request to its last byte. "At most" is of eight readers who do not look at all, while the
sessions run. A live page's lag is from the answer to a claim until another's open queue is told. Memory of its own is
what no other process shares; of the sessions' processes, forked from one, each shared page counts once (PSS). Races are
of two processes, as two servers on one home would be. `make bench-serve` exits with 1 where a
bar is missed: it is meant for two quiet cores."""


@dataclass(frozen=True)
class Row:
    what: str
    found: str
    bar: str
    missed: bool = False


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(os.environ.get("FINLLM_BENCH_HOME") or Path(folder) / "home")
        rows = list(measured(home, Path(folder)))
    head = "| what | found | bar |\n|---|---|---|\n"
    table = head + "\n".join(f"| {one.what} | {one.found} | {one.bar}{' (missed)' if one.missed else ''} |"
                             for one in rows)  # fmt: skip
    print(table)
    write_section("The desk in a browser", "make bench-serve",
                  f"{NOTE} Load of the machine when it ended: {os.getloadavg()[0]:.1f}.\n\n{table}")  # fmt: skip
    sys.exit(1 if any(one.missed for one in rows) else 0)


def measured(home: Path, folder: Path) -> Iterator[Row]:
    """Everything, one after the other; each part is told as it ends."""
    _, runs, item = prepare(home)
    for one in _measured(home, folder, runs, item):
        print(f"{one.what}: {one.found}", file=sys.stderr, flush=True)
        yield one


def _measured(home: Path, folder: Path, runs: list[str], item: str) -> Iterator[Row]:
    with server_at(home) as server, books_at(home) as books:
        yield from _load_rows(load(server, books, runs, item))
        held = connections(server, [books.cookie(f"read{number}") for number in range(8)])
        grown = held.after[0] - held.middle[0]
        files = held.after[1] - held.before[1]
        yield Row(f"{held.connections} live connections opened and dropped",
                  f"{held.before[0]:.0f}, {held.middle[0]:.0f}, {held.after[0]:.0f} MiB; open files {held.before[1]}, "
                  f"{held.middle[1]}, {held.after[1]}; {held.refused} refused",
                  f"at most {GROWTH:g} MiB in the second half, no file", grown > GROWTH or files > 4)  # fmt: skip
    raced_home = folder / "raced"
    shutil.copytree(home, raced_home, symlinks=True, ignore=shutil.ignore_patterns("models", "knowledge*", "vectors*"))
    raced = races(raced_home, runs[-1])
    said = f" ({'; '.join(raced.strange[:3])})" if raced.strange else ""
    said += f", {raced.sealed} late ones told that it is sealed for a blind audit" if raced.sealed else ""
    yield Row(f"{raced.races} races of two signatures", f"{raced.lost} lost, {raced.doubled} doubled, {raced.odd} odd"
              f"{said}, {1e3 * raced.seconds / raced.races:.0f} ms each", "none",
              bool(raced.lost or raced.doubled or raced.odd))  # fmt: skip
    killed = kills(home, runs[-1])
    broken = "; ".join(killed.broken) or "none"
    yield Row(f"{killed.kills} servers killed amid a signature",
              f"{killed.signed} signed, {killed.unsigned} not; broken: {broken}", "none broken",
              bool(killed.broken))  # fmt: skip
    full = full_disk(home, item, runs[-1])
    told = "; ".join(f"{name}: {value}" for name, value in full.items())
    fine = (full.get("signing") == "503" and set(full.get("reading", "").split(", ")) == {"200"}
            and full.get("signing, with space made") == "303" and full.get("damage") == "none")  # fmt: skip
    yield Row("a full disk", told, "signing refused, reading goes on", not fine and "not measured" not in full)


def _load_rows(found: Measured) -> Iterator[Row]:
    p95 = quantile(found.pages, 0.95)
    yield Row(f"{READERS} people reading, {SESSIONS} sessions running: {len(found.pages)} pages",
              f"p50 {1e3 * quantile(found.pages, 0.5):.0f} ms, p95 {1e3 * p95:.0f} ms, most "
              f"{1e3 * max(found.pages):.0f} ms", f"p95 {1e3 * P95:.0f} ms", p95 > P95)  # fmt: skip
    slowest = sorted(found.by_kind, key=lambda kind: -quantile(found.by_kind[kind], 0.95))[:3]
    yield Row("the slowest pages, p95", ", ".join(f"{kind} {1e3 * quantile(found.by_kind[kind], 0.95):.0f} ms"
                                                  for kind in slowest), "-")  # fmt: skip
    yield Row("answers that were none", f"{len(found.failed)} {'; '.join(found.failed[:3])}", "none",
              bool(found.failed))  # fmt: skip
    yield Row("lines of sessions, answered from the ledger", f"{len(found.lines)}, each {mean(found.lines):.1f} s", "-")
    yield Row("pages a second at most", f"{found.most:.0f}, each {1e3 * found.busy:.0f} ms of the server's processor "
              "time", "-")  # fmt: skip
    memory = found.memory
    yield Row("memory of the server", f"{memory.own:.0f} MiB its own, {memory.resident:.0f} MiB with what it shares; "
              f"its {memory.processes} processes {memory.below:.0f} MiB together", "-")  # fmt: skip
    worst = max(found.lags, default=float("nan"))
    yield Row(f"lag of a live page, {len(found.lags)} changes",
              f"p50 {quantile(found.lags, 0.5):.2f} s, most {worst:.2f} s, {found.unheard} unheard", f"{LAG:g} s",
              not worst <= LAG or found.unheard > 0)  # fmt: skip


if __name__ == "__main__":
    main()
