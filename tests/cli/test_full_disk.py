"""A home on a disk that is full at any moment: what it says is true, and with space made, it ends alike.

Real processes on a tiny model, each home on a tmpfs of its own, which takes the right to mount one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LONGEST_RUN
from tests.graphs.test_kill_and_resume import Whole, finish, judgements, start, whole
from tests.soak import Soak

__all__ = ["whole"]
ROOM = 64 << 20
"""Bytes that a run on the tiny model fits into well."""
LEAST = 1 << 10


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes at the folder; skips where none may be mounted."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False,
                             capture_output=True, text=True)  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def make_space(folder: Path) -> None:
    subprocess.run(["mount", "-o", f"remount,size={ROOM}", str(folder)], check=True)


def used(folder: Path) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@contextlib.contextmanager
def home_on(whole: Whole, folder: Path, room: int) -> Iterator[Path]:
    """A copy of the home that has not run yet, with so many bytes free."""
    with disk(folder, ROOM) as home:
        for name in ("tiny.gguf", "models"):
            if (kept := whole.home / name).is_dir():
                shutil.copytree(kept, home / name, symlinks=True, ignore=shutil.ignore_patterns("*.gguf"))
            elif kept.exists():
                shutil.copy(kept, home / name)
        subprocess.run(["mount", "-o", f"remount,size={used(home) + room}", str(home)], check=True)
        yield home


def attempt(home: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    with start(home, *arguments) as process:
        out, err = process.communicate(timeout=LONGEST_RUN)
    return process.returncode, json.loads(out), "\n".join(line for line in err.splitlines() if line[:1] != "{")


def assert_mended(whole: Whole, folder: Path, room: int) -> bool:
    """Run with so little room; make space, and do what the error says. Whether it had failed at first."""
    with home_on(whole, folder, room) as home:
        command = ["run", str(whole.scenario)]
        code, said, talk = attempt(home, *command)
        assert talk == ""
        if code != 0:
            error = said["error"]
            assert error["kind"] != "internal", error
            assert any(words in f"{error['message']} {error['fix']}".lower() for words in ("space", "disk")), error
            make_space(home)
            if "finllm resume " in error["fix"]:
                command = ["resume", error["fix"].partition("finllm resume ")[2].split()[0].strip("'")]
            said, _ = finish(home, *command)
        make_space(home)
        assert judgements(said) == judgements(whole.report)
        listed, _ = finish(home, "runs", "list")
        assert [row["status"] for row in listed["runs"] if row["id"] == said["run_id"]] == ["finished"]
        with start(home, "audit", "verify") as process:
            out, err = process.communicate(timeout=LONGEST_RUN)
        assert process.returncode in (0, 4), out + err
        return code != 0


@pytest.mark.slow
def test_a_run_that_a_full_disk_stopped_goes_on_once_there_is_space(whole: Whole, tmp_path: Path) -> None:
    assert assert_mended(whole, tmp_path / "home", 400 << 10)


@pytest.mark.soak
def test_a_disk_of_any_size_is_mended_by_making_space(soak: Soak, whole: Whole, tmp_path: Path) -> None:
    for seed in soak.rounds(20):
        room = int(LEAST * (8 << 10) ** random.Random(f"full {seed}").random())
        soak.figure(stopped=assert_mended(whole, tmp_path / f"home-{seed}", room))
