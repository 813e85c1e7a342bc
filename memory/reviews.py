"""Versions put to review: which run, by the digest of its report, who asks and why; what a reviewer is shown first."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from finllm.memory.ledger import Ledger
from finllm.memory.reading import LedgerReader
from finllm.scheduler.placement.task import canonical, key_of
from finllm.scheduler.record import Entry, EntryKind
from finllm.tools.evidence import sha256_of

REVIEW = EntryKind("review")
"""A version that somebody put to review."""
NODE = "review"


class ReviewRow(BaseModel):
    """`report_sha256`: of the report as it was put; a run whose report has another is not what was put to review.

    `minutes`: the session's minutes as Markdown, of the moment. `who` put it cannot review it.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    session: str
    version: int
    run: str
    report_sha256: str
    who: str
    why: str
    at: str
    minutes: str = ""

    @property
    def id(self) -> str:
        return f"r-{self.number}"


def report_digest(result: dict[str, object]) -> str:
    """Hex sha256 of a report without what it cost, which is no part of what was found."""
    return sha256_of(canonical({name: value for name, value in result.items() if name != "spent"}))


def put_to_review(row: ReviewRow, ledger: Ledger) -> ReviewRow:
    """Keep it under the first free number from its own on; the row as it was kept."""
    while True:
        said = row.model_dump(mode="json")
        key = _key(row.number)
        entry = Entry(key, REVIEW, row.who, {"number": row.number}, said)
        ledger.record(entry, run_id=row.session, node=NODE)
        kept = ledger.lookup(key)
        if kept is None or kept.response == said:
            return row
        row = row.model_copy(update={"number": row.number + 1})


def next_number(ledger: LedgerReader) -> int:
    number = 1
    while ledger.lookup(_key(number)) is not None:
        number += 1
    return number


def reviews(ledger: LedgerReader) -> list[ReviewRow]:
    """Everything that was put to review, the first one first."""
    found: list[ReviewRow] = []
    while (entry := ledger.lookup(_key(len(found) + 1))) is not None:
        found.append(ReviewRow.model_validate(entry.response))
    return found


def _key(number: int) -> str:
    return key_of("review", {"number": number})
