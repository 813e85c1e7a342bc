"""A door of the server: a path and a method with the roles that may pass. What is not declared is not reachable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from starlette.responses import Response

    from finllm.memory.users import User
    from finllm.web.serving import Serving

Method = Literal["GET", "POST"]
ROLES = ("analyst", "risk", "reviewer", "auditor", "admin")
PUBLIC = frozenset({"public"})
"""Of a door that stands open before anybody has signed in."""
SIGNED_IN = frozenset(ROLES)


@dataclass(frozen=True)
class Asked:
    """A request that has passed its door. `who` is from the session and from nothing that the request says.

    `path`, `query`, `form`: bounded and decoded. `token`: what a form of this visitor has to bring along. `secret`:
    the cookie that stands for the session.
    """

    serving: Serving
    door: Door
    user: User | None
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]
    token: str
    secret: str = field(default="", repr=False)
    client: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    def header(self, name: str) -> str:
        return self.headers.get(name, "")

    @property
    def who(self) -> User:
        """Who asks. Errors: AssertionError at a public door."""
        assert self.user is not None
        return self.user

    def page(self, template: str, status: int = 200, **shown: Any) -> Response:
        """A page from a template, with who is asking and the form token."""
        from starlette.responses import HTMLResponse

        from finllm.web.rendering import render

        told = {"user": self.user, "token": self.token, "query": self.query, "door": self.door, **shown}
        return HTMLResponse(render(template, told), status)


Handler = Callable[[Asked], "Response"]
"""Answers what was asked; runs on a thread, so it may wait for the disk and for argon2."""


@dataclass(frozen=True)
class Door:
    """`roles`: who may pass, or `PUBLIC`. `held`: the answer is a stream that stays open. `slow`: it looks at a pass
    phrase or draws, which takes a core for a while: only so many at a time, and no page waits for them. `away`: it may
    wait for another process or machine, and has a place of its own to do it in."""

    method: Method
    path: str
    roles: frozenset[str]
    handler: Handler
    held: bool = False
    slow: bool = False
    away: bool = False


def only(*roles: str) -> frozenset[str]:
    """The roles that a door is open to. Errors: AssertionError for one that there is not."""
    assert set(roles) <= SIGNED_IN, roles
    return frozenset(roles)
