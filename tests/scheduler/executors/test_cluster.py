"""A cluster of really separate processes under mutual TLS: nodes join, leave and are refused while calls go on."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finllm.guardrails.audit import LogReader
from tests.scheduler.executors.nodes import Nodes

pytest.importorskip("ray", reason="'finllm[cluster]' is not installed")
pytestmark = pytest.mark.slow
PLAY = [sys.executable, "-m", "tests.scheduler.executors.play"]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    cluster = Nodes(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.begin("first", "--zone", "za")
        yield cluster
    finally:
        cluster.close()


def _records(home: Path) -> list[dict[str, Any]]:
    return [json.loads(data)["body"] for _, data in LogReader(home / "audit").records()]


def test_a_node_joins_and_drains_in_the_middle_of_a_hundred_tasks_and_none_is_lost(nodes: Nodes) -> None:
    said: dict[str, Any] = {}
    command = [*PLAY, "100", "50"]
    with subprocess.Popen(command, env=nodes.environment("first"), stdout=subprocess.PIPE, text=True) as playing:
        for line in playing.stdout or ():
            said = json.loads(line)
            if said.get("answered") == 0:
                assert nodes.join("second", "--zone", "zb") <= 60
            elif said.get("answered") == 60:
                nodes.finllm("first", "cluster", "drain", "second")
    assert (said["tasks"], said["lost"], said["twice"]) == (100, 0, 0), said
    assert said["by"]["second"] > 0, "the node that joined took work"
    status = nodes.status("first")
    assert status["second"]["state"] == "drained"
    assert status["second"]["labels"]["zone"] == "zb"
    assert status["second"]["alive"]


def test_a_run_uses_the_cluster_unchanged_and_its_record_names_the_node(nodes: Nodes) -> None:
    said = json.loads(nodes.finllm("first", "run", "non-event", "--json", cluster=nodes.address).stdout)
    assert said["status"] == "finished"
    calls = [body for body in _records(nodes.folder / "first") if body["action"] == "call.recorded"]
    assert calls
    assert {body["actor"]["name"].rpartition("@")[2] for body in calls} <= {"first", "second"}
    verified = nodes.finllm("first", "audit", "verify", check=False)
    assert verified.returncode == 4, f"intact, and no witness: {verified.stdout[-400:]}"


def test_a_home_outside_a_cluster_says_what_to_do(nodes: Nodes) -> None:
    alone = nodes.finllm("alone", "run", "non-event", "--json", check=False, cluster="127.0.0.2:1")
    assert alone.returncode == 2
    assert "this home is in no cluster" in json.loads(alone.stdout)["error"]["message"]


def test_a_token_is_used_once_and_the_refusal_is_on_record(nodes: Nodes) -> None:
    token = nodes.token("first")
    nodes.finllm("third", "cluster", "join", nodes.address, "--token-file", str(token), "--name", "third")
    nodes.names.append("third")
    refused = nodes.finllm("fourth", "cluster", "join", nodes.address, "--token-file", str(token), "--name", "fourth",
                           "--json", check=False)  # fmt: skip
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["error"]["kind"] == "refused"
    nodes.leave("third")
    told = [body["about"] for body in _records(nodes.folder / "first") if body["action"] == "cluster.refused"]
    assert "the token was used before, by 'third'" in [about["why"] for about in told]
    left = [body["about"]["node"] for body in _records(nodes.folder / "first") if body["action"] == "cluster.revoked"]
    assert "third" in left, "who leaves is believed no longer"


def test_ray_itself_refuses_a_process_with_a_certificate_of_another_authority(nodes: Nodes, tmp_path: Path) -> None:
    other = Nodes(tmp_path / "other")
    code = (
        "import json, os, sys, datetime; from pathlib import Path; from finllm.scheduler.cluster.place import Place; "
        "from finllm.scheduler.cluster.authority import Authority; "
        "from finllm.scheduler.cluster.certificates import new_key, request_for; "
        "from finllm.scheduler.executors.ray_processes import ray_environment; "
        "state, secret = Place(Path(sys.argv[1])).state(), Path(sys.argv[1], 'ray.token').read_text(); "
        "place = Place(Path(sys.argv[2])); authority = Authority.make(place, 'x', lambda *_: None); key = new_key(); "
        "place.keep(key, authority.join(authority.token('x:1').secret, request_for('x', ['127.0.0.2'], key)), "
        "authority.ca_pem, authority.crl); place.secret_path.write_text(secret); "
        "os.environ.update(ray_environment(place)); from ray._raylet import GcsClient; "
        "GcsClient(address=state['gcs']).internal_kv_keys(b'node:', b'finllm', timeout=5); print('let in')"
    )
    command = [sys.executable, "-c", code, str(nodes.folder / "first" / "cluster"), str(tmp_path / "x")]
    env = other.environment("x") | {"RAY_gcs_rpc_server_connect_timeout_s": "2"}
    log = tmp_path / "log"
    with log.open("wb") as out, contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, env=env, stdout=out, stderr=out, timeout=20, check=False)
        assert done.returncode != 0
    said = log.read_text(encoding="utf-8")
    assert "let in" not in said
    assert "CERTIFICATE_VERIFY_FAILED" in said, said[-800:]
