"""The rules of reviews, in the one place that every door and every reading of the record goes through.

An item is what its rows make of it, one after the other, and a row that a rule refuses makes nothing: so what was put
on record past the doors does not count either. The rules know no exception for anybody, admins included.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from hashlib import sha256

from finllm.errors import ReviewRefused
from finllm.memory.review_rows import FAULTS, ReviewEvent, ReviewRow, State

REVIEWERS = ("reviewer", "auditor", "admin")
"""Roles that may review."""
SENIOR = ("auditor", "admin")
"""Those that may review what was escalated."""
SYSTEM = "finllm"
"""Who says what the rules themselves say: that the bytes changed, what an exercise hid."""
_REASONED = ("signed", "sent back", "escalated", "withdrawn", "void")
_REVIEWING = ("claimed", "kept", "released", "signed", "sent back", "escalated")
_CLOSED = ("approved", "sent back", "withdrawn", "void")


@dataclass(frozen=True)
class Item:
    """An item with what was said of it. `ended`: how, where it did; a claim is `claimed` until it runs out."""

    row: ReviewRow
    events: tuple[ReviewEvent, ...] = ()
    signatures: tuple[ReviewEvent, ...] = ()
    claim: ReviewEvent | None = None
    escalated: ReviewEvent | None = None
    ended: State | None = None
    refused: tuple[str, ...] = field(default=())
    """Rows on record that the rules refuse, and why; none where every one came through the rules."""

    @property
    def id(self) -> str:
        return self.row.id

    def claimed_by(self, now: str) -> str | None:
        """Who has it at that moment (ISO 8601, UTC)."""
        return (
            self.claim.by if self.claim is not None and self.ended is None and now < (self.claim.until or "") else None
        )

    def state(self, now: str) -> State:
        """How it stands at that moment."""
        if self.ended is not None:
            return self.ended
        if self.claimed_by(now) is not None:
            return "claimed"
        if self.escalated is not None:
            return "escalated"
        return "signed" if self.signatures else "waiting"


def moment_of(seconds: float) -> str:
    """s since 1970 as rows say it: text that sorts as time does."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds")


def refusal(item: Item, event: ReviewEvent) -> ReviewRefused | None:
    """Why the rules refuse that something is done with an item now; None where they do not."""
    if event.what in _REASONED and not event.reason.strip():
        return _no("reason", f"to say {event.what!r} of {item.id} takes a reason", 'give one: because "…"')
    if event.by == SYSTEM:
        return _of_system(item, event)
    if event.what == "withdrawn":
        return _withdrawn(item, event)
    if event.what not in _REVIEWING:
        return _no("role", f"{event.what!r} is said by finllm itself", "leave it to finllm")
    if item.ended is not None:
        return _no("closed", f"{item.id} is {item.ended}", f"see how it came to that: finllm review show {item.id}")
    return _who(item, event) or _claim(item, event) or _said(item, event)


def after(item: Item, event: ReviewEvent) -> Item:
    """The item after an event of its record; one that the rules refuse is kept as refused, and changes nothing."""
    no = refusal(item, event)
    if no is not None:
        return replace(item, refused=(*item.refused, f"{event.what} by {event.by}: {no.message}"))
    item = replace(item, events=(*item.events, event))
    match event.what:
        case "claimed" | "kept":
            return replace(item, claim=event)
        case "released":
            return replace(item, claim=None)
        case "signed":
            signed = replace(item, signatures=(*item.signatures, event), claim=None)
            return replace(signed, ended="approved") if _enough(signed) else signed
        case "escalated":
            return replace(item, escalated=event, claim=None)
        case "sent back" | "withdrawn" | "void":
            return replace(item, ended=event.what, claim=None)
        case "revealed":
            return item


def folded(row: ReviewRow, events: list[ReviewEvent]) -> Item:
    """An item as its record makes it."""
    item = Item(row)
    for event in events:
        item = after(item, event)
    return item


def makes(item: Item, names: frozenset[str]) -> bool:
    """Whether somebody of these names made, edited or overrode something in it, or put it to review."""
    return bool(names & {name.casefold() for name in (*item.row.makers, item.row.who)})


def _enough(item: Item) -> bool:
    """Whether it has the signatures that it needs; of an escalated one, one of somebody senior."""
    if len(item.signatures) < item.row.needs:
        return False
    return item.escalated is None or any(one.role in SENIOR for one in item.signatures)


def _of_system(item: Item, event: ReviewEvent) -> ReviewRefused | None:
    if event.what == "void" and item.ended not in ("withdrawn", "void"):
        return None
    if event.what == "revealed" and item.row.audit is not None and item.ended is not None:
        if sha256(event.reason.encode()).hexdigest() == item.row.audit.sealed:
            return None
        return _no("sealed", f"what is said to be hidden in {item.id} is not what was sealed", "finllm audit verify")
    return _no("closed", f"{item.id} is {item.ended or 'open'}", f"finllm review show {item.id}")


def _withdrawn(item: Item, event: ReviewEvent) -> ReviewRefused | None:
    if item.row.who.casefold() not in event.names:
        return _no("role", f"only {item.row.who}, who put {item.id} to review, may withdraw it", "ask them")
    if item.ended not in (None, "sent back") or item.escalated is not None:
        state = item.ended or "escalated"
        return _no("closed", f"{item.id} is {state} and cannot be withdrawn", f"finllm review show {item.id}")
    return None


def _who(item: Item, event: ReviewEvent) -> ReviewRefused | None:
    if makes(item, event.names):
        return _no("four-eyes", f"{event.by} made, edited or overrode something in {item.id}, or put it to review",
                   "let somebody else review it")  # fmt: skip
    if event.role not in REVIEWERS:
        return _no(
            "role", f"{event.by} is no reviewer but of role {event.role}", "an admin gives roles: finllm users role"
        )
    if item.escalated is not None and event.role not in SENIOR:
        return _no("escalated", f"{item.id} was escalated: only an {' or '.join(SENIOR)} reviews it now",
                   "leave it to them")  # fmt: skip
    if item.escalated is not None and item.escalated.by == event.by:
        return _no("escalated", f"{event.by} has escalated {item.id}", "it is another's to decide now")
    if event.what == "signed" and any(one.by == event.by for one in item.signatures):
        return _no("signed", f"{event.by} has signed {item.id} already", "another person gives the next signature")
    return None


def _claim(item: Item, event: ReviewEvent) -> ReviewRefused | None:
    holder = item.claimed_by(event.at)
    if holder not in (None, event.by):
        assert item.claim is not None
        return _no("claimed", f"{holder} has {item.id} until {item.claim.until}", "take another, or wait")
    if event.what in ("kept", "released") and holder is None:
        return _no("claimed", f"{event.by} does not have {item.id}", f"finllm review claim {item.id}")
    if event.what in ("claimed", "kept") and not (event.until and event.until > event.at):
        return _no("claimed", "a claim says how long it holds", f"finllm review claim {item.id}")
    return None


def _said(item: Item, event: ReviewEvent) -> ReviewRefused | None:
    if event.what == "sent back" and event.about not in FAULTS:
        return _no("reason", f"to send {item.id} back, say what is wrong", f"name one of {', '.join(FAULTS)}")
    if event.what == "signed" and event.report_sha256 != item.row.report_sha256:
        return _no("bytes", f"the signature is of other bytes than those of {item.id}",
                   f"look at it again: finllm review show {item.id}")  # fmt: skip
    return None


def _no(rule: str, message: str, fix: str) -> ReviewRefused:
    return ReviewRefused(message, fix=fix, rule=rule)
