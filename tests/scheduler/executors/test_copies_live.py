"""Critical tasks on a cluster of really separate processes: the death of one domain is not waited for."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from finllm.scheduler.executors.remote import SILENCE
from tests.scheduler.executors.nodes import Nodes
from tests.scheduler.executors.test_cluster import PLAY

pytest.importorskip("ray", reason="'finllm[cluster]' is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    cluster = Nodes(tmp_path_factory.mktemp("copies"))
    try:
        cluster.begin("first", "--power", "p1", "--network", "n1")
        cluster.join("second", "--power", "p2", "--network", "n2")
        yield cluster
    finally:
        cluster.close()


def test_a_run_says_what_its_critical_calls_cost_in_two_domains(nodes: Nodes) -> None:
    said = json.loads(nodes.finllm("first", "run", "non-event", "--json", cluster="here").stdout)
    copies = said["spent"]["copies"]
    assert copies["doubled"] >= 1, said["spent"]
    assert copies["alone"] == []
    assert 0 < copies["tokens"] < said["spent"]["tokens"]


def test_a_domain_that_stands_still_under_critical_tasks_holds_up_none(nodes: Nodes) -> None:
    """Without copies what a stopped node was at waits for as long as silence takes to be believed."""
    said: dict[str, Any] = {}
    command, env = [*PLAY, "80", "32", "critical"], nodes.environment("first")
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as playing:
        for line in playing.stdout or ():
            said = json.loads(line)
            if said.get("answered") == 40:
                assert nodes.strike("second", "", signal.SIGSTOP) > 2
    assert (said["tasks"], said["lost"], said["twice"]) == (80, 0, 0), said
    assert said["twins"] >= 40, said
    assert said["copies_charged"] >= 40, said
    _, healthy, struck, after = said["longest"]  # of each burst of twenty; the first pays for what starts
    assert max(struck, after) < max(1.2 * healthy, SILENCE), said
