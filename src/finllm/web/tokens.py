"""Cookies, and the token that every form brings along: worked out from the cookie, which no other site can read."""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256

from starlette.requests import Request, cookie_parser
from starlette.responses import Response

LONGEST = 128
"""Characters of a cookie that is looked at."""


def cookie_name(what: str, *, tls: bool) -> str:
    """`__Host-` binds a cookie to this very host; browsers take such a name only over TLS."""
    return f"__Host-finllm-{what}" if tls else f"finllm-{what}"


def cookie_in(header: str, what: str, *, tls: bool) -> str:
    """As `cookie_of`, of a cookie header."""
    found = cookie_parser(header).get(cookie_name(what, tls=tls), "")
    return found if len(found) <= LONGEST and found.isascii() else ""


def cookie_of(request: Request, what: str, *, tls: bool) -> str:
    """What the visitor's cookie says; empty where there is none, or none that we gave."""
    return cookie_in(request.headers.get("cookie", ""), what, tls=tls)


def give_cookie(response: Response, what: str, value: str, *, tls: bool, comes_back: bool = False) -> None:
    """For as long as the browser is open; how long it is good for, the server decides. `comes_back`: also sent when
    another site's page leads here, as a provider's does."""
    response.set_cookie(cookie_name(what, tls=tls), value, path="/", secure=tls, httponly=True,
                        samesite="lax" if comes_back else "strict")  # fmt: skip


def take_cookie(response: Response, what: str, *, tls: bool) -> None:
    response.delete_cookie(cookie_name(what, tls=tls), path="/", secure=tls, httponly=True, samesite="strict")


def form_token(secret: str) -> str:
    """The token of whoever has that cookie."""
    return hmac.new(secret.encode(), b"finllm form", sha256).hexdigest()


def good_token(secret: str, token: str) -> bool:
    return bool(secret) and hmac.compare_digest(form_token(secret).encode(), token.encode())


def new_visit() -> str:
    return secrets.token_urlsafe(32)
