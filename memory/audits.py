"""Which approved versions are audited blind: one of every k, drawn by the audit log's own root: nobody chose it.

The root is that of the log once the last of the k was approved: it is not known before, and whoever has the log can
draw again and must find the same.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from finllm.memory.ledger import Tip
from finllm.memory.review_record import ReviewRecord
from finllm.memory.review_rows import AuditRow, ReviewRow
from finllm.memory.review_rules import SYSTEM


def drawn(root: str, among: tuple[int, ...]) -> int:
    """Which of these items is audited: by sha256 of the log's root and of the items."""
    seed = sha256(f"{root}:{','.join(map(str, among))}".encode()).digest()
    return among[int.from_bytes(seed, "big") % len(among)]


def who_saw(record: ReviewRecord, number: int) -> set[str]:
    """Who made an item, signed it or looked at it: none of them audits it blind."""
    item = record.get(number)
    return {*item.row.makers, item.row.who, *(one.by for one in item.events if one.by != SYSTEM),
            *(look.by for look in record.looks(number))}  # fmt: skip


def drawn_now(
    record: ReviewRecord, every: int, tip: Callable[[], Tip], now: Callable[[], str]
) -> ReviewRow | None:  # fmt: skip
    """The next audit that is due, under the first free number; None where none is. `every` 0: never."""
    items = record.items()
    done = {number for one in items.values() if one.row.audit for number in one.row.audit.among}
    among = tuple(number for number in record.approved if number not in done and items[number].row.audit is None)[
        :every
    ]
    if every == 0 or len(among) < every:
        return None
    at = tip()
    of = drawn(at.root, among)
    makers = tuple(sorted(who_saw(record, of)))
    return items[of].row.model_copy(update={
        "number": 1 + max(items), "who": SYSTEM, "why": "blind audit", "at": now(), "makers": makers,
        "needs": 1, "follows": None, "back_to": None, "log_size": at.size, "log_root": at.root,
        "audit": AuditRow(kind="drawn", of=of, among=among, size=at.size, root=at.root),
    })  # fmt: skip
