"""Sign-ins under way at an OpenID provider, and what they proved: each is good once, and only where it was begun.

What is kept for those minutes is in the private file beside the ledger, under the hash of a cookie that only one
browser has; nothing that the provider gave is.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from hashlib import sha256

from finllm.errors import AccessRefused
from finllm.memory.secret_file import SecretFile

LONGEST = 600.0
"""s that somebody may take at the provider."""
PROVEN = 300.0
"""s in which who has signed in again has to sign what they signed in again for."""


@dataclass(frozen=True)
class Flow:
    """One way to the provider and back. `redirect`: the address of ours that it comes back to; `began`: s since 1970.

    Of one that signs in again to sign: `name` of the user, `session` (a hash of its token), `item`, and `report` as it
    was on the page; else empty.
    """

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    redirect: str
    began: float
    name: str = ""
    session: str = ""
    item: str = ""
    report: str = ""


class Flows:
    """The ways under way of a home. Thread-safe; several servers may share one home. Errors: RecordError."""

    def __init__(self, secret: SecretFile, clock: Callable[[], float] = time.time) -> None:
        self._secret, self._clock = secret, clock

    def begin(self, redirect: str, *, name: str = "", session: str = "", item: str = "",
              report: str = "") -> tuple[str, Flow]:  # fmt: skip
        """A new way; the cookie of the browser that goes it, and what it takes along. `session`: a sign-in's token."""
        cookie, now = secrets.token_urlsafe(32), self._clock()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        flow = Flow(state, nonce, verifier, redirect, now, name, hashed(session) if session else "", item, report)
        with self._secret.transaction() as db:
            db.execute("DELETE FROM oidc_flow WHERE began<?", (now - LONGEST,))
            db.execute("INSERT INTO oidc_flow VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (hashed(cookie), *astuple(flow)))
        return cookie, flow

    def take(self, cookie: str, state: str) -> Flow:
        """The way that this browser began and that the provider answers to; gone with that, so that no answer counts
        twice. Errors: AccessRefused."""
        now = self._clock()
        with self._secret.transaction() as db:
            row = db.execute("SELECT state, nonce, verifier, redirect, began, name, session, item, report "
                             "FROM oidc_flow WHERE cookie=?", (hashed(cookie),)).fetchone()  # fmt: skip
            flow = Flow(*row) if row and hmac.compare_digest(row[0].encode(), state.encode()) else None
            if flow is not None:
                db.execute("DELETE FROM oidc_flow WHERE cookie=?", (hashed(cookie),))
        if flow is None or now - flow.began > LONGEST:
            raise AccessRefused("this browser has begun no such sign-in, or too long ago, or it was used already",
                                fix="begin again from the page that you came from")  # fmt: skip
        return flow

    def prove(self, flow: Flow, said: str) -> None:
        """Keep that somebody signed in again as `said`, for what the way was begun for."""
        now = self._clock()
        with self._secret.transaction() as db:
            db.execute("DELETE FROM oidc_proof WHERE at<?", (now - PROVEN,))
            db.execute("INSERT OR REPLACE INTO oidc_proof VALUES (?, ?, ?, ?, ?, ?)",
                       (flow.session, flow.item, flow.report, flow.name, said, now))  # fmt: skip

    def proven(self, session: str, name: str, item: str, report: str) -> str | None:
        """What a sign-in (its token) proved again for an item's bytes; None where it did not, or too long ago."""
        rows = self._secret.rows("SELECT name, said, at FROM oidc_proof WHERE session=? AND item=? AND report=?",
                                 hashed(session), item, report)  # fmt: skip
        good = rows and rows[0][0] == name and self._clock() - rows[0][2] <= PROVEN
        return str(rows[0][1]) if good else None

    def spend(self, session: str, name: str, item: str, report: str) -> str:
        """Use up what was proved. Errors: AccessRefused where nothing is, or somebody else was first."""
        said = self.proven(session, name, item, report)
        with self._secret.transaction() as db:
            gone = db.execute("DELETE FROM oidc_proof WHERE session=? AND item=? AND report=?",
                              (hashed(session), item, report)).rowcount  # fmt: skip
        if said is None or not gone:
            raise AccessRefused("to sign takes signing in again, just now and for these bytes",
                                fix="sign in again from the item's page")  # fmt: skip
        return said


def hashed(token: str) -> str:
    """What is kept of a token."""
    return sha256(token.encode()).hexdigest()
