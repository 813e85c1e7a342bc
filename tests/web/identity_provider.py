"""An OpenID provider on loopback with real RSA keys: it asks nobody for a pass phrase, and lies as it is told to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import uvicorn
from joserfc import jwk, jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT, SECRET = "desk", "a secret & shared: with % signs"


@dataclass
class Provider:
    """`who`: the subject that signs in. `lies`: claims that its tokens have instead (None: that they lack); `sign`
    makes a token of header and claims some other way; `answers`: parameters put into its redirect instead."""

    issuer: str
    who: str = "sub-rev1"
    lies: dict[str, Any] = field(default_factory=dict[str, Any])
    sign: Any = None
    answers: dict[str, Any] = field(default_factory=dict[str, Any])
    says: dict[str, Any] = field(default_factory=dict[str, Any])
    asked: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    key: Any = field(default_factory=lambda: jwk.RSAKey.generate_key(2048, {"kid": "k1", "use": "sig"}))
    _codes: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    given: list[str] = field(default_factory=list[str])

    def discovery(self, request: Request) -> Response:
        del request
        return JSONResponse({"issuer": self.issuer, "authorization_endpoint": f"{self.issuer}/authorize",
                             "token_endpoint": f"{self.issuer}/token", "jwks_uri": f"{self.issuer}/keys",
                             "response_types_supported": ["code"], **self.says})  # fmt: skip

    def keys(self, request: Request) -> Response:
        del request
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})

    def authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        self.asked.append(asked)
        if asked.get("client_id") != CLIENT or asked.get("response_type") != "code":
            return HTMLResponse("not a client of mine", 400)
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        back = {"code": code, "state": asked["state"], **self.answers}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode({k: v for k, v in back.items() if v})}", 302)

    async def token(self, request: Request) -> Response:
        form = await request.form()
        scheme, _, said = request.headers.get("authorization", "").partition(" ")
        if scheme != "Basic" or not _is_client(base64.b64decode(said).decode()):
            return JSONResponse({"error": "invalid_client"}, 401)
        asked = self._codes.pop(str(form.get("code")), None)
        proof = hashlib.sha256(str(form.get("code_verifier", "")).encode()).digest()
        if (asked is None or form.get("redirect_uri") != asked["redirect_uri"]
                or _encoded(proof) != asked.get("code_challenge")):  # fmt: skip
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": self.who, "aud": CLIENT, "exp": now + 300, "iat": now,
                  "nonce": asked["nonce"], "auth_time": now, "email": "rev2@example.com", **self.lies}  # fmt: skip
        made = {name: value for name, value in claims.items() if value is not None}
        access = secrets.token_urlsafe(24)
        token = (self.sign or self._signed)({"alg": "RS256", "kid": "k1"}, made)
        self.given += [access, token]
        return JSONResponse({"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": token})

    def _signed(self, header: dict[str, Any], claims: dict[str, Any]) -> str:
        return jwt.encode(header, claims, self.key)

    def unsigned(self, header: dict[str, Any], claims: dict[str, Any]) -> str:
        """A token that says of itself that it is not signed."""
        del header
        return _joined({"alg": "none", "typ": "JWT"}, claims) + "."

    def with_public_key_as_secret(self, header: dict[str, Any], claims: dict[str, Any]) -> str:
        """CVE-2024-37568: the public key, which everybody has, taken for the secret of an HMAC."""
        del header
        said = _joined({"alg": "HS256", "kid": "k1"}, claims)
        return f"{said}.{_encoded(hmac.digest(self.key.as_pem(private=False), said.encode(), 'sha256'))}"

    def with_own_key(self, header: dict[str, Any], claims: dict[str, Any]) -> str:
        """CVE-2026-27962: a forger's key, brought along in the token's own header."""
        forged = jwk.ECKey.generate_key("P-256")
        return jwt.encode({"alg": "ES256", "jwk": forged.as_dict(private=False)}, claims, forged)

    def with_another_key(self, header: dict[str, Any], claims: dict[str, Any]) -> str:
        """Signed by somebody else, under the provider's key's name."""
        return jwt.encode(header, claims, jwk.RSAKey.generate_key(2048))


def _joined(*parts: dict[str, Any]) -> str:
    return ".".join(_encoded(json.dumps(part).encode()) for part in parts)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _is_client(said: str) -> bool:
    return said in (f"{CLIENT}:{SECRET}", urlencode({CLIENT: SECRET}).replace("=", ":"))


@contextmanager
def provider_at(host: str = "127.0.0.1") -> Iterator[Provider]:
    """The provider, listening; `localhost` is another site than the desk's 127.0.0.1 to a browser."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one = Provider(f"http://{host}:{port}")
    app = Starlette(routes=[
        Route("/.well-known/openid-configuration", one.discovery), Route("/keys", one.keys),
        Route("/authorize", one.authorize), Route("/token", one.token, methods=["POST"]),
    ])  # fmt: skip
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < until
        time.sleep(0.01)
    try:
        yield one
    finally:
        server.should_exit = True
        thread.join(60)
