"""Opening a chat: the run that it is about, and the trained head that understands questions."""

from __future__ import annotations

from finllm.chat.chat import Chat
from finllm.chat.intent import Intent
from finllm.chat.table import Table
from finllm.errors import InputError
from finllm.memory.reading import LedgerReader
from finllm.models.embedding import Embedder
from finllm.settings import Settings

LISTED = 200
"""Newest runs among which the latest finished one is sought."""
_FIRST = "begin with one: finllm run hormuz-blockade"


def open_chat(ledger: LedgerReader | None, settings: Settings, run_id: str | None = None) -> Chat:
    """A chat about a run, or about the newest that has a result. Loads no model until a question is asked.

    Errors: InputError where there is no such run, or it has no result; RecordError.
    """
    embedder = Embedder()
    return Chat(open_table(ledger, settings, run_id), Intent(embedder.embed, embedder.digest))


def open_table(ledger: LedgerReader | None, settings: Settings, run_id: str | None = None) -> Table:
    """The run on the table. Errors: InputError, RecordError."""
    if ledger is None:
        raise InputError("no run is on record: there is nothing to ask about", fix=_FIRST)
    if run_id is None:
        heads = [one for one in ledger.runs(LISTED) if one.status in ("finished", "blocked")]
        if not heads:
            raise InputError("no finished run is on record: there is nothing to ask about", fix=_FIRST)
        run_id = heads[0].id
    row = ledger.run(run_id)
    if row is None:
        raise InputError(f"no run {run_id!r}", fix="'finllm runs list' shows those on record")
    return Table(row, ledger, settings)
