"""A node's processes are killed or stopped under calls: nothing is lost, nothing done twice, and it is soon found."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scheduler.executors.nodes import Nodes
from tests.scheduler.executors.test_cluster import PLAY

pytest.importorskip("ray", reason="'finllm[cluster]' is not installed")
pytestmark = pytest.mark.slow


def test_a_room_or_a_node_that_is_killed_or_stopped_under_calls_loses_none() -> None:
    kinds = ["room killed", "room stopped", "node killed"]
    code = f"from benchmarks.cluster.faults import campaign; print([one.good for one in campaign(3, kinds={kinds})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-800:]
    *lines, good = done.stdout.strip().splitlines()
    struck = [json.loads(line) for line in lines]  # Ray has put nothing of its own between them
    assert [one["kind"] for one in struck] == kinds
    assert good == "[True, True, True]", struck


def test_calls_go_on_when_the_first_node_dies(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    try:
        nodes.begin("first")
        nodes.join("second")
        command, env = [*PLAY, "60", "30"], nodes.environment("second")
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as playing:
            said: dict[str, object] = {}
            for line in playing.stdout or ():
                said = json.loads(line)
                if said.get("answered") == 0:
                    assert nodes.strike("first", "", signal.SIGKILL) > 3
        assert (said["tasks"], said["lost"], said["twice"]) == (60, 0, 0), said
    finally:
        nodes.close()
