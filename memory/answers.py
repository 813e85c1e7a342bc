"""What a person answered to a run's question: a row of the ledger, before it counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finllm.scheduler.placement.task import key_of
from finllm.scheduler.record import Entry, EntryKind

HUMAN = EntryKind("human")


def answer_key(run_id: str, question: Mapping[str, Any]) -> str:
    """Where the answer to a run's question is on record."""
    return key_of("human", {"run": run_id, "question": question})


def answer_entry(run_id: str, question: dict[str, Any], response: dict[str, Any], by: str = "person") -> Entry:
    """The row of an answer: `response` holds it under `answer`."""
    return Entry(answer_key(run_id, question), HUMAN, by, question, response)
