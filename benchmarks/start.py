"""How quick the commands that ask no model are: CPU seconds beside `import pandas`, and the gate that keeps them so."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.page import write_section

ROUNDS = 7
POSITIONS = 50_000
FINLLM = str(Path(sys.executable).with_name("finllm"))
REFERENCE = (sys.executable, "-c", "import pandas")
"""Reads modules and runs them, as a command that has little to do does: what slows the one slows the other."""
NOTE = f"""\
CPU seconds (user and system) and largest resident memory of a process of its own: the least of {ROUNDS} rounds, of 4
with {POSITIONS:,} positions, in each of which every command has its turn. `make bench-start` exits with 1 where a
command is beyond its gate. Gates are on memory, and on CPU over that of `python -c "import pandas"` in the same rounds,
which a slow or a busy machine changes little. Bars are seconds of a quiet machine, where the reference takes 0.43 s.
Where the bar over these 0.43 s is far above what a command takes, its gate is what was measured and a quarter."""


@dataclass(frozen=True)
class Command:
    """Arguments of `finllm`; `gate`: CPU over the reference's; `bar`: CPU s on a quiet machine; `mib`: of memory."""

    name: str
    arguments: tuple[str, ...]
    gate: float
    bar: float | None = None
    mib: float | None = None
    rounds: int = ROUNDS


@dataclass(frozen=True)
class Taken:
    """What one process took: CPU s, s on the clock, and its largest resident memory in MiB."""

    cpu: float
    clock: float
    mib: float


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        commands = commands_on(write_book(Path(folder) / "book.csv"), write_list(Path(folder) / "list.csv"))
        reference, found = measure(commands, Path(folder) / "home")
    table, missed = table_of(commands, reference, found)
    print(table)
    write_section("Starting", "make bench-start", f"{NOTE}\n\n{table}")
    sys.exit(1 if missed else 0)


def commands_on(book: Path, listed: Path) -> tuple[Command, ...]:
    """What is measured; the last ones stress `book`, and check `listed`."""
    stress = ("stress", "--shock", "EQUITY_US=-10%")
    return (
        Command("`--help`", ("--help",), 0.45, bar=0.4),
        Command("`runs list`, empty home", ("runs", "list"), 0.55),
        Command("`stress`, shipped book", stress, 2.5, bar=1.3),
        Command("`reverse`, shipped book", ("reverse", "--loss", "10%"), 2.6),
        Command(f"`stress`, {POSITIONS:,} positions", (*stress, "--portfolio", str(book), "--json"), 11.0,
                bar=5.0, mib=400, rounds=4),
        Command(f"`portfolio check`, a broker's list of {POSITIONS:,}", ("portfolio", "check", str(listed), "--json"),
                10.0, bar=8.0, mib=600, rounds=4),
    )  # fmt: skip


def write_book(path: Path) -> Path:
    """Of ten positions seven are equities by value and beta, two bonds and one crude oil; no two are alike."""
    lines = ["id,quantity,market_value,currency,asset_class,sector,duration,convexity,beta,delta"]
    for at in range(POSITIONS):
        value, sector = 10_000 + 37 * at % 90_000, f"Sector {at % 11}"
        kind = at % 10
        if kind < 7:
            lines.append(f"E{at},,{value},USD,equity,{sector},,,{0.5 + at % 97 / 97:.3f},")
        elif kind < 9:
            lines.append(f"B{at},,{value},USD,bond,{sector},{1 + at % 89 / 10:.1f},{5 + at % 71},,")
        else:
            lines.append(f"C{at},,{value},USD,commodity,{sector},,,,1")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_list(path: Path) -> Path:
    """A list in a broker's columns and three currencies: of ten positions one is an option, two are bonds."""
    lines = ["Symbol,Description,Asset Class,Currency,FX Rate,Quantity,Price,Market Value,Multiplier,Strike,Put/Call,"
             "Expiry,Underlying,Coupon,Maturity,Desk"]  # fmt: skip
    for at in range(POSITIONS):
        quantity, price, desk = 100 + at % 900, 10 + at % 97 / 4, f"Desk {at % 7}"
        currency, rate = (("USD", 1), ("EUR", 1.16), ("GBP", 1.31))[at % 3]
        head = f"S{at},Instrument {at},{{}},{currency},{rate},{quantity}"
        if at % 10 == 0:
            terms = f"100,{50 + at % 50},{'PC'[at % 20 // 10]},2026-12-18,U{at % 50},,"
            lines.append(f"{head.format('OPT')},{price},{quantity * price * 100},{terms},{desk}")
        elif at % 10 < 3:
            lines.append(f"{head.format('BOND')},{90 + price / 10},{quantity * (90 + price / 10) / 100:.6f},"
                         f",,,,,{2 + at % 40 / 10},2034-11-15,{desk}")  # fmt: skip
        else:
            lines.append(f"{head.format('STK')},{price},{quantity * price},,,,,,,,{desk}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def measure(commands: tuple[Command, ...], home: Path) -> tuple[Taken, dict[str, Taken]]:
    """The least that the reference and each command took. All have their turn in every round, slow ones too."""
    reference: list[Taken] = []
    found: dict[str, list[Taken]] = {command.name: [] for command in commands}
    for number in range(ROUNDS):
        reference.append(taken(REFERENCE, home))
        for command in commands:
            if number < command.rounds:
                found[command.name].append(taken((FINLLM, *command.arguments), home))
    return least(reference), {name: least(rounds) for name, rounds in found.items()}


def taken(command: tuple[str, ...], home: Path) -> Taken:
    """Run a command on a home that is empty. Errors: CalledProcessError where it fails.

    Modules are compiled in the first round and kept, as an installed package's are, whatever the environment says.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.monotonic()
    with subprocess.Popen(command, env={**kept, "FINLLM_HOME": str(home)}, stdout=subprocess.DEVNULL) as child:
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return Taken(used.ru_utime + used.ru_stime, time.monotonic() - began, used.ru_maxrss / 1024)


def least(rounds: list[Taken]) -> Taken:
    return Taken(*(min(getattr(one, name) for one in rounds) for name in ("cpu", "clock", "mib")))


def table_of(commands: tuple[Command, ...], reference: Taken, found: dict[str, Taken]) -> tuple[str, bool]:
    """The rows in Markdown, and whether a gate is missed."""
    rows = [
        "| `finllm` | CPU | bar | over the reference | gate | clock | memory | gate | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        f"| the reference | {reference.cpu:.2f} s | | 1 | | {reference.clock:.2f} s | {reference.mib:.0f} MiB | | |",
    ]
    missed = False
    for command in commands:
        one = found[command.name]
        ratio = one.cpu / reference.cpu
        beyond = ratio > command.gate or (command.mib is not None and one.mib > command.mib)
        missed = missed or beyond
        bar = f"{command.bar:g} s" if command.bar else ""
        room = f"{command.mib:.0f} MiB" if command.mib else ""
        rows.append(f"| {command.name} | {one.cpu:.2f} s | {bar} | {ratio:.2f} | {command.gate:g} | {one.clock:.2f} s "
                    f"| {one.mib:.0f} MiB | {room} | {'**missed**' if beyond else 'held'} |")  # fmt: skip
    return "\n".join(rows), missed


if __name__ == "__main__":
    main()
