"""Reviews: a version is put, claimed, read, and signed or sent back; every rule is refused in here, for every door.

The doors say who somebody is, and show what this says. What a person may not see yet, the verdict of a version that
they could still audit blind, leaves this class for nobody.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice

from finllm.errors import AccessRefused, InputError, RecordAltered, RecordError, ReviewRefused
from finllm.memory.audits import drawn_now, who_saw
from finllm.memory.ledger import Ledger
from finllm.memory.looking import Looking
from finllm.memory.oidc_flows import Flows
from finllm.memory.review_facts import grave_of, makers_of, report_digest
from finllm.memory.review_record import ReviewRecord
from finllm.memory.review_rows import FAULTS, AuditRow, Fault, Look, ReviewEvent, ReviewRow, State
from finllm.memory.review_rules import REVIEWERS, SYSTEM, Item, makes, moment_of, refusal
from finllm.memory.secret_file import SecretFile
from finllm.memory.users import User, Users
from finllm.settings import Settings
from finllm.tools.data.approval import scenario_digest

DIGESTS = 10_000
"""Reports whose digest is remembered, by that of their bytes."""
LOOK_AGAIN = 3600.0
"""s after which the same person's look at an item that did not change is put on record again."""


@dataclass(frozen=True)
class Policy:
    """How many signatures approve, and where it is `grave`; how long a claim holds, s; one in how many is audited."""

    plain: int = 1
    grave: int = 2
    claim: float = 1800.0
    audit_every: int = 20

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        return cls(settings.review_signatures, settings.review_signatures_grave, settings.review_claim,
                   settings.review_audit_every)  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """An item as one person may see it. `why_not`: why they may not review it; `blind`: theirs to audit, or could be.

    `state` and what the item holds are of the moment; of a blind audit only their own part is in it.
    """

    item: Item
    state: State
    why_not: str | None
    blind: bool
    claimed_by: str | None

    @property
    def id(self) -> str:
        return self.item.id


