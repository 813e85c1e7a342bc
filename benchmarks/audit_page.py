"""docs/benchmarks-audit.md from the results that benchmarks.audit left under build/audit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "audit"
PAGE = ROOT / "docs" / "benchmarks-audit.md"


def page() -> str:
    """The page from the results that are kept."""
    kept = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    lines = [
        "# The audit log, measured", "",
        "Written by `make bench-audit`. What is measured and against whom it helps: [audit.md](audit.md).", "",
    ]  # fmt: skip
    if "attacks" in kept:
        found = kept["attacks"]
        lines += ["## Attacks against a witnessed checkpoint", "",
                  f"{found['seeds']} logs each; caught: verification failed and named the first bad record.", "",
                  "| attack | caught | named as |", "|---|---|---|"]  # fmt: skip
        for name, caught in found["caught"].items():
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(found["kinds"][name].items()))
            lines.append(f"| {name} | {caught} of {found['seeds']} | {kinds} |")
        lines.append("")
    if "append" in kept:
        lines += [
            "## Durable records per second", "",
            "Threads that each wait until their record is on disk; with blobs, its request and response are too.", "",
            "| threads | blobs | records/s | p50, ms | p99, ms | longest, ms |", "|---|---|---|---|---|---|",
        ]  # fmt: skip
        lines += [f"| {r['threads']} | {'yes' if r['blobs'] else 'no'} | {r['per_second']:,.0f} | {r['p50_ms']:.2f} | "
                  f"{r['p99_ms']:.2f} | {r['max_ms']:.1f} |" for r in kept["append"]["runs"]]  # fmt: skip
        lines.append("")
    for name, title in _TITLES.items():
        if name in kept:
            rows = [f"| {what} | {_shown(value)} |" for what, value in _flat(kept[name]) if what != "machine"]
            lines += [f"## {title}", "", "| | |", "|---|---|", *rows, ""]
    machines = sorted({str(found["machine"]) for found in kept.values()})
    return "\n".join([*lines, f"Measured on: {'; '.join(machines)}.", ""])


_TITLES = {
    "clean": "False alarms: clean logs with a witness",
    "kills": "SIGKILL at random points, ledger and log on one home",
    "disk": "Disk full (a real tmpfs), read-only, and a file size limit",
    "build": "Building a log of a million records, a tenth of them with blobs",
    "verify": "Verifying it with its witness: by two processes with cold files, then by one with warm ones",
    "run": "What it costs a run of hormuz-blockade",
    "held": "Rows held against the log: what it costs a run of hormuz-blockade answered from the ledger",
}


def _flat(found: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name.replace('_', ' ')}: ")
        else:
            yield before + name.replace("_", " "), value


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else re.sub(r"'/[^']*'", "…", str(value))
