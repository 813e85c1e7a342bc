"""Status files: there while a process works, gone when it ends, and ignored where their process is dead or silent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from finllm.scheduler.health.status import STALE, StatusFile, live_processes


def seen(folder: Path, **wanted: Any) -> dict[str, Any]:
    """The status of this process once it says so."""
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        for said in live_processes(folder):
            if wanted.items() <= said.items():
                return said
        time.sleep(0.02)
    raise AssertionError(f"no status says {wanted}")


def test_a_process_tells_what_it_is_at_until_it_closes(tmp_path: Path) -> None:
    at = {"running": 1}
    status = StatusFile(tmp_path / "status", lambda: dict(at))
    assert seen(tmp_path / "status", running=1)["pid"] == os.getpid()
    at["running"] = 2
    seen(tmp_path / "status", running=2)
    status.close()
    assert list((tmp_path / "status").iterdir()) == []


def test_what_cannot_be_told_or_written_stops_nothing(tmp_path: Path) -> None:
    def fails() -> dict[str, Any]:
        raise ValueError("not now")

    StatusFile(tmp_path / "status", fails).close()
    (tmp_path / "file").write_text("no folder")
    StatusFile(tmp_path / "file", dict).close()


def test_files_of_the_dead_are_removed_and_of_the_silent_ignored(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    now = time.time()
    for name, pid, written, ticks in (
        ("dead", dead.pid, now, None),
        ("another", os.getpid(), now, -1),
        ("silent", os.getpid(), now - STALE - 1, None),
        ("alive", os.getpid(), now, None),
    ):
        said = {"pid": pid, "started": 0.0, "written": written, "ticks": ticks, "name": name}
        (tmp_path / f"{name}.json").write_text(json.dumps(said))
    (tmp_path / "spoilt.json").write_text("{")
    assert [said["name"] for said in live_processes(tmp_path)] == ["alive"]
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["alive", "silent", "spoilt"]
