"""How each kind of question is answered: a reader takes the teller of one answer and says its sentences.

A reader is found by the kind's id: `READERS` is filled from the modules of this folder.
"""

from __future__ import annotations

from collections.abc import Callable

from finllm.chat.readers import about, book, judged, past, result, rules, shocks, sources
from finllm.chat.table import Answer, Teller

Reader = Callable[[Teller], Answer]

READERS: dict[str, Reader] = {
    **result.READERS, **judged.READERS, **shocks.READERS, **past.READERS, **sources.READERS, **rules.READERS,
    **book.READERS, **about.READERS,
}  # fmt: skip
"""By the id of a kind, who answers it."""

__all__ = ["READERS", "Reader"]
