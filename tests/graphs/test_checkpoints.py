"""The checkpointer: LangGraph's own conformance suite passes on it, and a poisoned checkpoint is refused."""

from __future__ import annotations

import os
import pickle
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import ormsgpack
import pytest
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from finllm.errors import RecordError
from finllm.graphs.desk import Desk
from finllm.graphs.flow import plain_serde
from tests.conftest import bounded
from tests.graphs.conftest import go_on, request_for, run
from tests.graphs.test_flow import READS_BADLY

MakeDesk = Callable[..., Desk]


def test_the_saver_passes_langgraph_s_conformance_suite(tmp_path: Path) -> None:
    @checkpointer_test(name="finllm")
    async def saver() -> AsyncGenerator[AsyncSqliteSaver, None]:
        async with aiosqlite.connect(tmp_path / f"{os.urandom(4).hex()}.sqlite") as connection:
            found = AsyncSqliteSaver(connection, serde=plain_serde())
            await found.setup()
            yield found

    report = bounded(validate(saver))
    base = {name: result for name, result in report.results.items() if result.passed is not None}
    print({name: (r.tests_passed, r.tests_failed) for name, r in base.items()})
    assert report.passed_all_base(), [r.failures for r in report.results.values()]
