"""Processes of sessions that are let go end, with all the memory that they hold."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from finllm.processes import lives
from finllm.settings import Settings
from finllm.web.at_work import AtWork
from tests.web.conftest import WAIT


def waits(pipe: Connection, who: str, start: Mapping[str, Any], settings: Settings) -> None:
    """As a session that has answered: it waits for the next line until the desk lets go."""
    del who, settings
    pipe.send({"session": start["start"], "busy": ""})
    with contextlib.suppress(EOFError):
        pipe.recv()


def test_a_session_s_process_ends_when_it_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finllm.web.session_process.work", waits)
    desk = AtWork(Settings(home=tmp_path))
    until = time.monotonic() + WAIT
    desk.begin("risk1", {"start": "s-1"}, "a story")
    while (now := desk.now("s-1")) is None or now.busy:
        assert time.monotonic() < until
        time.sleep(0.02)
    process = desk._of["s-1"].process  # pyright: ignore[reportPrivateUsage]
    assert lives(process.pid, None)
    desk.close()
    process.join(WAIT)
    assert process.exitcode == 0
