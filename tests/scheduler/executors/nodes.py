"""Real nodes for tests and benchmarks: homes of their own on a tiny model, begun and joined by the commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.models.tiny import write_tiny_model

COMMAND = "from finllm.cli.main import main; raise SystemExit(main())"


class Nodes:
    """A cluster on this machine under `folder`, each node with a home, an address and processes of its own."""

    def __init__(self, folder: Path, *, embedded: bool = False) -> None:
        """`embedded`: on the embedded model, with its adapter."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        tiny = None if embedded else write_tiny_model(folder / "tiny.gguf", context=4096)
        self._model = {} if tiny is None else {"FINLLM_MODEL": str(tiny), "FINLLM_ADAPTER": "none"}
        self.names = list[str]()
        self.address = ""

    def environment(self, name: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("FINLLM_", "RAY_"))}
        here = {"FINLLM_HOME": str(self.folder / name), "FINLLM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        return kept | here | self._model

    def finllm(self, name: str, *args: str, check: bool = True, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a node's home; `settings` are further FINLLM_ variables."""
        env = self.environment(name) | {f"FINLLM_{key.upper()}": value for key, value in settings.items()}
        done = subprocess.run([sys.executable, "-c", COMMAND, *args], env=env, capture_output=True, text=True,
                              timeout=400, check=False)  # fmt: skip
        assert not check or done.returncode == 0, f"{args}: {done.stdout[-800:]}{done.stderr[-800:]}"
        return done

    def begin(self, name: str, *args: str) -> None:
        self.names.append(name)
        self.address = json.loads(self.finllm(name, "cluster", "init", "--name", name, *args, "--json").stdout)[
            "cluster"
        ]

    def token(self, first: str) -> Path:
        path = self.folder / f"token-{time.time_ns()}"
        self.finllm(first, "cluster", "token", "--out", str(path))
        return path

    def join(self, name: str, *args: str) -> float:
        """Let a node in; s until it offered."""
        token, started = self.token(self.names[0]), time.monotonic()
        self.names.append(name)
        self.finllm(name, "cluster", "join", self.address, "--token-file", str(token), "--name", name, *args)
        return time.monotonic() - started

    def status(self, name: str) -> dict[str, dict[str, Any]]:
        found = json.loads(self.finllm(name, "cluster", "status", "--json").stdout)
        return {node["name"]: node for node in found["nodes"]}

    def leave(self, name: str) -> None:
        self.names.remove(name)
        self.finllm(name, "cluster", "leave")

    def processes(self, name: str, words: str) -> list[int]:
        """The ids of a node's processes whose command line begins with these words."""
        found: list[int] = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                command = (path / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                home = f"FINLLM_HOME={self.folder / name}\0".encode()
                if command.startswith(words) and home in (path / "environ").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def strike(self, name: str, words: str, number: signal.Signals) -> int:
        """Send a signal to a node's processes of that kind; how many there were."""
        found = self.processes(name, words)
        for pid in found:
            os.kill(pid, number)
        return len(found)

    def close(self) -> None:
        """End every node, the first one last; what does not end is killed, by id."""
        for name in reversed(self.names):
            for pid in self.processes(name, ""):
                os.kill(pid, signal.SIGCONT)
            self.finllm(name, "cluster", "leave", check=False)
        for name in self.names:
            for pid in self.processes(name, ""):
                if pid != os.getpid():
                    os.kill(pid, signal.SIGKILL)
        self.names.clear()
