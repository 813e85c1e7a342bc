"""A run's rows of evidence found again by all of its tools, on the record; no model is asked and nothing is written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from finllm.desk.desk import Desk, assemble
from finllm.events import EventBus
from finllm.guardrails.audit.reading import open_recorded
from finllm.memory.knowledge import KnowledgeBase
from finllm.review.replay import replay
from finllm.settings import Settings
from finllm.tools.evidence import Evidence

_ROWS = TypeAdapter(tuple[Evidence, ...])


def rebuilt_values(run_id: str, settings: Settings) -> Mapping[str, float | str]:
    """The value of each row by its id, as every tool of the run finds it now from what is on record: takes seconds.

    What encoders made of a text may be remembered. Errors: those of `replay`: ReplayRefused where anything that the run
    stood on is not as it was.
    """
    with record_desk(run_id, settings) as desk:
        state = asyncio.run(replay(run_id, desk, afresh=False)).state
    return {row.id: row.value for row in _ROWS.validate_python(state["evidence"])}


@contextlib.contextmanager
def record_desk(run_id: str, settings: Settings) -> Generator[Desk]:
    """A desk without a model, on a ledger that is only read: a replay answers from what the run used."""
    with open_recorded(settings, run_id) as ledger, _writable(settings.knowledge_dir) as knowledge:
        desk = assemble(settings, EventBus(), ledger, [])
        yield replace(desk, knowledge=KnowledgeBase(knowledge, desk.embedder))


@contextlib.contextmanager
def _writable(folder: Path) -> Generator[Path]:
    """The folder, or a copy of it where it may not be written: Chroma opens no store without that."""
    if os.access(folder if folder.exists() else folder.parent, os.W_OK):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="finllm-knowledge-") as copies:
        copy = Path(copies) / folder.name
        if folder.exists():
            shutil.copytree(folder, copy, copy_function=shutil.copyfile)
            for part in (copy, *copy.rglob("*")):
                part.chmod(0o700)
        yield copy
