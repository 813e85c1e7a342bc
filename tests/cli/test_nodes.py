"""`finllm nodes`: what is configured, whether its calibration holds, and what processes are at, without any model."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from tests.cli.conftest import Cli

BACKEND = {
    "name": "edge:m:Q4_0", "tier": "edge", "precision": "Q4_0", "running": 2, "waiting": 5, "slots": 8, "batch": 4,
    "breaker": "open", "opened": 1, "why": "no token for 20 s", "answered": 7, "failed": 1, "tokens": 900,
}  # fmt: skip


def at_work(home: Path) -> None:
    (home / "status").mkdir(parents=True)
    said = {"pid": os.getpid(), "started": 0.0, "written": time.time() + 60, "ticks": None, "command": "run",
            "backends": [BACKEND], "prices": {"joules": 0.25}}  # fmt: skip
    (home / "status" / f"{os.getpid()}.json").write_text(json.dumps(said))


def test_the_backends_are_shown_with_their_calibration(cli: Cli) -> None:
    said = cli("nodes")
    assert said.code == 0
    assert "edge:" in said.out
    assert "run 'finllm calibrate'" in " ".join(said.out.split())
    assert "No process is at work." in said.out


def test_what_processes_are_at_is_shown(cli: Cli, home: Path) -> None:
    at_work(home)
    said = cli("nodes")
    assert "2 of 8" in said.out
    assert "open" in said.out
    assert "no token for 20 s" in " ".join(said.out.split())
    assert "0.25" in said.out


def test_it_is_told_as_json(cli: Cli, home: Path) -> None:
    at_work(home)
    said = cli("nodes", "--json").json
    assert {one["tier"] for one in said["backends"]} == {"edge", "deep"}
    assert said["processes"][0]["backends"] == [BACKEND]
    assert not any(one["calibration_holds"] for one in said["backends"])
