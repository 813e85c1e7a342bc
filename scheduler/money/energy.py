"""Joules of a stretch of work: read from the CPU's counters where they may be, else modelled from its power and use."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from finllm.scheduler.money.amount import Amount

POWERCAP = Path("/sys/class/powercap")
CPUINFO = Path("/proc/cpuinfo")
ASSUMED_WATTS = 5.0
"""Power of one busy core where the CPU is not in the table, W: the middle of the table's rows."""

_WATTS_PER_CORE: dict[tuple[str, int, int], tuple[str, float]] = {
    ("GenuineIntel", 6, 85): ("Xeon Platinum 8280, 205 W on 28 cores", 205 / 28),
    ("GenuineIntel", 6, 106): ("Xeon Platinum 8380, 270 W on 40 cores", 270 / 40),
    ("GenuineIntel", 6, 143): ("Xeon Platinum 8480+, 350 W on 56 cores", 350 / 56),
    ("GenuineIntel", 6, 207): ("Xeon Platinum 8592+, 350 W on 64 cores", 350 / 64),
    ("AuthenticAMD", 23, 49): ("EPYC 7742, 225 W on 64 cores", 225 / 64),
    ("AuthenticAMD", 25, 1): ("EPYC 7763, 280 W on 64 cores", 280 / 64),
    ("AuthenticAMD", 25, 17): ("EPYC 9654, 360 W on 96 cores", 360 / 96),
}
"""Thermal design power per core of the largest part of a family, by vendor, family and model (makers' data sheets)."""


@dataclass(frozen=True)
class Cpu:
    """The processor, as /proc/cpuinfo names it."""

    name: str
    vendor: str = ""
    family: int = 0
    model: int = 0


@dataclass(frozen=True)
class CounterReading:
    """Counters at a moment: µJ by counter's folder (none where unreadable), and this process's CPU time, s."""

    microjoules: dict[str, int]
    cpu_seconds: float


def read_cpu(path: Path = CPUINFO) -> Cpu:
    """The machine's processor; `unknown` where it is not told."""
    try:
        first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return Cpu("unknown")
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}

    def number(key: str) -> int:
        return int(found[key]) if found.get(key, "").isdigit() else 0

    name = found.get("model name") or found.get("Hardware") or "unknown"
    return Cpu(name, found.get("vendor_id", ""), number("cpu family"), number("model"))


def read_counters(powercap: Path = POWERCAP) -> CounterReading:
    """The counters now. Intel's and AMD's packages are `intel-rapl:N`; most kernels let only root read them."""
    counters: dict[str, int] = {}
    for folder in powercap.glob("intel-rapl:*"):
        if not re.fullmatch(r"intel-rapl:\d+", folder.name):
            continue  # parts of a package, which its own counter includes
        try:
            counters[str(folder)] = int((folder / "energy_uj").read_text())
        except (OSError, ValueError):
            return CounterReading({}, _cpu_seconds())
    return CounterReading(counters, _cpu_seconds())


def between(start: CounterReading, end: CounterReading, cpu: Cpu) -> Amount:
    """J spent between two readings: E = ΔRAPL over packages, else E = CPU time · TDP per core.

    Of all packages where measured, of this process alone where modelled.
    """
    if start.microjoules and start.microjoules.keys() == end.microjoules.keys():
        joules = sum(_rise(name, before, end.microjoules[name]) for name, before in start.microjoules.items()) / 1e6
        return Amount(joules, "measured", "RAPL, all packages, whatever ran on them")
    basis, watts = _WATTS_PER_CORE.get((cpu.vendor, cpu.family, cpu.model), ("", 0.0))
    seconds = end.cpu_seconds - start.cpu_seconds
    if watts:
        return Amount(seconds * watts, "modelled", f"CPU time × {watts:.2f} W per core ({basis})")
    return Amount(seconds * ASSUMED_WATTS, "modelled", f"CPU time × {ASSUMED_WATTS:.2f} W per core (assumed)")


def _rise(folder: str, before: int, after: int) -> int:
    """A counter's increase, also over its wrap-around."""
    if after >= before:
        return after - before
    try:
        return after - before + int((Path(folder) / "max_energy_range_uj").read_text())
    except (OSError, ValueError):
        return 0


def _cpu_seconds() -> float:
    return time.process_time()
