"""What would flip a result, as a page shows it: the explanation on record, or how far one is that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finllm.web.doors import Asked

SHOWN = ("What would flip", "What drove", "What would change")
"""Beginnings of the titles of what is shown of it; the rest is in 'finllm explain'."""


def flips_of(asked: Asked, run: str) -> dict[str, Any]:
    """`chapters` of the explanation on record, and whether it is `complete`; `going`: how far one is."""
    from finllm.review.explanation import Explanation, explanation_in

    ledger, made, going = asked.serving.ledger, asked.serving.reports.made, asked.serving.explaining.now(run)
    rows = ledger.count_uses(run)

    def read() -> tuple[Explanation | None, int]:
        uses = ledger.uses(run)
        return explanation_in(uses), len(uses)

    key = ("explained", run, rows, going.at if going else 0)
    found, _ = made.get(key, read, keep=lambda one: one[1] == rows)  # one that is not on record yet is looked for again
    chapters = [] if found is None else [one for one in found.chapters if one.title.startswith(SHOWN)]
    return {"chapters": chapters, "complete": found is not None and found.complete, "going": going}
