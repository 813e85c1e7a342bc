"""How a home begins a cluster, joins one, and starts and ends its node's process."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from finllm.errors import BackendError, FinllmError, InputError
from finllm.files import write_atomically
from finllm.processes import lives, ticks_of
from finllm.scheduler.cluster import Told
from finllm.scheduler.cluster.authority import Authority, Token
from finllm.scheduler.cluster.certificates import NAME, new_key, request_for
from finllm.scheduler.cluster.door import handshake
from finllm.scheduler.cluster.knock import asked_ca, knock_first, split
from finllm.scheduler.cluster.place import Place
from finllm.scheduler.executors.ray_processes import SERVE
from finllm.settings import Settings

STARTING = 300.0
"""Longest wait for a node to be ready, s: it fetches its weights and measures itself first."""
ENDING = 180.0
"""Longest wait for a node to end, s: it lets calls under way finish."""
WITHOUT_FIRST = 10.0
"""Longest wait for a node to end where the first node does not answer, s: then it is killed."""


def begin(settings: Settings, told: Told, name: str, host: str, port: int, labels: Mapping[str, str]) -> Place:
    """Make a cluster, with this home as its first node and authority. Errors: InputError where it is in one."""
    place = _vacant(settings, name)
    authority = Authority.make(place, name, told)
    port = port or _free_port(host)
    key, token = new_key(), authority.token(f"{host}:{port}")
    place.keep(key, authority.join(token.secret, request_for(name, [host], key)), authority.ca_pem, authority.crl)
    write_atomically(place.secret_path, secrets.token_urlsafe(32))
    place.keep_state({"name": name, "host": host, "address": f"{host}:{port}", "gcs": f"{host}:{_free_port(host)}",
                      "first": True, "labels": dict(labels), "ready": False})  # fmt: skip
    return place


def enter(settings: Settings, address: str, token: Token, name: str, host: str, labels: Mapping[str, str]) -> Place:
    """Make this home a member, by a token. `host`: where it will listen; empty: found out.

    Errors: Refused, BackendError, InputError.
    """
    place = _vacant(settings, name)
    if address != token.address:
        raise InputError(f"the token is of {token.address!r}, not of {address!r}", fix=f"join {token.address}")
    host = host or own_address(address)
    write_atomically(place.ca_path, asked_ca(address, token.ca))
    key = new_key()
    asked = {"secret": token.secret, "request": request_for(name, [host], key).decode()}
    given = knock_first(place.ca_path, address, "/join", asked)
    place.keep(key, given["certificate"].encode(), place.ca_path.read_bytes(), given["crl"].encode())
    write_atomically(place.secret_path, given["secret"])
    place.keep_state({"name": name, "host": host, "address": address, "gcs": given["gcs"], "peer": given["peer"],
                      "rungs": given["rungs"], "first": False, "labels": dict(labels), "ready": False})  # fmt: skip
    return place


def spawn(place: Place) -> None:
    """Start this home's node as a process of its own, and wait until it offers. Errors: BackendError."""
    with place.log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *SERVE], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    ends = time.monotonic() + STARTING
    while time.monotonic() < ends:
        if process.poll() is not None:
            break
        if place.state().get("ready"):
            return
        time.sleep(0.1)
    if process.poll() is None:
        process.terminate()
    last = place.log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    raise BackendError(f"the node does not start: {''.join(last) or 'it said nothing'}",
                       fix=f"read {str(place.log_path)!r}, then 'finllm cluster leave' and begin again")  # fmt: skip


def begin_again(place: Place) -> None:
    """Start this home's node anew, with the membership that it has: after its machine or its processes died.

    At the home that made the cluster, its directory begins anew at the same address, and the other nodes, whose
    certificates hold, join it by themselves. Errors: InputError where it runs, or is in no cluster; BackendError.
    """
    state = place.state()
    if running(state):
        raise InputError(f"the node {state['name']!r} runs", fix="look at it with 'finllm cluster status'")
    end(place, leaving=False)
    place.keep_state({**state, "ready": False, "pid": None, "ray": None})
    spawn(place)


def end(place: Place, *, leaving: bool = True) -> bool:
    """End this home's node, and with `leaving` its membership; whether the authority could be told.

    Where the first node does not answer, nothing that is told to it ends: the node is killed after `WITHOUT_FIRST`.
    Errors: InputError where it is in no cluster.
    """
    state, begun = place.state(), time.monotonic()
    told = state["first"] or not leaving or _first_answers(place, state)
    if running(state):
        os.kill(state["pid"], signal.SIGTERM)
        ends = begun + (ENDING if told else WITHOUT_FIRST)
        while running(state) and time.monotonic() < ends:
            time.sleep(0.1)
        if running(state) and not told:
            os.kill(state["pid"], signal.SIGKILL)
    leader, ticks = state.get("ray"), state.get("ray_ticks")
    if leader and (lives(leader, ticks) or not lives(leader, None)):  # killed, and what Ray started went on
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGTERM if leaving and told else signal.SIGKILL)
    if leaving:
        names = ("node.key", "node.crt", "ca.crt", "ca.key", "revoked.crl", "ray.token", "node.json", "tokens.json",
                 "nodes.json", "revoked.json")  # fmt: skip
        for name in names:
            (place.folder / name).unlink(missing_ok=True)
    return told


def _first_answers(place: Place, state: Mapping[str, Any]) -> bool:
    """Whether the first node's directory and door shake hands: a process that is stopped does not."""
    try:
        for address in (state["gcs"], state["peer"]):
            handshake(place, *split(address))
    except (OSError, FinllmError):
        return False
    return True


def running(state: Mapping[str, Any]) -> bool:
    """Whether the node's process lives."""
    return bool(state.get("pid")) and lives(state["pid"], state.get("ticks"))


def note_process(place: Place) -> None:
    """Say that this process is the home's node."""
    place.keep_state({**place.state(), "pid": os.getpid(), "ticks": ticks_of(os.getpid()), "ready": False})


def own_address(address: str) -> str:
    """The address by which this machine reaches another; one of its own for each node on a machine alone."""
    host, port = split(address)
    if host.startswith("127."):
        return f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(2, 254)}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))
        return str(probe.getsockname()[0])


def _vacant(settings: Settings, name: str) -> Place:
    place = Place(settings.cluster_dir)
    if not NAME.match(name):
        raise InputError(f"{name!r} is no name of a node", fix="use a-z, 0-9 and -")
    if place.state_path.exists():
        raise InputError(f"this home is in the cluster at {place.state()['address']} already",
                         fix="run 'finllm cluster leave' first")  # fmt: skip
    return place


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
