"""Two runs on record, made once: the model is scripted, everything else is real."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from finllm.chat.chat import Chat
from finllm.chat.intent import Intent
from finllm.chat.opening import open_table
from finllm.chat.table import Table
from finllm.desk.desk import assemble
from finllm.events import EventBus
from finllm.guardrails.audit.reading import open_reading
from finllm.guardrails.audit.recorder import open_recorder
from finllm.memory.knowledge import KnowledgeBase
from finllm.settings import Settings
from finllm.testing import ScriptedBackend
from tests.desks import request_for, run
from tests.graphs.test_flow import READS_WELL
from tests.warm import Warm


@pytest.fixture(scope="session")
def chat_home(warm: Warm, shared_knowledge: KnowledgeBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which two scenarios were run, the blockade last."""
    home = tmp_path_factory.mktemp("chat-home")
    settings = Settings(home=home, encoder_cache=warm.shared.encoder_dir)
    ledger = open_recorder(settings)
    desk = replace(assemble(settings, EventBus(), ledger, [ScriptedBackend([READS_WELL], name="edge")]),
                   knowledge=shared_knowledge, embedder=warm.embedder, calibrations=warm.calibrations,
                   second=warm.second)  # fmt: skip
    run(request_for("hawkish-surprise"), desk, "run-hawkish")
    run(request_for("hormuz-blockade"), desk, "run-hormuz")
    ledger.close()
    return home


@pytest.fixture
def table(chat_home: Path) -> Iterator[Table]:
    settings = Settings(home=chat_home)
    with open_reading(settings, print) as ledger:
        yield open_table(ledger, settings)


@pytest.fixture
def chat(table: Table, warm: Warm) -> Chat:
    return Chat(table, Intent(warm.embedder.embed, warm.embedder.digest))
