"""What every request passes before a handler sees it: rate, session, role, origin and form token, bounded form."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from finllm.errors import AccessRefused, FinllmError, InputError, RecordError, ReviewRefused, as_finllm_error
from finllm.web.doors import PUBLIC, Asked, Door
from finllm.web.forms import MOST_BYTES, MOST_QUERY, BadForm, parse_form
from finllm.web.rates import READING, VISITING, WRITING
from finllm.web.refusals import NotFound, Refused
from finllm.web.rendering import render
from finllm.web.serving import Serving
from finllm.web.tokens import cookie_of, form_token, give_cookie, good_token, new_visit

SLOWEST_FORM = 10.0
"""s in which a form has to have arrived."""
PASSING = frozenset(("claimed", "closed", "bytes"))
"""Rules of reviews that refuse what may be done another time; the others refuse the person."""
FORM = "application/x-www-form-urlencoded"
T = TypeVar("T")


class Guarded:
    """The endpoint of a door. It is an ASGI application, so that no decorator can be left out."""

    def __init__(self, door: Door, serving: Serving) -> None:
        self.door, self.serving = door, serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except BadForm as error:
            response = told(error.status, "This was not read", error.why, "go back, and send it again")
        except Refused as error:
            response = told(error.status, error.title, error.message, error.fix)
        except ReviewRefused as error:
            response = told(409 if error.rule in PASSING else 403, "Not done", error.message, error.fix)
        except AccessRefused as error:
            response = told(403, "Not allowed", error.message, error.fix)
        except FinllmError as error:
            response = failed(error)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001  a page that fails is a page that says so
            self.serving.report(error)
            response = failed(as_finllm_error(error))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        serving, door = self.serving, self.door
        secret = cookie_of(request, "session", tls=serving.tls)
        client = request.client.host if request.client else "-"
        self._slow_down(request, secret or client, signed_in=bool(secret))
        user = await self.apart(lambda: serving.user_of(secret)) if secret else None
        visit = "" if user else cookie_of(request, "visit", tls=serving.tls)
        bound_to = secret if user else visit or new_visit()
        if door.roles is not PUBLIC:
            if user is None:
                return self._to_sign_in(request)
            if user.role not in door.roles:
                raise Refused(403, "Not with your role", f"{door.path} is for {', '.join(sorted(door.roles))}; "
                              f"you are {user.role}", "ask whoever has that role")  # fmt: skip
        form = await self._form(request, bound_to) if request.method == "POST" else {}
        query = _query(request)
        asked = Asked(serving, door, user, dict(request.path_params), query, form, form_token(bound_to),
                      secret if user else "", client, request.headers)  # fmt: skip
        response = await self.apart(lambda: door.handler(asked), slow=door.slow, away=door.away)
        if user is None and not visit and door.path == "/sign-in":
            give_cookie(response, "visit", bound_to, tls=serving.tls)
        return response

    async def apart(self, work: Callable[[], T], *, slow: bool = False, away: bool = False) -> T:
        """On a thread: what waits for the disk or works out a hash keeps nobody else waiting."""
        limiter = self.serving.slow if slow else self.serving.away if away else self.serving.threads
        return await anyio.to_thread.run_sync(work, limiter=limiter)

    def _slow_down(self, request: Request, whose: str, *, signed_in: bool) -> None:
        now, rates = time.monotonic(), self.serving.rates
        ok = rates.allow("read", whose, READING if signed_in else VISITING, now)
        if request.method == "POST":
            ok = rates.allow("write", whose, WRITING, now) and ok
        if not ok:
            raise Refused(429, "Too often", "more requests came than one person makes", "wait a moment, and try again")

    async def _form(self, request: Request, bound_to: str) -> dict[str, str]:
        """The form, once its origin and its token have shown that our page sent it."""
        if not self.serving.own_origin(request.headers):
            raise Refused(403, "Not from this desk", "the form was not sent by a page of this desk",
                          "open the page here, and send the form again")  # fmt: skip
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
            raise BadForm(415, f"a form is sent as {FORM}")
        form = parse_form(await _body(request))
        if not good_token(bound_to, form.pop("token", "")):
            raise Refused(403, "The form is too old", "its token is not of this session", "open the page again")
        return form

    def _to_sign_in(self, request: Request) -> Response:
        if request.method != "GET" or self.door.held:
            raise Refused(401, "Signed out", "nobody is signed in", "sign in, and do it again")
        return RedirectResponse("/sign-in", 303)


async def _body(request: Request) -> bytes:
    """The body, within its bounds. Errors: BadForm for one that is too long or comes too slowly."""
    if int(request.headers.get("content-length") or 0) > MOST_BYTES:
        raise BadForm(413, f"a form of more than {MOST_BYTES:,} bytes")
    parts = bytearray()
    try:
        with anyio.fail_after(SLOWEST_FORM):
            async for part in request.stream():
                parts += part
                if len(parts) > MOST_BYTES:
                    raise BadForm(413, f"a form of more than {MOST_BYTES:,} bytes")
    except TimeoutError as error:
        raise BadForm(408, f"the form took longer than {SLOWEST_FORM:.0f} s to arrive") from error
    return bytes(parts)


def _query(request: Request) -> dict[str, str]:
    raw: Any = request.scope["query_string"]
    return parse_form(raw, MOST_QUERY)


def told(status: int, title: str, message: str, fix: str) -> HTMLResponse:
    """A page that says why something was not done, and what mends it."""
    return HTMLResponse(render("told.html.j2", {"title": title, "message": message, "fix": fix, "user": None}), status)


def failed(error: FinllmError) -> HTMLResponse:
    """A failure as a page: what is wrong with the input, what cannot be written now, or something unforeseen."""
    if isinstance(error, NotFound):
        return told(404, "Not here", error.message, error.fix)
    status = 400 if isinstance(error, InputError) else 503 if isinstance(error, RecordError) else 409
    title = {400: "That cannot be done", 503: "The record cannot be written or read now"}.get(status, "Not done")
    return told(500 if error.kind == "internal" else status, title, error.message, error.fix)
