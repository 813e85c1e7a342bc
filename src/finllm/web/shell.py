"""The outermost ring: security headers on every answer, bounds on what comes in, an end for who reads too slowly."""

from __future__ import annotations

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finllm.web.forms import MOST_QUERY

MOST_HEADERS = 12 * 1024
"""Bytes of a request's headers."""
LONGEST_PATH = 512
SLOWEST_READER = 30.0
"""s that a part of an answer may wait to be taken."""
POLICY = ("default-src 'none'; style-src 'self'; img-src 'self' data:; connect-src 'self'; script-src 'self'; "
          "form-action 'self'; frame-ancestors 'none'; base-uri 'none'")  # fmt: skip
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-robots-tag": "noindex",
}


class Shell:
    """ASGI middleware; nothing of the answer's body is kept."""

    def __init__(self, app: ASGIApp, tls: bool) -> None:
        self._app = app
        given = HEADERS | ({"strict-transport-security": "max-age=31536000"} if tls else {})
        self._headers = [(name.encode(), value.encode()) for name, value in given.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        answered = _Answering(send, self._headers)
        if (why := _too_much(scope)) is not None:
            await _plain(answered, *why)
            return
        await self._app(scope, receive, answered)


class _Answering:
    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send, self._headers = send, headers

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            had = [*message.get("headers", ())]
            names = {name.lower() for name, _ in had}
            added = [one for one in self._headers if one[0] not in names]
            fresh = [] if b"cache-control" in names else [(b"cache-control", b"no-store")]
            message = {**message, "headers": [*had, *added, *fresh]}
        with anyio.fail_after(SLOWEST_READER):
            await self._send(message)


def _too_much(scope: Scope) -> tuple[int, str] | None:
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEADERS:
        return 431, "more headers than are read"
    if len(scope["path"]) > LONGEST_PATH or len(scope["query_string"]) > MOST_QUERY:
        return 414, "a longer address than is read"
    return None


async def _plain(send: Send, status: int, why: str) -> None:
    body = f"{why}\n".encode()
    head = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
