"""Who may do what: users, their roles and pass phrases. What changes of a user is on the ledger; the hash is not.

Nobody is there until somebody is added. As long as there is no admin, whoever has the home adds users; from then on
only an admin does. A pass phrase that is wrong five times locks its user out, longer each time.
"""

from __future__ import annotations

import datetime as dt
import re
import shlex
import time
import unicodedata
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from finllm.errors import AccessRefused, InputError, RecordError
from finllm.memory.chain import Chain
from finllm.memory.reading import LedgerReader
from finllm.memory.secret_file import SecretFile
from finllm.scheduler.record import Entry, EntryKind

if TYPE_CHECKING:
    from argon2 import PasswordHasher

USER = EntryKind("user")
"""Something about a user: added, another role, disabled or enabled, another pass phrase."""
Role = Literal["analyst", "risk", "reviewer", "auditor", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
SHORTEST, LONGEST = 12, 1024
"""Characters of a pass phrase."""
FREE = 5
"""Wrong pass phrases in a row before the first lock-out."""
FIRST_LOCK, LONGEST_LOCK = 30.0, 3600.0
"""s of the first lock-out, doubled with each further wrong phrase, and of the longest."""
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,31}")


class User(BaseModel):
    """`login`: of the operating system, by which a command line knows them. `changes`: how often they were changed.

    `phrase`: the sha256 of the hash of the pass phrase that counts. `issuer`, `subject`: who they are at an OpenID
    provider, both empty where nobody has bound them to one.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    role: Role
    login: str
    disabled: bool = False
    phrase: str = ""
    changes: int = 1
    issuer: str = ""
    subject: str = ""

    @property
    def names(self) -> frozenset[str]:
        """By what this person may be named on record."""
        return frozenset((self.name.casefold(), self.login.casefold()))


class UserRow(BaseModel):
    """A change of a user, by whom and when; what stays as it was is None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: Literal["added", "role", "disabled", "enabled", "phrase", "identity"]
    name: str
    by: str
    at: str
    role: Role | None = None
    login: str | None = None
    phrase: str | None = None
    issuer: str | None = None
    subject: str | None = None


