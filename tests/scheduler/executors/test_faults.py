"""A node's processes are killed or stopped under calls: nothing is lost, nothing done twice, and it is soon found."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finllm.scheduler.executors.membership import WITHOUT_FIRST
from tests.scheduler.executors.nodes import Nodes
from tests.scheduler.executors.test_cluster import PLAY

pytest.importorskip("ray", reason="'finllm[cluster]' is not installed")
pytestmark = pytest.mark.slow
STARTING = 8.0
"""s that a command may take to start and end on a busy machine."""


def test_a_room_or_a_node_that_is_killed_or_stopped_under_calls_loses_none() -> None:
    kinds = ["room killed", "room stopped", "node killed"]
    code = f"from benchmarks.cluster.faults import campaign; print([one.good for one in campaign(3, kinds={kinds})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-800:]
    *lines, good = done.stdout.strip().splitlines()
    struck = [json.loads(line) for line in lines]  # Ray has put nothing of its own between them
    assert [one["kind"] for one in struck] == kinds
    assert good == "[True, True, True]", struck


def test_calls_go_on_when_the_first_node_dies_and_a_member_leaves_within_seconds(tmp_path: Path) -> None:
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
        began = time.monotonic()
        left = json.loads(nodes.finllm("second", "cluster", "leave", "--json").stdout)
        assert left == {"left": "second", "revoked": False}
        assert time.monotonic() - began <= WITHOUT_FIRST + STARTING
        ends = time.monotonic() + STARTING  # rooms and engines end once they see that their node has
        while nodes.processes("second", "") and time.monotonic() < ends:
            time.sleep(0.1)
        assert nodes.processes("second", "") == []
    finally:
        nodes.close()
