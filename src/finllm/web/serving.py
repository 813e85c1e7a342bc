"""What all requests of a server share: the record, who may sign in, the reviews, the sessions at work, live pages."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

import anyio
from starlette.datastructures import Headers

from finllm.memory.changes import Changes
from finllm.memory.reading import UsedRow
from finllm.memory.review_rows import REVIEW
from finllm.memory.review_rules import moment_of
from finllm.memory.sessions import SESSION
from finllm.memory.users import USER
from finllm.plain_text import clean
from finllm.web.costs import Costs
from finllm.web.explaining import Explaining
from finllm.web.indexing import Indexer
from finllm.web.integrity import Verifier
from finllm.web.live import Live
from finllm.web.looks import Looks
from finllm.web.rates import Rates
from finllm.web.reports import Reports

if TYPE_CHECKING:
    from finllm.memory.ledger import Ledger
    from finllm.memory.reviews import Reviews
    from finllm.memory.users import User, Users
    from finllm.memory.web_sessions import WebSessions
    from finllm.settings import Settings
    from finllm.web.at_work import AtWork
    from finllm.web.oidc import Oidc

THREADS = 4
"""Handlers at a time: more would only wait for the same two or four cores."""
SLOW = 2
"""Pass phrases looked at, or charts drawn, at a time: each phrase takes 64 MiB."""

AWAY = 4
"""Requests at a time that may wait for another process or machine."""


class Serving:
    """See the module. `origins`: this desk's own, such as `https://desk.example:8443`; `hosts`: names it answers to."""

    def __init__(
        self, settings: Settings, ledger: Ledger, users: Users, web_sessions: WebSessions, reviews: Reviews,
        at_work: AtWork, *, hosts: Sequence[str], origins: Sequence[str], tls: bool = False,
        oidc: Oidc | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.ledger = settings, ledger
        self.users, self.web_sessions, self.reviews, self.at_work = users, web_sessions, reviews, at_work
        self.hosts, self.origins, self.tls = tuple(hosts), frozenset(origins), tls
        self.rates, self.reports = Rates(), Reports(ledger)
        self.verifier, self.indexer = Verifier(settings), Indexer(settings)
        self.threads, self.slow = anyio.CapacityLimiter(THREADS), anyio.CapacityLimiter(SLOW)
        self.explaining, self.costs = Explaining(settings), Costs(settings)
        self.looks = Looks(settings, reviews, lambda: moment_of(time.time()))
        self.oidc, self.away = oidc, anyio.CapacityLimiter(AWAY)
        self.live = Live(Changes(ledger, (REVIEW, USER, SESSION), _changes).count, anyio.CapacityLimiter(2))
        self._say = say or _on_stderr

    def user_of(self, secret: str) -> User | None:
        """Who is signed in with that cookie; None for nobody. What the request says beside it does not count."""
        return self.web_sessions.find(secret)

    def peek(self, secret: str) -> User | None:
        """As `user_of`, without it counting as a request of theirs: a page that is only open keeps nobody signed in."""
        return self.web_sessions.find(secret, touch=False)

    def own_origin(self, headers: Headers) -> bool:
        """Whether a page of this desk sent the form.

        Under `Referrer-Policy: no-referrer` browsers say `Origin: null`; then `Sec-Fetch-Site`, which no script can
        set, says whether it was our own page.
        """
        origin = headers.get("origin")
        if origin in self.origins:
            return True
        return origin == "null" and headers.get("sec-fetch-site") == "same-origin"

    def report(self, error: Exception) -> None:
        """An unforeseen failure, on stderr: its place in the code, and nothing of the request."""
        self._say(clean(f"a page failed: {type(error).__name__}"))
        for frame in traceback.extract_tb(error.__traceback__)[-3:]:
            self._say(clean(f"  {frame.filename}:{frame.lineno} {frame.name}"))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """For as long as the server runs: live pages are told of changes, and looks come onto the record."""
        watching = asyncio.ensure_future(self.live.watch())
        self.at_work.on_change(self.live.changed)
        self.explaining.on_change(self.live.changed)
        self.looks.begin()
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            self.explaining.close()
            await anyio.to_thread.run_sync(self.costs.close)
            await anyio.to_thread.run_sync(self.looks.end)


def _changes(row: UsedRow) -> bool:
    """Whether a row of these kinds changes a page that is kept up to date: that somebody looks does not."""
    return "look" not in row.use.entry.request


def _on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
