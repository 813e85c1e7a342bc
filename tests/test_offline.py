"""With the network unplugged a run behaves the same: the command runs in a network namespace without any interface."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import LONGEST_RUN

FINLLM = str(Path(sys.executable).with_name("finllm"))
UNPLUGGED = ["unshare", "--user", "--map-root-user", "--net"]


def can_unplug() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNPLUGGED, "true"], capture_output=True, check=False, timeout=10).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_unplug(), reason="this machine lets nobody make a network namespace")
def test_a_first_run_needs_no_network(tmp_path: Path) -> None:
    command = [*UNPLUGGED, FINLLM, "run", "non-event", "--json"]
    done = subprocess.run(command, env={**os.environ, "FINLLM_HOME": str(tmp_path)}, capture_output=True, text=True,
                          timeout=LONGEST_RUN, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["status"] == "finished"
