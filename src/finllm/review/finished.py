"""A finished run's state and surroundings, for tools alone: read from its checkpoint, held against the record.

A replay rebuilds the state from the record, which takes seconds; the checkpoint has it at once, and is believed only
where every part of it has the digest that the run recorded when it found it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from finllm.desk.desk import Desk, RunContext
from finllm.desk.request import RunRequest
from finllm.errors import InputError
from finllm.events import EventBus
from finllm.graphs.flow import state_of
from finllm.graphs.state import Finished
from finllm.memory.knowledge import KnowledgeBase
from finllm.memory.reading import LedgerReader, RunRow
from finllm.models.embedding import Embedder
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.settings import Settings
from finllm.tools.forecasts.calibrations import Calibrations
from finllm.tools.pnl.outcome import ENGINE


def finished_run(row: RunRow, ledger: LedgerReader, settings: Settings) -> tuple[Finished, RunContext]:
    """The state at the end of a run, and a context in which the tools compute on; no model can be asked in it.

    Errors: InputError where the run has no result, is of another engine, or where its checkpoint is gone or is not what
    is on record; RecordError.
    """
    if row.result is None:
        raise InputError(f"run {row.id!r} is {row.status}: it has no result", fix=f"finllm resume {row.id}")
    if row.result.get("engine") != ENGINE:
        raise InputError(f"run {row.id!r} was made by another version of the P&L engine", fix="run it again")
    run = _context(row.id, RunRequest.model_validate(row.request), ledger, settings)
    state = asyncio.run(state_of(run)) if settings.checkpoints_path.exists() else None
    if state is None:
        raise InputError(f"the checkpoint of run {row.id!r} is gone, or is not what is on record",
                         fix=f"'finllm explain {row.id}' rebuilds it from the record")  # fmt: skip
    return state, run


def _context(run_id: str, request: RunRequest, ledger: LedgerReader, settings: Settings) -> RunContext:
    embedder = Embedder()
    nobody: Any = None
    desk = Desk(settings=settings, bus=EventBus(), ledger=cast(Any, ledger), broker=nobody,
                knowledge=KnowledgeBase(settings.knowledge_dir, embedder), embedder=embedder,
                calibrations=Calibrations(settings.calibrations_dir))  # fmt: skip
    account = Account(Budget(), time.monotonic)
    return RunContext(desk, run_id, request, request.market(settings.data_dir), account)
