"""Small files that would be large, or endless, once read: each is refused at once, in little memory, by its name."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.graphs.test_kill_and_resume import FINLLM

ALLOWED_S, ALLOWED_MIB = 4.0, 200
"""CPU s of the whole command, of which some three quarters of a second are to start, and peak resident memory."""


def gguf(tensors: int, values: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, values) + b"\0" * 4096


BOMBS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "nested.yaml": (b"title: " + b"[" * 50_000 + b"]" * 50_000, ("run",)),
    "open.yaml": (b"{a: " * 20_000, ("run",)),
    "limits.yaml": (b"total_loss: " + b"[" * 50_000, ("stress", "--shock", "EQUITY_US=-10%", "--limits")),
    "deep.jsonl": (b"[" * 200_000 + b"\n", ("eval",)),
    "counts.gguf": (gguf(2**40, 2**40), ("models", "add", "bomb")),
    "string.gguf": (gguf(0, 1) + struct.pack("<Q", 2**50), ("models", "add", "bomb")),
}


MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
open(sys.argv[1], "w").write(f"{used.ru_utime + used.ru_stime} {used.ru_maxrss / 1024}")
sys.exit(done.returncode)
"""
"""Runs a command from a small process: a child's peak memory counts that of the process that it was forked from."""


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_once_in_little_memory(name: str, tmp_path: Path) -> None:
    content, command = BOMBS[name]
    (bomb := tmp_path / name).write_bytes(content)
    own = {"FINLLM_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", MEASURED, tmp_path / "used", FINLLM, *command, bomb], check=False,
                          env={**os.environ, **own}, capture_output=True, text=True, timeout=60)  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert name in said
    assert "fix: " in said
    seconds, mib = map(float, (tmp_path / "used").read_text().split())
    assert seconds < ALLOWED_S
    assert mib < ALLOWED_MIB
