"""Small files that would be large, or endless, once read: each is refused at once, in little memory, by its name."""

from __future__ import annotations

import os
import struct
import subprocess
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


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_once_in_little_memory(name: str, tmp_path: Path) -> None:
    content, command = BOMBS[name]
    (bomb := tmp_path / name).write_bytes(content)
    own = {"FINLLM_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "err").open("wb") as err:
        child = subprocess.Popen([FINLLM, *command, str(bomb)], env={**os.environ, **own}, stdout=err, stderr=err)
        _, status, spent = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    said = (tmp_path / "err").read_text("utf-8")
    assert child.returncode == 2, said
    assert name in said
    assert "fix: " in said
    assert spent.ru_utime + spent.ru_stime < ALLOWED_S
    assert spent.ru_maxrss < ALLOWED_MIB << 10
