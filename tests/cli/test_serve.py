"""`finllm serve` as a process: what it says with --json, and how it ends; a real server on a home with users."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import LONGEST_RUN
from tests.memory.desks import home_at


@contextmanager
def serving(home: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "finllm.cli.main", "serve", "--port", str(port), "--json"]
    with subprocess.Popen(command, env={**os.environ, "FINLLM_HOME": str(home)}, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, start_new_session=True) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_json_is_one_object_said_once_it_listens_also_where_it_is_stopped(
    tmp_path: Path, port: int, sent: signal.Signals, code: int
) -> None:
    with home_at(tmp_path):
        pass
    with serving(tmp_path, port) as process:
        assert process.stdout is not None
        said = ""
        while not said.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.communicate()
            said += line
        address = json.loads(said)["address"]
        assert httpx.get(f"{address}/sign-in").status_code == 200
        process.send_signal(sent)
        out, err = process.communicate(timeout=LONGEST_RUN)
    assert out == ""
    assert process.returncode == code
    assert "interrupted" in err


def test_json_is_the_error_alone_where_it_never_listens(tmp_path: Path, port: int) -> None:
    with home_at(tmp_path), socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with serving(tmp_path, port) as process:
            out, _ = process.communicate(timeout=LONGEST_RUN)
    assert process.returncode == 2
    assert "cannot be listened on" in json.loads(out)["error"]["message"]
