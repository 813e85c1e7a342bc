"""What the broker writes before anybody sees an answer: ledger entries, and the protocol of what keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NewType, Protocol

EntryKind = NewType("EntryKind", str)
"""What an entry is of, in one word. Each folder declares the kinds that it writes, once, beside what writes them:
pyright refuses a bare string in an entry, and a test refuses a kind that is declared twice."""

CALL = EntryKind("call")
PLACEMENT = EntryKind("placement")
FAILURE = EntryKind("failure")
"""A task that no backend answered."""
CHARGE = EntryKind("charge")
"""What a call cost that gave no answer."""


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
