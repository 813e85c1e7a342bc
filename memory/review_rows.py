"""A version put to review and everything that was said of it, as rows of the ledger: who, in which role, when, why."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from finllm.memory.users import Role
from finllm.scheduler.record import EntryKind

REVIEW = EntryKind("review")
"""A version that somebody put to review, what was said of it, or that somebody looked at it."""

State = Literal["waiting", "claimed", "sent back", "signed", "approved", "escalated", "withdrawn", "void"]
"""Of an item. `signed`: some signatures of those it needs; `void`: its bytes changed, or a later version is there."""
Fault = Literal["evidence", "reading", "override", "limit", "source", "sign", "injection", "number", "other"]
"""What a reviewer sends a version back for."""
FAULTS: tuple[Fault, ...] = get_args(Fault)
Verdict = Literal["signed", "sent back", "escalated"]
"""What ends a reading."""


class AuditRow(BaseModel):
    """What makes an item a blind audit. `of`: the item whose verdict is audited, none of an exercise.

    `among`: the approved items of which it was drawn, by the log's `root` at `size` records, see `memory.audits`.
    `sealed`: sha256 of what an exercise hides. `blind` is what those are shown who could audit it, or do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["drawn", "planted", "blind"]
    of: int | None = None
    among: tuple[int, ...] = ()
    size: int = 0
    root: str = ""
    sealed: str = ""


class ReviewRow(BaseModel):
    """`report_sha256`: of the report as it was put; a run whose report has another is not what was put to review.

    `minutes`: the session's minutes as Markdown, of the moment. `who` put it. `makers` are all who made, edited or
    overrode something in it, by user or login name: none of them may review it. `needs`: signatures, and `grave` what
    makes them more. `scenario_sha256`: see `tools.data.approval`. `log_size`, `log_root`: how far the record went.
    `follows`: the item of an earlier version that this one takes the place of, and `back_to` who had sent that back.
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
    title: str = ""
    scenario_sha256: str = ""
    rule_book: str = ""
    log_size: int = 0
    log_root: str = ""
    makers: tuple[str, ...] = ()
    needs: int = Field(default=2, ge=1)
    grave: tuple[str, ...] = ()
    follows: int | None = None
    back_to: str | None = None
    audit: AuditRow | None = None

    @property
    def id(self) -> str:
        return f"r-{self.number}"


class ReviewEvent(BaseModel):
    """What somebody did with an item. `by`: the user, `login` and `role` as they were then; `at`: ISO 8601, UTC.

    `until`: how long a claim holds. `statement`: what a signature says, over the bytes that it names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: Literal["claimed", "kept", "released", "signed", "sent back", "escalated", "withdrawn", "void", "revealed"]
    by: str
    at: str
    role: Role | None = None
    login: str = ""
    reason: str = Field(default="", max_length=2000)
    about: Fault | None = None
    until: str | None = None
    statement: str = ""
    report_sha256: str = ""

    @property
    def names(self) -> frozenset[str]:
        """By what the person may be named in `makers`."""
        return frozenset(name.casefold() for name in (self.by, self.login) if name)


class Look(BaseModel):
    """Somebody looked at an item."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    at: str