class Users:
    """The users of a home. Thread-safe. Errors, of everything here: RecordError."""

    def __init__(
        self, ledger: LedgerReader, secret: SecretFile, *, clock: Callable[[], float] = time.time,
        hasher: PasswordHasher | None = None, phrases: bool = True,
    ) -> None:  # fmt: skip
        """`ledger`: to change anything, one that writes. `clock`: s since 1970. `hasher`: argon2id, as it comes.
        `phrases`: whether a pass phrase opens anything, at whatever door; else only an OpenID provider's word does."""
        self._chain = Chain(ledger, USER, "users")
        self.phrases = phrases
        self.secret, self._clock, self._hasher = secret, clock, hasher
        self._seen = 0
        self._known: dict[str, User] = {}

    def list(self) -> tuple[User, ...]:
        """Everybody, by name."""
        rows = self._chain.rows()
        if len(rows) != self._seen:
            self._known, self._seen = users_of(rows), len(rows)
        return tuple(sorted(self._known.values(), key=lambda one: one.name))

    def find(self, name: str) -> User | None:
        """A user by name, disabled or not."""
        self.list()
        return self._known.get(name)

    def of_login(self, login: str) -> User:
        """The user whom the operating system knows by that login. Errors: AccessRefused."""
        found = [one for one in self.list() if one.login == login and not one.disabled]
        if len(found) != 1:
            said = "no user of finllm has" if not found else "several users of finllm have"
            raise AccessRefused(f"{said} the login {login!r}",
                                fix="name one with --as NAME, or add one: finllm users add NAME --role reviewer "
                                    f"--login {login}")  # fmt: skip
        return found[0]

    def of_identity(self, issuer: str, subject: str) -> User:
        """The user whom an admin has bound to that subject of that issuer. Errors: AccessRefused."""
        found = next((one for one in self.list() if (one.issuer, one.subject) == (issuer, subject)), None)
        if found is None or not subject:
            raise AccessRefused(f"no user here is bound to subject {subject!r} of {issuer}",
                                fix="ask an admin to bind yours: finllm users bind NAME --subject "
                                    + shlex.quote(subject))  # fmt: skip
        if found.disabled:
            raise AccessRefused(f"user {found.name!r} is disabled", fix="ask an admin")
        return found

    def add(self, name: str, role: Role, phrase: str, *, by: str, login: str | None = None) -> User:
        """Add a user. `by`: who does it, whose right the door has checked. Errors: InputError, AccessRefused."""
        if not _NAME.fullmatch(name) or name == "finllm":
            raise InputError(f"{name!r} is no name of a user",
                             fix="take small letters, digits, '.', '_' and '-', 32 at most")  # fmt: skip
        _check_role(role)
        self._check_new(name, login or name, by)
        digest = self._keep(name, phrase)

        def row() -> UserRow:
            self._check_new(name, login or name, by)
            return UserRow(what="added", name=name, by=by, at=self._now(), role=role, login=login or name,
                           phrase=digest)  # fmt: skip

        self._write(row)
        return self._there(name)

    def role(self, name: str, role: Role, *, by: str) -> User:
        """Give another role, which ends every sign-in of theirs. Errors: InputError, AccessRefused."""
        _check_role(role)
        self._write(lambda: self._change(name, by, "role", role=role))
        return self._there(name)

    def disable(self, name: str, *, by: str, disabled: bool = True) -> User:
        """Let a user in no more, or again. Errors: InputError, AccessRefused."""
        self._write(lambda: self._change(name, by, "disabled" if disabled else "enabled"))
        return self._there(name)

    def bind(self, name: str, issuer: str, subject: str, *, by: str) -> User:
        """Bind a user to a subject of an issuer, or with both empty to none; it ends every sign-in of theirs.

        Errors: InputError for a subject that is another user's; AccessRefused.
        """
        if bool(issuer) != bool(subject) or len(subject) > 255 or subject != subject.strip():
            raise InputError(f"{subject!r} is no subject of an issuer",
                             fix="give the 'sub' that the provider shows for that person, whole")  # fmt: skip

        def row() -> UserRow:
            other = next((one for one in self.list() if (one.issuer, one.subject) == (issuer, subject)), None)
            if subject and other is not None and other.name != name:
                raise InputError(f"that subject is bound to user {other.name!r}",
                                 fix=f"finllm users bind {other.name} --none, or take another")  # fmt: skip
            made = self._change(name, by, "identity")
            return made.model_copy(update={"issuer": issuer, "subject": subject})

        self._write(row)
        return self._there(name)

    def change_phrase(self, name: str, phrase: str, *, by: str, old: str | None = None) -> User:
        """Another pass phrase, which ends every sign-in of theirs; one's own with the old one, another's as an admin.

        Errors: InputError, AccessRefused.
        """
        self._there(name)
        if by == name and old is not None:
            self.verify(name, old)
        else:
            self._check_admin(by)
        digest = self._keep(name, phrase)
        self._write(lambda: UserRow(what="phrase", name=name, by=by, at=self._now(), phrase=digest))
        with self.secret.transaction() as db:
            db.execute("DELETE FROM phrase WHERE name=? AND digest<>?", (name, digest))
            db.execute("DELETE FROM failed WHERE name=?", (name,))
        return self._there(name)

    def verify(self, name: str, phrase: str) -> User:
        """The user whose pass phrase that is. Errors: AccessRefused, the same for an unknown name and a wrong phrase;
        for a user who is locked out, until when."""
        self._check_phrases()
        user = self.find(name)
        self._charge(name)
        encoded = self._encoded(user) if user is not None else None
        right = self._matches(encoded, phrase)
        if user is None or user.disabled or not right:
            raise AccessRefused("no such user, or another pass phrase", fix="type both again")
        with self.secret.transaction() as db:
            db.execute("DELETE FROM failed WHERE name=?", (name,))
        return user

    def _check_phrases(self) -> None:
        if not self.phrases:
            raise AccessRefused("pass phrases open nothing here: oidc_only is set",
                                fix="sign in with your provider, at the desk in a browser")  # fmt: skip

    def _charge(self, name: str) -> None:
        """Count an attempt before it is looked at, so that many at once get no more of them."""
        with self.secret.transaction() as db:
            row = db.execute("SELECT count, until FROM failed WHERE name=?", (name,)).fetchone()
            count, until = row or (0, 0.0)
            if (left := until - self._clock()) > 0:
                raise AccessRefused(f"user {name!r} is locked out after {count} attempts",
                                    fix=f"wait {max(1, round(left))} s")  # fmt: skip
            wait = 0.0 if count + 1 < FREE else min(FIRST_LOCK * 2.0 ** min(count + 1 - FREE, 20), LONGEST_LOCK)
            db.execute("INSERT OR REPLACE INTO failed VALUES (?, ?, ?)",
                       (name, count + 1, self._clock() + wait if wait else 0.0))  # fmt: skip

    def _keep(self, name: str, phrase: str) -> str:
        """Keep the hash of a phrase; the sha256 of that hash, which the ledger names."""
        check_phrase(name, phrase)
        encoded = self._argon2().hash(_plain(phrase))
        digest = sha256(encoded.encode()).hexdigest()
        with self.secret.transaction() as db:
            db.execute("INSERT INTO phrase VALUES (?, ?, ?)", (digest, name, encoded))
        return digest

    def _encoded(self, user: User) -> str | None:
        """The hash that the ledger names; None where it is not there, or is another than it names."""
        rows = self.secret.rows("SELECT encoded FROM phrase WHERE digest=?", user.phrase)
        found = str(rows[0][0]) if rows else None
        return found if found is not None and sha256(found.encode()).hexdigest() == user.phrase else None

    def _matches(self, encoded: str | None, phrase: str) -> bool:
        """Whether a phrase is the one of a hash; takes as long where there is none."""
        from argon2.exceptions import Argon2Error, InvalidHashError

        if len(phrase) > LONGEST:
            return False
        hasher = self._argon2()
        if encoded is None:
            hasher.hash(_plain(phrase))
            return False
        try:
            return hasher.verify(encoded, _plain(phrase))
        except (Argon2Error, InvalidHashError):
            return False

    def _argon2(self) -> PasswordHasher:
        if self._hasher is None:
            try:
                from argon2 import PasswordHasher, Type
            except ImportError as error:
                raise InputError("pass phrases need argon2, which is not installed",
                                 fix="pip install 'finllm[web]'") from error  # fmt: skip
            self._hasher = PasswordHasher(type=Type.ID)
        return self._hasher

    def _write(self, make: Callable[[], UserRow]) -> None:
        """Put what `make` says of the users as they are now on record; made again where another was first."""
        while True:
            self.list()
            at, row = self._seen, make()
            if self._chain.append({"row": at}, row.by, row.model_dump(mode="json", exclude_none=True)):
                return

    def _change(self, name: str, by: str, what: Literal["role", "disabled", "enabled", "identity"],
                role: Role | None = None) -> UserRow:  # fmt: skip
        user = self._there(name)
        self._check_admin(by)
        admins = [one.name for one in self._known.values() if one.role == "admin" and not one.disabled]
        if admins == [user.name] and (what == "disabled" or role not in (None, "admin")):
            raise AccessRefused(f"{name!r} is the last admin", fix="make somebody else an admin first")
        return UserRow(what=what, name=name, by=by, at=self._now(), role=role)

    def _check_new(self, name: str, login: str, by: str) -> None:
        taken = next((one for one in self.list() if {name, login} & {one.name, one.login}), None)
        if taken is not None:
            raise InputError(f"user {taken.name!r} (login {taken.login!r}) is there already",
                             fix="choose another name, or another --login")  # fmt: skip
        self._check_admin(by)

    def _check_admin(self, by: str) -> None:
        admins = [one.name for one in self._known.values() if one.role == "admin" and not one.disabled]
        if admins and by not in admins:
            raise AccessRefused(f"{by!r} may not change users", fix=f"ask an admin: {', '.join(sorted(admins))}")

    def _there(self, name: str) -> User:
        user = self.find(name)
        if user is None:
            raise InputError(f"no user {name!r}", fix="'finllm users list' shows them")
        return user

    def _now(self) -> str:
        return dt.datetime.fromtimestamp(self._clock(), dt.UTC).isoformat(timespec="seconds")


