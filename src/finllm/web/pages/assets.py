"""The style and the script that come with the pages, and the way in."""

from __future__ import annotations

from hashlib import sha256

from starlette.responses import RedirectResponse, Response

from finllm.web.doors import PUBLIC, SIGNED_IN, Asked, Door
from finllm.web.refusals import not_found
from finllm.web.rendering import static


def first(asked: Asked) -> Response:
    """To the page that one's role begins with."""
    return RedirectResponse("/sessions" if asked.who.role in ("analyst", "risk") else "/queue", 303)


def asset(asked: Asked) -> Response:
    """A file by its name, which is one of those that there are."""
    try:
        body, kind = static(asked.path["name"])
    except KeyError:
        raise not_found("file") from None
    headers = {"cache-control": "public, max-age=300", "etag": f'"{sha256(body).hexdigest()[:24]}"'}
    return Response(body, media_type=kind, headers=headers)


DOORS = (Door("GET", "/", SIGNED_IN, first), Door("GET", "/static/{name}", PUBLIC, asset))
