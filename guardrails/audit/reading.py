"""The home's ledger, opened only to read, its rows held against the home's audit log."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from finllm.guardrails.audit.held import HeldToLog
from finllm.memory.database import Patience
from finllm.memory.reading import LedgerReader
from finllm.memory.recorded import RecordedLedger
from finllm.settings import Settings


@contextlib.contextmanager
def open_reading(settings: Settings, tell: Callable[[str], None] | None = None) -> Iterator[LedgerReader]:
    """The ledger; `tell` is told where another process has it locked. Errors: RecordError."""
    with contextlib.closing(LedgerReader(settings.ledger_path, Patience.of(settings, tell))) as ledger:
        ledger.hold_to(HeldToLog(settings.audit_dir, ledger.database))
        yield ledger


@contextlib.contextmanager
def open_recorded(settings: Settings, run_id: str) -> Iterator[RecordedLedger]:
    """The ledger as the record of one run. Errors: RecordError."""
    with contextlib.closing(RecordedLedger(settings.ledger_path, run_id)) as ledger:
        ledger.hold_to(HeldToLog(settings.audit_dir, ledger.database))
        yield ledger
