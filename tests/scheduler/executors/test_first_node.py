"""The first node dies and is started anew at its home: runs under way go on, and the others join it by themselves."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.scheduler.executors.nodes import Nodes
from tests.scheduler.executors.test_cluster import PLAY

pytest.importorskip("ray", reason="'finllm[cluster]' is not installed")
pytestmark = pytest.mark.slow
BACK = 90.0
"""s from the restart until every node offers again, at most."""


def test_the_first_node_is_started_anew_and_no_task_or_member_is_lost(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    try:
        nodes.begin("first")
        nodes.join("second")
        command, env = [*PLAY, "60", "60"], nodes.environment("second")
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as playing:
            said: dict[str, Any] = {}
            for line in playing.stdout or ():
                said = json.loads(line)
                if said.get("answered") == 0:
                    assert nodes.strike("first", "", signal.SIGKILL) > 3
                    nodes.finllm("first", "cluster", "restart")
        assert (said["tasks"], said["lost"], said["twice"]) == (60, 0, 0), said
        ends, alive = time.monotonic() + BACK, set[str]()
        while alive != {"first", "second"} and time.monotonic() < ends:
            alive = {name for name, node in nodes.status("first").items() if node["alive"]}
        assert alive == {"first", "second"}
        again = subprocess.run([*PLAY, "20"], env=env, capture_output=True, text=True, timeout=120, check=True)
        said = json.loads(again.stdout.splitlines()[-1])
        assert (said["lost"], set(said["by"])) == (0, {"first", "second"}), said
        twice = nodes.finllm("first", "cluster", "restart", "--json", check=False)
        assert twice.returncode == 2, "a node that runs is not started twice"
    finally:
        nodes.close()
