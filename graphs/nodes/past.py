"""A past event as a row of evidence, once however often it is called upon."""

from __future__ import annotations

import datetime as dt
from functools import cache

from finllm.memory.precedents import PRECEDENTS_PATH, Precedent
from finllm.tools.evidence import EvidenceTable, Source, sha256_of

PAST_EVENT = "past event"


def told(past: Precedent) -> str:
    """A past event in a line: its title, and where the factors went."""
    return f"{past.title}: {', '.join(f'{factor} {direction}' for factor, direction in past.factors.items())}"


def past_row(past: Precedent, table: EvidenceTable, as_of: dt.date) -> str:
    """The id of the event's row, which is added where the table has none."""
    for row in table:
        if row.what == PAST_EVENT and row.source is not None and row.source.pointer == past.id:
            return row.id
    source = Source(uri=f"finllm:memory/{PRECEDENTS_PATH.name}", sha256=_file(), pointer=past.id)
    return table.add(told(past), "text", entity="knowledge base", what=PAST_EVENT, period=f"{past.start} to {past.end}",
                     as_of=as_of, source=source)  # fmt: skip


@cache
def _file() -> str:
    return sha256_of(PRECEDENTS_PATH.read_bytes())
