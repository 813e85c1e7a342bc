"""What a killed first node leaves in /tmp is removed when the next one starts, and nothing that is in use."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from finllm.scheduler.executors.ray_processes import YOUNG, fresh_folder


def test_a_folder_that_no_process_names_is_removed_once_it_is_no_longer_young(tmp_path: Path) -> None:
    left, young, used, other = (tmp_path / name for name in ("finllm-ray-left", "finllm-ray-young", "finllm-ray-used",
                                                             "somebody"))  # fmt: skip
    for folder in (left, young, used, other):
        (folder / "session").mkdir(parents=True)
        if folder != young:
            old = time.time() - 2 * YOUNG
            os.utime(folder, times=(old, old))
    command = [sys.executable, "-c", "print(flush=True); input()", f"--session_dir={used}/session"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it runs, and its command line can be read
        made = fresh_folder(tmp_path)
        process.communicate(b"\n")
    assert sorted(tmp_path.iterdir()) == sorted([young, used, other, made])
    assert made.stat().st_mode & 0o077 == 0
