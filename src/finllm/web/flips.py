"""What would flip a result, as a page shows it: the explanation on record, or how far one is that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finllm.web.doors import Asked

EXPLAINED = 50
"""Rows of the ledger after which it is looked for an explanation of a run again."""
SHOWN = ("What would flip", "What drove", "What would change")
"""Beginnings of the titles of what is shown of it; the rest is in 'finllm explain'."""


def flips_of(asked: Asked, run: str) -> dict[str, Any]:
    """`chapters` of the explanation on record, and whether it is `complete`; `going`: how far one is."""
    from finllm.review.explanation import explanation_on_record

    ledger, made, going = asked.serving.ledger, asked.serving.reports.made, asked.serving.explaining.now(run)
    at = going.at if going else 0
    found = made.get(("explained", run, ledger.last_use() // EXPLAINED, at), lambda: explanation_on_record(run, ledger))
    chapters = [] if found is None else [one for one in found.chapters if one.title.startswith(SHOWN)]
    return {"chapters": chapters, "complete": found is not None and found.complete, "going": going}
