"""Signing in and out: a pass phrase against argon2id, an opaque session on the server, no word which part was wrong."""

from __future__ import annotations

import time

from starlette.responses import RedirectResponse, Response

from finllm.errors import AccessRefused, InputError
from finllm.web.doors import PUBLIC, SIGNED_IN, Asked, Door
from finllm.web.rates import SIGNING_IN
from finllm.web.refusals import Refused
from finllm.web.tokens import give_cookie, take_cookie

MAY = {
    "analyst": "read everything, and work in sessions of their own",
    "risk": "read everything, work in sessions of their own, and put versions to review",
    "reviewer": "read everything, claim what was put to review, sign it or send it back",
    "auditor": "what a reviewer may, what was escalated, and the audits",
    "admin": "what an auditor may; users are added where the desk runs",
}


def ask(asked: Asked, failed: object = None, status: int = 200) -> Response:
    """The form."""
    if asked.user is not None:
        return RedirectResponse("/", 303)
    return asked.page("sign_in.html.j2", status, failed=failed, **ways(asked))


def ways(asked: Asked) -> dict[str, object]:
    """How one may sign in here: by pass phrase, with a provider of that name, or either."""
    oidc = asked.serving.oidc
    return {"phrases": asked.serving.users.phrases, "provider": oidc.name if oidc else ""}


def sign_in(asked: Asked) -> Response:
    """Look at the pass phrase; begin a session of its own, whatever cookie came along."""
    serving = asked.serving
    if not serving.rates.allow("sign in", asked.client, SIGNING_IN, time.monotonic()):
        raise Refused(429, "Too often", "more pass phrases were tried than one person mistypes", "wait a minute")
    try:
        user = serving.users.verify(asked.form.get("name", ""), asked.form.get("phrase", ""))
    except AccessRefused as error:
        return ask(asked, error, 403)
    response = RedirectResponse("/", 303)
    give_cookie(response, "session", serving.web_sessions.begin(user), tls=serving.tls)
    take_cookie(response, "visit", tls=serving.tls)
    return response


def sign_out(asked: Asked) -> Response:
    asked.serving.web_sessions.revoke(asked.secret)
    return _out(asked)


def everywhere(asked: Asked) -> Response:
    asked.serving.web_sessions.revoke_all(asked.who.name)
    return _out(asked)


def account(asked: Asked, failed: object = None, status: int = 200) -> Response:
    return asked.page("account.html.j2", status, failed=failed, may=MAY[asked.who.role], **ways(asked))


def change_phrase(asked: Asked) -> Response:
    """Another pass phrase, which ends every session of theirs."""
    form = asked.form
    if form.get("phrase", "") != form.get("again", ""):
        return account(asked, InputError("the new pass phrase was typed in two ways", fix="type both again"), 400)
    try:
        asked.serving.users.change_phrase(asked.who.name, form.get("phrase", ""), by=asked.who.name,
                                          old=form.get("old", ""))  # fmt: skip
    except (AccessRefused, InputError) as error:
        return account(asked, error, 403 if isinstance(error, AccessRefused) else 400)
    asked.serving.web_sessions.revoke_all(asked.who.name)
    return _out(asked)


def _out(asked: Asked) -> Response:
    response = RedirectResponse("/sign-in", 303)
    take_cookie(response, "session", tls=asked.serving.tls)
    return response


DOORS = (
    Door("GET", "/sign-in", PUBLIC, ask),
    Door("POST", "/sign-in", PUBLIC, sign_in, slow=True),
    Door("POST", "/sign-out", SIGNED_IN, sign_out),
    Door("GET", "/account", SIGNED_IN, account),
    Door("POST", "/account/phrase", SIGNED_IN, change_phrase, slow=True),
    Door("POST", "/account/everywhere", SIGNED_IN, everywhere),
)
