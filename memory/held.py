"""What the ledger's rows are held against before they are believed: whoever knows what was once written of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from finllm.scheduler.record import Entry, EntryKind


@dataclass(frozen=True)
class EntryRow:
    """An entry as its row has it: `request` and `response` are the JSON text itself, which digests are taken of."""

    key: str
    kind: str
    actor: str
    request: str
    response: str

    def entry(self) -> Entry:
        """Errors: ValueError where a text is no JSON."""
        return Entry(self.key, EntryKind(self.kind), self.actor, json.loads(self.request), json.loads(self.response))


@dataclass(frozen=True)
class UseRow:
    """A use as its row has it: its number, the node, whether the entry was there before, and the entry."""

    id: int
    node: str
    reused: bool
    entry: EntryRow


class RowCheck(Protocol):
    """Knows what was written of a row when it was new. Errors, of everything here: RecordAltered for one that differs.

    A row that nothing is known of is not believed: its process died before its record was written, or somebody else
    put it there.
    """

    def entry(self, row: EntryRow) -> bool:
        """Whether the row is on record as it stands."""
        ...

    def look(self) -> None:
        """See what is on record now: before rows are read of which none may be missing."""
        ...

    def uses(self, run_id: str, rows: Sequence[UseRow]) -> list[UseRow]:
        """Those of all rows of a run that are on record. One that was on record at the last look must have its row."""
        ...

    def run(self, run_id: str, request: str, result: str | None) -> None:
        """The run's request and report, as JSON text, are those on record."""
        ...
