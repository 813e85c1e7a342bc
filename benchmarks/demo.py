"""How long the demo takes: first run on an empty home, second run on the same, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.page import write_section

SCENARIO = "scenarios/hormuz-blockade.yaml"
FIRST_LIMIT, SECOND_LIMIT = 90.0, 45.0


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        first, second = timed(home), timed(home)
        fresh = timed(home, "--seed", "1")
    rows = [
        ("first run, empty home", first, FIRST_LIMIT),
        ("second run, answered from the ledger", second, SECOND_LIMIT),
        ("second run, every call asked again (another seed)", fresh, SECOND_LIMIT),
    ]
    lines = [f"| {what} | {seconds:.1f} s | {limit:.0f} s |" for what, seconds, limit in rows]
    table = "\n".join(["| demo | measured | bar |", "| --- | --- | --- |", *lines])
    print(table)
    write_section("The demo", "make bench", table)
    if any(seconds > limit for _what, seconds, limit in rows):
        sys.exit(1)


def timed(home: str, *options: str) -> float:
    """Wall-clock s of one `finllm run` in its own process."""
    command = [str(Path(sys.executable).with_name("finllm")), "run", SCENARIO, "--json", *options]
    started = time.monotonic()
    subprocess.run(
        command, env={**os.environ, "FINLLM_HOME": home}, check=True, capture_output=True, timeout=600, text=True
    )
    return time.monotonic() - started


if __name__ == "__main__":
    main()
