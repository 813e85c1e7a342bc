"""Ray's processes on this machine, started under the cluster's certificates and ended together."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finllm.errors import BackendError
from finllm.scheduler.cluster.door import reachable
from finllm.scheduler.cluster.knock import split
from finllm.scheduler.cluster.place import Place

NAMESPACE = "finllm"
SERVE = ("-c", "from finllm.cli.main import main; raise SystemExit(main())", "cluster", "serve")
"""What Python is started with to be a home's node."""
STARTING = 60.0
"""Longest wait for Ray's processes, s."""
WITHOUT_FIRST = 86_400
"""s for which Ray's processes go on without the first node, which keeps their directory: calls need it not."""
YOUNG = 10.0
"""s for which a folder is left alone though no process names it: its Ray may be about to start."""
STORE = 80_000_000
"""Bytes of Ray's object store: calls and answers are a few kB."""


def ray_environment(place: Place) -> dict[str, str]:
    """What makes Ray's own connections mutual TLS by the cluster's authority, and ask its services for their token."""
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(place.certificate_path),
        "RAY_TLS_SERVER_KEY": str(place.key_path),
        "RAY_TLS_CA_CERT": str(place.ca_path),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(place.secret_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(WITHOUT_FIRST),
    }


def fresh_folder(under: Path = Path("/tmp")) -> Path:
    """A folder for what a cluster's Ray keeps on this machine. Those that killed clusters left behind are removed."""
    for left in under.glob("finllm-ray-*"):
        with contextlib.suppress(OSError):  # another's, or it has just gone
            ours = left.lstat()
            if ours.st_uid == os.getuid() and time.time() - ours.st_mtime > YOUNG and not _named(str(left)):
                shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix="finllm-ray-", dir=under))


def _named(folder: str) -> bool:
    """Whether a process works in a folder: Ray's all have it on their command lines."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"{folder}/".encode() in path.read_bytes().replace(b"\0", b"/") + b"/":
                return True
    return False


@dataclass(frozen=True)
class RayProcesses:
    """`ray start --block` and what it started, in a session of their own."""

    process: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls, place: Place, *, host: str, gcs: str, first: bool, labels: Mapping[str, str], temp: Path | None
    ) -> RayProcesses:
        """Start a node at `host`: the first of a cluster at `gcs` (HOST:PORT), or one more of it.

        Errors: BackendError where Ray is not installed, or does not come up.
        """
        at, port = split(gcs)
        told = ",".join(f"{name}={value}" for name, value in sorted(labels.items()) if value)
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={host}",
            "--num-cpus=1", f"--object-store-memory={STORE}", "--disable-usage-stats",
            "--include-log-monitor=false", f"--labels={told}",
        ]  # fmt: skip
        if first:
            command += ["--head", f"--port={port}", "--include-dashboard=false", "--no-monitor"]
            command += [f"--temp-dir={temp}"]
        else:
            command += [f"--address={gcs}"]
        with place.log_path.with_name("ray.log").open("ab") as log:
            process = subprocess.Popen(command, env={**os.environ, **ray_environment(place)}, stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log, start_new_session=True)  # fmt: skip
        started = cls(process)
        started._wait(place, at, port)
        return started

    def stop(self, seconds: float = 10.0) -> None:
        """End all of them. Stopping again does nothing."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _wait(self, place: Place, host: str, port: int) -> None:
        log = place.log_path.with_name("ray.log")
        ends = time.monotonic() + STARTING
        while time.monotonic() < ends:
            if self.process.poll() is not None:
                break
            if reachable(host, port, 1.0) and b"will now block" in log.read_bytes()[-4000:]:
                return
            time.sleep(0.2)
        self.stop()
        raise BackendError(
            f"Ray does not start; its last words are in {str(log)!r}",
            fix="read them; is 'finllm[cluster]' installed, and can HOST be reached?",
        )


def the_ray() -> Any:
    """Ray, imported where it is needed; its own annotations are partial. Errors: ImportError."""
    return importlib.import_module("ray")
