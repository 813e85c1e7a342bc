"""What the broker writes before anybody sees an answer: ledger entries, and the protocol of what keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

EntryKind = Literal[
    "call", "placement", "human", "failure", "inputs", "state", "batch", "explanation", "charge", "version"
]
"""`failure`: a task that no backend answered; `inputs`: digests of what a run stands on; `state`: that after a node;
`batch`: the runs of a batch, and that they have ended; `explanation`: what was told of a finished run;
`charge`: what a call cost that gave no answer; `version`: a run's next version, or what came of a draft of one."""


@dataclass(frozen=True)
class Entry:
    """One durable row. `key` is content-derived; `request` and `response` are JSON-able."""

    key: str
    kind: EntryKind
    actor: str
    request: dict[str, Any]
    response: dict[str, Any]


class Recorder(Protocol):
    """Keeps entries. It can veto: an answer that it could not write down is not given (RecordError)."""

    def lookup(self, key: str) -> Entry | None:
        """The entry at `key`, or None."""
        ...

    def record(self, entry: Entry, *, run_id: str, node: str) -> None:
        """Write a new entry and its first use by a run; durable when this returns."""
        ...

    def used(self, key: str, *, run_id: str, node: str) -> None:
        """Write that a run was answered from the entry at `key`."""
        ...
