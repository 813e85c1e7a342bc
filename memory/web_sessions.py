"""Who is signed in at the web door: opaque tokens of which only a hash is kept, until idle, too old, or ended.

Whatever changes a user (role, pass phrase, disabled) ends all their sign-ins at once, on every device: each was made
for the user as they were.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable

from finllm.errors import RecordError
from finllm.memory.oidc_flows import hashed
from finllm.memory.secret_file import SecretFile
from finllm.memory.users import User, Users

IDLE, ABSOLUTE = 1800.0, 43_200.0
"""s without a request, and s at all, after which a sign-in ends."""
_TOUCH = 60.0
"""s between two writes of when it was last seen."""


class WebSessions:
    """The sign-ins of a home. Thread-safe; several servers may share one home. Errors: RecordError."""

    def __init__(
        self, users: Users, secret: SecretFile, *, idle: float = IDLE, absolute: float = ABSOLUTE,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._users, self._secret, self._clock = users, secret, clock
        self._idle, self._absolute = idle, absolute

    def begin(self, user: User) -> str:
        """Sign in somebody whose pass phrase was verified; the token, which is kept nowhere."""
        token, now = secrets.token_urlsafe(32), self._clock()
        with self._secret.transaction() as db:
            db.execute("DELETE FROM signed_in WHERE seen<? OR began<?", (now - self._idle, now - self._absolute))
            db.execute("INSERT INTO signed_in VALUES (?, ?, ?, ?, ?)",
                       (hashed(token), user.name, user.changes, now, now))  # fmt: skip
        return token

    def find(self, token: str, *, touch: bool = True) -> User | None:
        """Who is signed in by a token; None where nobody is, or not any more.

        `touch`: it counts as a request of theirs. On a full disk it cannot be kept that it did: reading goes on.
        """
        key, now = hashed(token), self._clock()
        rows = self._secret.rows("SELECT name, changes, began, seen FROM signed_in WHERE token=?", key)
        if not rows:
            return None
        name, changes, began, seen = rows[0]
        user = self._users.find(name)
        if (user is None or user.disabled or user.changes != changes or now - seen > self._idle
                or now - began > self._absolute):  # fmt: skip
            self.revoke(token)
            return None
        if touch and now - seen > _TOUCH:
            with contextlib.suppress(RecordError), self._secret.transaction() as db:
                db.execute("UPDATE signed_in SET seen=? WHERE token=?", (now, key))
        return user

    def of_hash(self, key: str) -> str | None:
        """The name of whoever is signed in by the token that has that hash, as `hashed` makes it."""
        rows = self._secret.rows("SELECT name FROM signed_in WHERE token=?", key)
        return str(rows[0][0]) if rows else None

    def revoke(self, token: str) -> None:
        """End one sign-in."""
        with self._secret.transaction() as db:
            db.execute("DELETE FROM signed_in WHERE token=?", (hashed(token),))

    def revoke_all(self, name: str) -> None:
        """End every sign-in of a user, on all devices: what signing out does."""
        with self._secret.transaction() as db:
            db.execute("DELETE FROM signed_in WHERE name=?", (name,))