def users_of(rows: list[Entry]) -> dict[str, User]:
    """The users by name, as the rows on record leave them. Errors: RecordError for a row that cannot be read."""
    found: dict[str, User] = {}
    for entry in rows:
        try:
            row = UserRow.model_validate(entry.response)
            found[row.name] = _after(found.get(row.name), row)
        except (ValidationError, KeyError) as error:
            raise RecordError(f"a row about a user cannot be read: {error}",
                              fix="see 'finllm audit verify'") from error  # fmt: skip
    return found


def users_broken(ledger: LedgerReader) -> list[str]:
    """What is on record of users and was said by nobody who may. Errors: RecordError."""
    rows, found = Chain(ledger, USER, "users").rows(), list[str]()
    for at, entry in enumerate(rows):
        admins = {one.name for one in users_of(rows[:at]).values() if one.role == "admin" and not one.disabled}
        row = UserRow.model_validate(entry.response)
        if admins and row.by not in admins and not (row.what == "phrase" and row.by == row.name):
            found.append(f"user {row.name!r}: {row.what} by {row.by!r}, who may not")
    return found


def check_phrase(name: str, phrase: str) -> None:
    """Errors: InputError for a pass phrase that nobody should have."""
    if not SHORTEST <= len(_plain(phrase)) <= LONGEST:
        raise InputError(f"a pass phrase has {SHORTEST} characters or more",
                         fix="take four or five words that belong to nothing")  # fmt: skip
    if len(set(phrase.casefold())) < 5 or (phrase.casefold().strip() in (name, name * 2, name * 3)):
        raise InputError("that pass phrase is guessed at once", fix="take four or five words that belong to nothing")


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise InputError(f"{role!r} is no role", fix=f"take one of {', '.join(ROLES)}")


def _after(user: User | None, row: UserRow) -> User:
    if row.what == "added" and row.role and row.login and row.phrase:
        return User(name=row.name, role=row.role, login=row.login, phrase=row.phrase)
    if user is None:
        raise KeyError(row.name)
    changed: Mapping[str, Any] = {
        "role": {"role": row.role}, "disabled": {"disabled": True}, "enabled": {"disabled": False},
        "phrase": {"phrase": row.phrase}, "identity": {"issuer": row.issuer or "", "subject": row.subject or ""},
    }.get(row.what, {})  # fmt: skip
    return user.model_copy(update={**changed, "changes": user.changes + 1})


def _plain(phrase: str) -> str:
    """As typed on whatever keyboard (NIST SP 800-63B 5.1.1.2: normalised)."""
    return unicodedata.normalize("NFKC", phrase)
