"""A recorder in memory, and the real ledger: what holds for one holds for the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finllm.memory.ledger import Ledger
from finllm.scheduler.record import Recorder
from finllm.testing import MemoryRecorder


@pytest.fixture(params=["memory", "ledger"])
def recorder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Recorder]:
    if request.param == "memory":
        yield MemoryRecorder()
    else:
        ledger = Ledger(tmp_path / "ledger.sqlite")
        yield ledger
        ledger.close()
