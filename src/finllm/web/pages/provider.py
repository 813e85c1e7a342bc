"""To the OpenID provider and back: to sign in, and to show anew who one is before one signs."""

from __future__ import annotations

import time

from starlette.responses import RedirectResponse, Response

from finllm.errors import AccessRefused
from finllm.memory.oidc_flows import Flow
from finllm.web.doors import PUBLIC, Asked, Door
from finllm.web.oidc import Identity, Oidc
from finllm.web.pages.items import REVIEWING, item_of
from finllm.web.rates import SIGNING_IN
from finllm.web.refusals import Refused, not_found
from finllm.web.tokens import cookie_in, give_cookie, take_cookie

BACK = "/sign-in/oidc/back"
"""Where the provider sends the browser back to: the one address of ours that is given to it."""


def away(asked: Asked) -> Response:
    """To the provider, to sign in."""
    if asked.user is not None:
        return RedirectResponse("/", 303)
    return _sent(asked)


def again(asked: Asked) -> Response:
    """To the provider, to show anew who one is, for the bytes of an item that were on the page."""
    oidc, shown = _oidc(asked), item_of(asked)
    if asked.who.issuer != oidc.issuer:
        raise AccessRefused(f"nobody has bound {asked.who.name!r} to {oidc.name}",
                            fix=f"ask an admin: finllm users bind {asked.who.name} --subject SUBJECT")  # fmt: skip
    return _sent(asked, name=asked.who.name, session=asked.secret, item=shown.id, report=shown.item.row.report_sha256)


def _sent(asked: Asked, **what: str) -> Response:
    oidc, serving = _oidc(asked), asked.serving
    if not serving.rates.allow("sign in", asked.client, SIGNING_IN, time.monotonic()):
        raise Refused(429, "Too often", "more sign-ins were begun than one person makes", "wait a minute")
    cookie, flow = serving.reviews.flows.begin(_own_origin(asked) + BACK, **what)
    response = RedirectResponse(oidc.address(flow), 303)
    give_cookie(response, "oidc", cookie, tls=serving.tls, comes_back=True)
    return response


def back(asked: Asked) -> Response:
    """From the provider. A page of ours leads on: a browser keeps the cookies of a sign-in from other sites' links."""
    oidc, serving = _oidc(asked), asked.serving
    if not serving.rates.allow("sign in", asked.client, SIGNING_IN, time.monotonic()):
        raise Refused(429, "Too often", "more sign-ins were begun than one person makes", "wait a minute")
    cookie = cookie_in(asked.header("cookie"), "oidc", tls=serving.tls)
    flow = serving.reviews.flows.take(cookie, asked.query.get("state", ""))
    identity = oidc.identity(flow, asked.query)
    user = serving.users.of_identity(identity.issuer, identity.subject)
    to = _proved(asked, flow, identity, user.name) if flow.name else "/"
    response = asked.page("onward.html.j2", name=user.name, to=to)
    if not flow.name:
        give_cookie(response, "session", serving.web_sessions.begin(user), tls=serving.tls)
        take_cookie(response, "visit", tls=serving.tls)
    take_cookie(response, "oidc", tls=serving.tls)
    return response


def _proved(asked: Asked, flow: Flow, identity: Identity, name: str) -> str:
    """Keep what was proved, for whoever began the way and is still signed in; the page that they came from."""
    if name != flow.name or asked.serving.web_sessions.of_hash(flow.session) != flow.name:
        raise AccessRefused(f"you signed in as {name!r}, and it is {flow.name!r} who is about to sign",
                            fix="sign out at the provider, and sign in there as yourself")  # fmt: skip
    asked.serving.reviews.flows.prove(flow, f"subject {identity.subject} of {identity.issuer}")
    return f"/item/{flow.item}#sign"


def _own_origin(asked: Asked) -> str:
    """The desk's own origin under the name that the browser calls it by; no other is ever sent to the provider."""
    scheme = "https" if asked.serving.tls else "http"
    origin = f"{scheme}://{asked.header('host').lower()}"
    if origin not in asked.serving.origins:
        raise Refused(400, "Not by this address", "the desk is not known by the address that you called",
                      f"use {min(asked.serving.origins)}")  # fmt: skip
    return origin


def _oidc(asked: Asked) -> Oidc:
    if asked.serving.oidc is None:
        raise not_found("page")
    return asked.serving.oidc


DOORS = (
    Door("GET", "/sign-in/oidc", PUBLIC, away, away=True),
    Door("GET", BACK, PUBLIC, back, away=True),
    Door("GET", "/item/{item}/again", REVIEWING, again, away=True),
)
