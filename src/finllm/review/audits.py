"""What blind audits found: how often the second verdict agrees, with its interval, and which planted faults were seen.

It is the audit of the machine's reviewers, and of its auditors: by person, by fault, and by month.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from finllm.memory.review_record import ReviewRecord
from finllm.memory.review_rules import Item
from finllm.scheduler.calibration.measured import wilson


@dataclass(frozen=True)
class Outcome:
    """One audit that is over. `agrees`: whether the version was right to be approved (drawn), or `found` whether the
    planted `fault` was; `said` what the auditor sent it back for, None where they signed. `first`: who had signed.
    """

    item: str
    month: str
    auditor: str
    said: str | None
    first: tuple[str, ...] = ()
    agrees: bool | None = None
    fault: str | None = None
    found: bool | None = None


@dataclass(frozen=True)
class Share:
    """`k` of `n`, with Wilson's 95 % interval (1927); the whole range without any."""

    k: int
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.k / self.n if self.n else 0.0, self.n)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.k} of {self.n} [{low:.2f}, {high:.2f}]" if self.n else "none yet"

    def to_json(self) -> dict[str, object]:
        return {"k": self.k, "n": self.n, "interval": list(self.interval)}


@dataclass(frozen=True)
class Audits:
    """All audits of a home. `open`: how many wait. `upheld`: by first signer, whose signatures the audit agreed with;
    `seen`: by auditor, the planted faults found; `by_fault`, `by_month`: the same over faults, agreement over months.
    """

    open: int
    outcomes: tuple[Outcome, ...]
    agreement: Share
    found: Share
    upheld: dict[str, Share]
    seen: dict[str, Share]
    by_fault: dict[str, Share]
    by_month: dict[str, Share]

    def to_json(self) -> dict[str, object]:
        tables = {"upheld": self.upheld, "seen": self.seen, "by_fault": self.by_fault, "by_month": self.by_month}
        return {
            "open": self.open, "agreement": self.agreement.to_json(), "found": self.found.to_json(),
            **{name: {one: share.to_json() for one, share in table.items()} for name, table in tables.items()},
            "outcomes": [vars(one) for one in self.outcomes],
        }  # fmt: skip


def audits_of(record: ReviewRecord) -> Audits:
    """What the audits on record found. An open one, and what it hides, is only counted."""
    items = record.items()
    audits = [item for item in items.values() if item.row.audit is not None]
    over = tuple(_outcome(item, items) for item in audits if item.ended in ("approved", "sent back"))
    drawn = [one for one in over if one.agrees is not None]
    planted = [one for one in over if one.found is not None]
    return Audits(
        open=sum(item.ended is None for item in audits), outcomes=over,
        agreement=_share(one.agrees for one in drawn), found=_share(one.found for one in planted),
        upheld=_by([(name, one.agrees) for one in drawn for name in one.first]),
        seen=_by([(one.auditor, one.found) for one in planted]),
        by_fault=_by([(one.fault or "", one.found) for one in planted]),
        by_month=_by([(one.month, one.agrees) for one in drawn]),
    )  # fmt: skip


def told(audits: Audits) -> list[str]:
    """The audits as lines of text, the two figures first."""
    tables = (("signatures upheld", audits.upheld), ("faults found by", audits.seen), ("faults", audits.by_fault),
              ("agreement in", audits.by_month))  # fmt: skip
    return [
        f"agreement: {audits.agreement}",
        f"planted faults found: {audits.found}",
        *(f"{title} {name}: {share}" for title, table in tables for name, share in table.items()),
        *(_line(one) for one in audits.outcomes),
        f"open: {audits.open}",
    ]


def _line(one: Outcome) -> str:
    said = f"sent back for {one.said}" if one.said else "signed"
    what = "exercise" if one.agrees is None else f"approved by {', '.join(one.first)}"
    return f"{one.item}: {what}{f', fault {one.fault}' if one.fault else ''}; {one.auditor} {said}"


def _outcome(item: Item, items: dict[int, Item]) -> Outcome:
    last = next(one for one in reversed(item.events) if one.what in ("signed", "sent back"))
    said = str(last.about) if last.what == "sent back" else None
    audit, month = item.row.audit, last.at[:7]
    if audit is not None and audit.kind == "drawn" and audit.of is not None:
        first = tuple(one.by for one in items[audit.of].signatures)
        return Outcome(item.id, month, last.by, said, first, agrees=said is None)
    hidden = next((json.loads(one.reason) for one in item.events if one.what == "revealed"), None)
    fault = None if hidden is None else str(hidden["fault"])
    return Outcome(item.id, month, last.by, said, fault=fault, found=None if fault is None else said == fault)


def _by(pairs: Sequence[tuple[str, bool | None]]) -> dict[str, Share]:
    found: dict[str, list[bool | None]] = defaultdict(list)
    for name, right in pairs:
        found[name].append(right)
    return {name: _share(found[name]) for name in sorted(found)}


def _share(rights: Iterable[bool | None]) -> Share:
    told = list(rights)
    return Share(sum(bool(one) for one in told), len(told))
