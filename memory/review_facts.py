"""What the record says of a version that is put to review: who had a hand in it, what makes it grave, its digest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finllm.memory.answers import HUMAN
from finllm.memory.reading import LedgerReader
from finllm.memory.sessions import OpenedRow, session_rows
from finllm.scheduler.placement.task import canonical
from finllm.tools.evidence import sha256_of

NOBODY = ("person", "a person")
"""What is on record where nobody said who they are."""


def report_digest(result: Mapping[str, object]) -> str:
    """Hex sha256 of a report without what it cost, which is no part of what was found."""
    return sha256_of(canonical({name: value for name, value in result.items() if name != "spent"}))


def makers_of(session: str, run: str, request: Mapping[str, Any], result: Mapping[str, Any],
              ledger: LedgerReader) -> tuple[str, ...]:  # fmt: skip
    """Who made, edited or overrode something in a version, in whatever session, by the names on record."""
    found = [*_of_session(session, ledger, set()), *_by_hand(result), *_answered(run, ledger)]
    lineage = request.get("scenario", {}).get("lineage")
    if lineage:
        found += [lineage["by"], *_of_session(lineage["session"], ledger, set())]
    return tuple(sorted({name for name in found if name and name not in NOBODY}))


def grave_of(run: str, result: Mapping[str, Any], ledger: LedgerReader) -> tuple[str, ...]:
    """What makes a version need more than one signature: a breach, a rule that blocks, a human judgement."""
    blocking = [f"rule {one['rule']} blocks" for one in result.get("findings", ()) if one["verdict"] == "block"]
    if not blocking and "block" in (result.get("compliance"), str(result.get("status")).removesuffix("ed")):
        blocking = ["compliance blocks"]
    judged = [f"{one['about']}: {one['decided']}, by {one['by']}" for one in result.get("hand", ())]
    answered = [f"a dispute was answered by {name}" for name in _answered(run, ledger)]
    breached = [f"limit breached: {line}" for line in result.get("breaches", ())]
    return (*breached, *blocking, *judged, *answered)


def _by_hand(result: Mapping[str, Any]) -> list[str]:
    rows: Sequence[Mapping[str, Any]] = result.get("hand", ())
    return [str(row["by"]) for row in rows]


def _answered(run: str, ledger: LedgerReader) -> list[str]:
    return [use.entry.actor for use in ledger.uses(run, HUMAN)]


def _of_session(session: str, ledger: LedgerReader, seen: set[str]) -> Iterator[str]:
    """Everybody who did something in a session, or in one that it was forked from."""
    if session in seen:
        return
    seen.add(session)
    for row in session_rows(session, ledger):
        yield row.who
        if isinstance(row, OpenedRow) and row.forked is not None:
            yield from _of_session(row.forked[0], ledger, seen)
