"""All reviews of a ledger as they stand: items by number with what was said of them, and who looked."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from pydantic import ValidationError

from finllm.errors import InputError, RecordError
from finllm.memory.chain import Chain
from finllm.memory.reading import LedgerReader
from finllm.memory.review_rows import REVIEW, Look, ReviewEvent, ReviewRow
from finllm.memory.review_rules import Item, after
from finllm.scheduler.record import Entry


class ReviewRecord:
    """Items, folded as their rows come in. Thread-safe; several processes may write. Errors: RecordError."""

    def __init__(self, ledger: LedgerReader) -> None:
        self._chain = Chain(ledger, REVIEW, "review")
        self._lock = threading.RLock()
        self._read = 0
        self._items: dict[int, Item] = {}
        self._rows: dict[int, int] = {}
        self._early: dict[tuple[int, int], ReviewEvent] = {}
        self._looks: dict[int, list[Look]] = {}
        self._audits: dict[int, list[int]] = {}
        """The audits of an item, by its number."""
        self.approved: list[int] = []
        """Items in the order in which they were approved, whatever became of them since."""

    def items(self) -> dict[int, Item]:
        """All items by number, the first one first."""
        with self._lock:
            rows = self._chain.rows()
            for entry in rows[self._read :]:
                self._take(entry)
            self._read = len(rows)
            return dict(self._items)

    def get(self, id: str | int) -> Item:
        """One item, by its number or as `r-118`. Errors: InputError where there is none."""
        said = str(id).removeprefix("r-")
        found = self.items().get(int(said)) if said.isascii() and said.isdigit() else None
        if found is None:
            raise InputError(f"no review {id!r}", fix="'finllm review list --all' shows those on record")
        return found

    def open_audits_of(self, number: int) -> list[Item]:
        """The blind audits of an item that have no verdict yet."""
        with self._lock:
            return [self._items[one] for one in self._audits.get(number, ()) if self._items[one].ended is None]

    def looks(self, number: int) -> list[Look]:
        """Who looked at an item, the first look first."""
        with self._lock:
            self.items()
            return list(self._looks.get(number, ()))

    def put(self, row: ReviewRow) -> bool:
        """Put an item on record under its number; False where that number is taken."""
        return self._chain.append({"number": row.number}, row.who, row.model_dump(mode="json"), row.id)

    def append(self, item: Item, event: ReviewEvent) -> bool:
        """Put an event behind those that made `item` what it is; False where another was first."""
        with self._lock:
            at = self._rows.get(item.row.number, 0)
            if self._items.get(item.row.number) is not item:
                return False
        said = event.model_dump(mode="json", exclude_defaults=True)
        return self._chain.append({"number": item.row.number, "row": at}, event.by, said, item.id)

    def look(self, number: int, look: Look) -> None:
        """Put on record that somebody looked at an item; nothing where that look is on record already."""
        while look not in (known := self.looks(number)):
            place = {"number": number, "look": len(known)}
            self._chain.append(place, look.by, look.model_dump(), f"r-{number}")

    def _take(self, entry: Entry) -> None:
        number = int(entry.request["number"])
        try:
            if "look" in entry.request:
                self._looks.setdefault(number, []).append(Look.model_validate(entry.response))
            elif "row" in entry.request:
                self._early[number, int(entry.request["row"])] = ReviewEvent.model_validate(entry.response)
                self._fold(number)
            else:
                row = ReviewRow.model_validate(entry.response)
                self._items[number] = Item(row)
                if row.audit is not None and row.audit.of is not None:
                    self._audits.setdefault(row.audit.of, []).append(number)
                self._fold(number)
        except ValidationError as error:
            raise RecordError(f"a row of review r-{number} cannot be read: {error}",
                              fix="see 'finllm audit verify'") from error  # fmt: skip

    def _fold(self, number: int) -> None:
        """Take in the events whose turn it is: a row of another process may have been read before its item's."""
        while (item := self._items.get(number)) is not None:
            event = self._early.pop((number, self._rows.get(number, 0)), None)
            if event is None:
                return
            self._rows[number] = self._rows.get(number, 0) + 1
            self._items[number] = after(item, event)
            if self._items[number].ended == "approved" and item.ended is None:
                self.approved.append(number)


def reviews(ledger: LedgerReader) -> list[ReviewRow]:
    """Everything that was put to review, the first one first; not blind audits."""
    return [item.row for item in ReviewRecord(ledger).items().values() if item.row.audit is None]


def broken(ledger: LedgerReader) -> Iterator[str]:
    """What is on record of reviews and never came through their rules. Errors: RecordError."""
    for item in ReviewRecord(ledger).items().values():
        yield from (f"review {item.id}: {one}" for one in item.refused)