class Reviews:
    """The reviews of a home. Thread-safe. Errors, of everything here: RecordError; ReviewRefused, naming the rule;
    InputError for an item that is not there; AccessRefused for somebody who is no user."""

    def __init__(
        self, ledger: Ledger, users: Users, policy: Policy | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:  # fmt: skip
        self.ledger, self.users = ledger, users
        self._policy, self._clock = policy or Policy(), clock
        self.record = ReviewRecord(ledger)
        self.looking = Looking(users.secret, self.record)
        self.flows = Flows(users.secret, clock)
        self._digests: dict[bytes, str] = {}
        with contextlib.suppress(RecordError):  # on a full disk they stay noted, and count
            self.looking.settle()

    def put(self, session: str, version: int, run: str, *, who: str, why: str, login: str = "",
            minutes: str = "") -> ReviewRow:  # fmt: skip
        """Put a version to review; the item as it is on record, which binds the report's bytes.

        Another version of the session that waits for review makes room: its signatures are void.
        """
        if not why.strip():
            raise ReviewRefused("to put a version to review takes a reason", fix='say what for: review "for …"',
                                rule="reason")  # fmt: skip
        row = self.ledger.run(run)
        if row is None or row.result is None:
            raise InputError(f"run {run!r} has no report to review", fix=f"finllm resume {run}")
        request, result, tip = row.request, row.result, self.ledger.tip()
        makers = {*makers_of(session, run, request, result, self.ledger), *((who, login) if login else (who,))}
        self._check_known(makers - {login})
        grave = grave_of(run, result, self.ledger)
        made = ReviewRow(
            number=1, session=session, version=version, run=run, report_sha256=report_digest(result), who=who, why=why,
            at=self._now(), minutes=minutes, title=str(request["scenario"]["title"]),
            scenario_sha256=scenario_digest(request["scenario"]),
            rule_book=next((str(one["version"]) for one in result.get("findings", ())), ""), log_size=tip.size,
            log_root=tip.root, makers=tuple(sorted(makers)), grave=grave,
            needs=self._policy.grave if grave else self._policy.plain,
        )  # fmt: skip
        while True:
            before = self._before(made)
            follows = before[-1] if before else None
            back = [one for one in follows.events if one.what == "sent back"] if follows else []
            made = made.model_copy(update={
                "number": 1 + max(self.record.items(), default=0),
                "follows": follows.row.number if follows else None, "back_to": back[-1].by if back else None,
            })  # fmt: skip
            if self.record.put(made):
                break
        for item in before:
            if item.ended is None and item.escalated is None:
                self._void(item.row.number, f"version {version} took its place as {made.id}")
        return made

    def _check_known(self, makers: set[str]) -> None:
        """Where there are users, whoever made something is one: else nobody could tell who reviews their own."""
        users = self.users.list()
        known = frozenset[str]().union(*(one.names for one in users))
        if users and (unknown := sorted(name for name in makers if name.casefold() not in known)):
            raise ReviewRefused(f"{', '.join(unknown)} had a hand in this version and is no user", rule="unknown",
                                fix="add them: finllm users add NAME --login LOGIN")  # fmt: skip

    def item(self, id: str | int, viewer: User) -> Shown:
        """An item as `viewer` may see it; void on record if its bytes are not what was put. Puts no look on record."""
        viewer = self._current(viewer)
        return self._shown(self._fresh(id), viewer, sealed="refuse")

    def looked(self, viewer: User, id: str | int) -> None:
        """Put on record that somebody looks at an item."""
        self.noted(viewer, id)
        self.looking.settle()

    def noted(self, viewer: User, id: str | int, at: str | None = None) -> None:
        """Note that somebody looks at an item, now or at that moment: it counts, and settling puts it on record."""
        viewer, item, at = self._current(viewer), self.record.get(id), at or self._now()
        mine = [look.at for look in self.looking.of(item.row.number) if look.by == viewer.name]
        changed = item.events[-1].at if item.events else item.row.at
        if not mine or mine[-1] < max(changed, moment_of(self._clock() - LOOK_AGAIN)):
            self.looking.note(item.row.number, Look(by=viewer.name, at=at))

    def looks(self, id: str | int, viewer: User) -> tuple[Look, ...]:
        """Who looked at an item; of a blind audit that is open only the viewer."""
        shown = self._shown(self.record.get(id), self._current(viewer), sealed="refuse")
        found = self.looking.of(shown.item.row.number)
        return tuple(one for one in found if not shown.blind or one.by == viewer.name)

    def queue(self, viewer: User, *, ended: bool = False, most: int | None = None) -> list[Shown]:
        """What is open, what comes back to the viewer first, then the oldest; `ended`: what is not, the newest first,
        and of that no more than `most`.

        What the viewer could still audit blind is in neither.
        """
        viewer = self._current(viewer)
        items = [item for item in self.record.items().values() if (item.ended is not None) == ended]
        seen = (item for item in (reversed(items) if ended else items) if not self._sealed(item, viewer))
        shown = [self._shown(item, viewer, sealed="show") for item in islice(seen, most if ended else None)]
        if ended:
            return shown
        return sorted(shown, key=lambda one: (one.item.row.back_to != viewer.name, one.claimed_by != viewer.name,
                                              one.why_not is not None, one.item.row.number))  # fmt: skip

    def claim(self, id: str | int, viewer: User) -> Shown:
        """Take an item for as long as the policy says."""
        return self._do(id, viewer, "claimed")

    def heartbeat(self, id: str | int, viewer: User) -> Shown:
        """Say that one still reads: on record, and renewed, once half of the time is over."""
        shown = self.item(id, viewer)
        claim = self.record.get(id).claim
        if claim is not None and claim.by == viewer.name and shown.state == "claimed":
            half = moment_of(self._clock() + self._policy.claim / 2)
            if (claim.until or "") > half:
                return shown
        return self._do(id, viewer, "kept")

    def release(self, id: str | int, viewer: User) -> Shown:
        """Give a claimed item back unread."""
        return self._do(id, viewer, "released")

    def sign(self, id: str | int, viewer: User, phrase: str, reason: str, *, report_sha256: str | None = None,
             session: str = "") -> Shown:  # fmt: skip
        """Sign the bytes of an item, by the pass phrase; or with none by what a `session` (a sign-in's token) has just
        proved again at an OpenID provider. `report_sha256`: the bytes that were read, if the door knows."""
        self.may(id, viewer, "signed", reason, report_sha256)
        if not session:
            self.users.verify(viewer.name, phrase)
            return self._do(id, viewer, "signed", reason, read=report_sha256)
        said = self.flows.spend(session, viewer.name, self.record.get(id).id, report_sha256 or "")
        return self._do(id, viewer, "signed", reason, read=report_sha256, proof=said)

    def send_back(self, id: str | int, viewer: User, about: Fault, reason: str) -> Shown:
        """Send an item back to who put it, for a kind of fault."""
        return self._do(id, viewer, "sent back", reason, about=about)

    def escalate(self, id: str | int, viewer: User, reason: str) -> Shown:
        """Leave an item to an auditor or admin, one of whom has to sign it."""
        return self._do(id, viewer, "escalated", reason)

    def withdraw(self, id: str | int, viewer: User, reason: str) -> Shown:
        """Take back what one put to review oneself."""
        return self._do(id, viewer, "withdrawn", reason)

    def _do(self, id: str | int, viewer: User, what: str, reason: str = "", *, about: Fault | None = None,
            read: str | None = None, proof: str = "") -> Shown:  # fmt: skip
        """Put it on record if the rules let it; tried again as long as somebody else was first."""
        while True:
            user, item = self._current(viewer), self._fresh(id)
            event = self._event(item, user, what, reason, about, read, proof)
            if (no := self._no(item, user, event)) is not None:
                raise no
            if self.record.append(item, event):
                break
        if (ended := self.record.get(id)).ended == "approved":
            self._draw()
        if ended.ended is not None:
            self._reveal(ended)
        return self._shown(self.record.get(id), user, sealed="show")

    def may(self, id: str | int, viewer: User, what: str, reason: str, read: str | None = None) -> None:
        """Whether somebody may do that now: what the rules refuse is refused before a pass phrase is asked for."""
        user, item = self._current(viewer), self._fresh(id)
        if (no := self._no(item, user, self._event(item, user, what, reason, None, read))) is not None:
            raise no

    def _event(self, item: Item, user: User, what: str, reason: str, about: Fault | None,
               read: str | None, proof: str = "") -> ReviewEvent:  # fmt: skip
        row, now = item.row, self._now()
        said = {"what": what, "by": user.name, "at": now, "role": user.role, "login": user.login,
                "reason": " ".join(reason.split())[:2000], "about": about if about in FAULTS else None}  # fmt: skip
        if what in ("claimed", "kept"):
            said["until"] = moment_of(self._clock() + self._policy.claim)
        if what == "signed":
            said["report_sha256"] = read or row.report_sha256
            said["statement"] = (
                f"{user.name}, {user.role}, signs report {row.report_sha256} of run {row.run}, version {row.version} "
                f"of session {row.session}, under rule book {row.rule_book or 'unknown'}, at log size {row.log_size}"
                f"{', signed in again as ' + proof if proof else ''}"
            )
        return ReviewEvent.model_validate(said)

    def _no(self, item: Item, user: User, event: ReviewEvent) -> ReviewRefused | None:
        """The rules, and those that need more than the item: what somebody saw elsewhere."""
        if self._sealed(item, user):
            return _sealed_error(item)
        if item.row.audit is not None and self._saw(item, user):
            return ReviewRefused(f"{user.name} has seen the verdict that {item.id} audits",
                                 fix="leave it to somebody who did not", rule="blind")  # fmt: skip
        return refusal(item, event)

    def _fresh(self, id: str | int) -> Item:
        """The item as it is on record now, void where its bytes are not what was put to review."""
        item = self.record.get(id)
        if item.ended in ("withdrawn", "void"):
            return item
        try:
            text = self.ledger.report_text(item.row.run)
            now = None if text is None else self._digest_of(text)
            why = None if now == item.row.report_sha256 else f"the report is now {now and now[:12]}"
        except RecordAltered as error:
            why = error.message
        return item if why is None else self._void(item.row.number, f"the bytes changed: {why}")

    def _digest_of(self, text: str) -> str:
        """The report's digest: of the same bytes it is worked out once."""
        bytes_are = sha256(text.encode()).digest()
        if bytes_are not in self._digests:
            if len(self._digests) >= DIGESTS:
                self._digests.clear()
            self._digests[bytes_are] = report_digest(json.loads(text))
        return self._digests[bytes_are]

    def _void(self, number: int, why: str) -> Item:
        while (item := self.record.get(number)).ended not in ("withdrawn", "void"):
            self.record.append(item, ReviewEvent(what="void", by=SYSTEM, at=self._now(), reason=why[:2000]))
        return item

    def _before(self, row: ReviewRow) -> list[Item]:
        """The items of earlier versions of a session, the newest last. Errors: ReviewRefused for one put twice."""
        before = [
            one for one in self.record.items().values() if one.row.session == row.session and one.row.audit is None
        ]
        same = next((one for one in before if one.row.run == row.run and one.ended not in ("withdrawn", "void")), None)
        if same is not None:
            state = same.state(row.at)
            raise ReviewRefused(f"this version is put to review already: {same.id}, {state}",
                                fix="edit it first, then put the new version to review", rule="twice")  # fmt: skip
        return before

    def _shown(self, item: Item, viewer: User, *, sealed: str) -> Shown:
        if sealed == "refuse" and self._sealed(item, viewer):
            raise _sealed_error(item)
        now = self._now()
        blind = item.row.audit is not None and item.ended is None
        probe = ReviewEvent(what="claimed", by=viewer.name, at=now, role=viewer.role, login=viewer.login,
                            until=moment_of(self._clock() + self._policy.claim))  # fmt: skip
        no = self._no(item, viewer, probe)
        state, holder = item.state(now), item.claimed_by(now)
        return Shown(_blinded(item, viewer) if blind else item, state, no.message if no else None, blind, holder)

    def _sealed(self, item: Item, viewer: User) -> bool:
        """Whether an open audit of this item could be the viewer's: then its verdict is not theirs to see yet."""
        if item.row.audit is not None or item.ended is None or viewer.role not in REVIEWERS:
            return False
        audits = self.record.open_audits_of(item.row.number)
        return any(not makes(one, viewer.names) and not self._saw(one, viewer) for one in audits)

    def _saw(self, audit: Item, viewer: User) -> bool:
        """Whether somebody looked at the item that an audit is of."""
        of = audit.row.audit.of if audit.row.audit is not None else None
        return of is not None and any(one.by == viewer.name for one in self.looking.of(of))

    def put_exercise(self, of: int, run: str, by: str, hidden: str) -> ReviewRow:
        """Put a run with a known fault into the queue as a blind audit; what is `hidden` is sealed until it is over."""
        self.looking.settle()
        source, row, tip = self.record.get(of), self.ledger.run(run), self.ledger.tip()
        if row is None or row.result is None:
            raise InputError(f"run {run!r} has no report to review", fix="plant the exercise again")
        sealed = sha256(hidden.encode()).hexdigest()
        with self.users.secret.transaction() as db:
            db.execute("INSERT INTO sealed VALUES (?, ?)", (sealed, hidden))
        made = source.row.model_copy(update={
            "run": run, "report_sha256": report_digest(row.result), "who": SYSTEM, "why": "blind audit",
            "at": self._now(), "makers": tuple(sorted({*who_saw(self.record, of), by})), "needs": 1, "follows": None,
            "back_to": None, "log_size": tip.size, "log_root": tip.root,
            "audit": AuditRow(kind="planted", of=of, sealed=sealed),
        })  # fmt: skip
        while True:
            made = made.model_copy(update={"number": 1 + max(self.record.items())})
            if self.record.put(made):
                return made

    def _reveal(self, item: Item) -> None:
        """Say what an exercise hid, once its verdict is in."""
        audit = item.row.audit
        if audit is None or audit.kind != "planted":
            return
        found = self.users.secret.rows("SELECT content FROM sealed WHERE digest=?", audit.sealed)
        while found and not any(one.what == "revealed" for one in item.events):
            self.record.append(item, ReviewEvent(what="revealed", by=SYSTEM, at=self._now(), reason=str(found[0][0])))
            item = self.record.get(item.row.number)

    def _draw(self) -> None:
        """Draw the blind audits that are due: once each, whoever else draws at the same time."""
        self.looking.settle()
        while (row := drawn_now(self.record, self._policy.audit_every, self.ledger.tip, self._now)) is not None:
            self.record.put(row)

    def _current(self, viewer: User) -> User:
        """The user as they are on record now. Errors: AccessRefused for one who is not, or not any more."""
        user = self.users.find(viewer.name)
        if user is None or user.disabled:
            raise AccessRefused(f"{viewer.name!r} is no user of this home", fix="ask an admin: finllm users add")
        return user

    def _now(self) -> str:
        return moment_of(self._clock())


def reviews_of(ledger: Ledger, settings: Settings) -> Reviews:
    """The reviews of a home, with its users, by its settings."""
    return Reviews(ledger, Users(ledger, SecretFile(settings.users_path), phrases=not settings.oidc_only),
                   Policy.of(settings))  # fmt: skip


def _blinded(item: Item, viewer: User) -> Item:
    """An open audit without what the auditor must not know: what it is of, and what others did."""
    own = tuple(event for event in item.events if event.by == viewer.name)
    hidden = {"who": SYSTEM, "makers": (), "audit": AuditRow(kind="blind"), "why": "blind audit", "minutes": "",
              "follows": None, "back_to": None}  # fmt: skip
    return replace(item, row=item.row.model_copy(update=hidden), events=own, signatures=())


def _sealed_error(item: Item) -> ReviewRefused:
    return ReviewRefused(f"the verdict of {item.id} is sealed: you may be asked to audit it blind", rule="sealed",
                         fix="take the blind audit from your queue; it opens when that is done")  # fmt: skip
