"""An OpenID provider as the desk's second way in: the code flow with PKCE, and an id_token that says who it was.

Nothing is asked of the provider before somebody signs in with it. Of what it gives only issuer and subject are used,
and nothing is kept. Authlib and joserfc exchange the code and check the token; what they leave open is checked here.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from finllm.errors import AccessRefused, InputError
from finllm.files import check_secret
from finllm.settings import LOOPBACK
from finllm.web.refusals import Refused

if TYPE_CHECKING:
    from finllm.memory.oidc_flows import Flow
    from finllm.settings import Settings

SIGNED_WITH = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
"""Algorithms of a token that is believed: with a key pair, never `none` nor a shared secret."""
PAIRS = frozenset(("RSA", "EC", "OKP"))
"""Kinds of keys that a token may be signed with."""
WAIT = 10.0
"""s that the provider may take for one answer."""
MOST_BYTES = 512 * 1024
SKEW = 30.0
"""s that the provider's clock may be off."""
KNOWN = 300.0
"""s for which what the provider says of itself is taken as it was."""


class ProviderFailed(Refused):
    """The provider did not answer, or not as OpenID Connect has it."""

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(502, "The provider did not answer", message, fix)


@dataclass(frozen=True)
class Provider:
    """What the provider says of itself."""

    authorize: str
    token: str
    keys: str
    basic: bool


@dataclass(frozen=True)
class Identity:
    """Who it was: a subject of an issuer. `signed_in`: when they typed or showed something there, s since 1970."""

    issuer: str
    subject: str
    signed_in: float | None


class Oidc:
    """The way to one provider. Thread-safe. Errors: ProviderFailed; AccessRefused for a token that is not believed."""

    def __init__(self, issuer: str, client: str, secret: str, clock: Callable[[], float] = time.time) -> None:
        self.issuer, self._client, self._secret, self._clock = issuer, client, secret, clock
        self._lock = threading.Lock()
        self._known: tuple[float, Provider] | None = None

    @property
    def name(self) -> str:
        """What its button says."""
        return urlsplit(self.issuer).netloc

    def address(self, flow: Flow) -> str:
        """Where the browser goes. Who signs in again has to show anew who they are."""
        again = {"prompt": "login", "max_age": "0"} if flow.name else {}
        with self._session(flow) as session:
            made = session.create_authorization_url(self._provider().authorize, state=flow.state, nonce=flow.nonce,
                                                    code_verifier=flow.verifier, **again)  # fmt: skip
        return str(made[0])

    def identity(self, flow: Flow, answered: Mapping[str, str]) -> Identity:
        """Who it was, from what the browser brought back: the code exchanged, the token checked."""
        if (error := answered.get("error")) is not None:
            said = error if re.fullmatch(r"[a-z_]{1,40}", error) else "an error of its own"
            raise AccessRefused(f"the provider answered {said!r}: nobody was signed in",
                                fix="sign in there, or ask whoever runs it")  # fmt: skip
        if answered.get("iss", self.issuer) != self.issuer:
            raise AccessRefused("the answer came from another provider than was asked", fix="begin again")
        provider = self._provider()
        token = self._exchange(provider, flow, answered.get("code", ""))
        return self._checked(token, provider, flow)

    def _exchange(self, provider: Provider, flow: Flow, code: str) -> Mapping[str, Any]:
        from authlib.integrations.base_client import OAuthError

        if not code:
            raise AccessRefused("the provider sent no code", fix="begin again")
        try:
            with self._session(flow, provider) as session:
                return session.fetch_token(provider.token, grant_type="authorization_code", code=code,
                                           code_verifier=flow.verifier, redirect_uri=flow.redirect)  # fmt: skip
        except OAuthError as error:
            raise AccessRefused(
                f"the provider did not take the code: {str(error.error)[:60]}",
                fix="begin again; a code is good once. Where it stays so, whoever runs the desk checks "
                "oidc_client_id and its secret") from error  # fmt: skip
        except Exception as error:
            raise self._no_answer(error) from error

    def _checked(self, token: Mapping[str, Any], provider: Provider, flow: Flow) -> Identity:
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet
        from joserfc.jws import JWSRegistry

        listed = self._get(provider.keys).get("keys")
        keys = [one for one in listed if isinstance(one, dict) and one.get("kty") in PAIRS] \
            if isinstance(listed, list) else []  # fmt: skip
        options: Any = {"iss": {"essential": True, "value": self.issuer},
                        "aud": {"essential": True, "value": self._client},
                        "sub": {"essential": True}, "exp": {"essential": True},
                        "nonce": {"essential": True, "value": flow.nonce}}  # fmt: skip
        given: Any = {"nonce": flow.nonce, "client_id": self._client, "access_token": token.get("access_token")}
        try:
            read = jwt.decode(str(token.get("id_token", "")), KeySet.import_key_set(cast("Any", {"keys": keys})),
                              registry=JWSRegistry(algorithms=SIGNED_WITH, strict_check_header=False))  # fmt: skip
            claims = CodeIDToken(read.claims, read.header, options, given)
            claims.validate(now=int(self._clock()), leeway=int(SKEW))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise AccessRefused(f"the provider's token is not believed: {_why(error)}",
                                fix="begin again; where it stays so, whoever runs the desk compares its issuer, its "
                                    "client id and its clock with the provider's") from error  # fmt: skip
        subject, when = claims["sub"], claims.get("auth_time")
        identity = Identity(self.issuer, subject, float(when) if isinstance(when, int | float) else None)
        if flow.name and (identity.signed_in is None or identity.signed_in < flow.began - SKEW):
            raise AccessRefused("the provider did not ask anew who you are, and to sign takes that",
                                fix="sign out there and try again; whoever runs it has to honour prompt=login and to "
                                    "send auth_time")  # fmt: skip
        return identity

    def _session(self, flow: Flow, provider: Provider | None = None) -> Any:
        """Authlib's client, which has no types of its own, to use as a context."""
        from authlib.integrations.httpx_client import OAuth2Client

        method = ("client_secret_basic" if provider is None or provider.basic else "client_secret_post") \
            if self._secret else "none"  # fmt: skip
        return OAuth2Client(client_id=self._client, client_secret=self._secret or None, scope="openid",
                            redirect_uri=flow.redirect, code_challenge_method="S256",
                            token_endpoint_auth_method=method, timeout=WAIT, follow_redirects=False)  # fmt: skip

    def _provider(self) -> Provider:
        with self._lock:
            if self._known is not None and self._clock() - self._known[0] < KNOWN:
                return self._known[1]
        said = self._get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if said.get("issuer") != self.issuer:
            raise ProviderFailed(f"{self.issuer} calls itself {str(said.get('issuer'))[:200]!r}",
                                 fix="set oidc_issuer to what it calls itself, letter for letter")  # fmt: skip
        authorize, token, keys = (str(said.get(name, "")) for name in (
            "authorization_endpoint", "token_endpoint", "jwks_uri"))  # fmt: skip
        for url in (authorize, token, keys):
            if not _safe(url):
                raise ProviderFailed(f"{self.issuer} names an address that is not https: {url[:200]!r}",
                                     fix="mend it at the provider")  # fmt: skip
        methods = said.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        found = Provider(authorize, token, keys, "client_secret_basic" in methods)
        with self._lock:
            self._known = (self._clock(), found)
        return found

    def _get(self, url: str) -> dict[str, Any]:
        import httpx2

        try:
            with httpx2.Client(timeout=WAIT, follow_redirects=False) as client, client.stream("GET", url) as answer:
                answer.raise_for_status()
                body = bytearray()
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > MOST_BYTES:
                        raise ValueError("a longer answer than is read")
            said = httpx2.Response(200, content=bytes(body)).json()
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise self._no_answer(error) from error
        if not isinstance(said, dict):
            raise self._no_answer(ValueError("not a JSON object"))
        return cast("dict[str, Any]", said)

    def _no_answer(self, error: Exception) -> ProviderFailed:
        return ProviderFailed(f"{self.name} did not answer as a provider does: {type(error).__name__}",
                              fix="try again; a pass phrase opens the desk meanwhile, where it has them")  # fmt: skip


def oidc_of(settings: Settings) -> Oidc | None:
    """The provider that the settings name; None where they name none. Errors: InputError for half of the settings."""
    if settings.oidc_issuer is None:
        if settings.oidc_only:
            raise InputError("oidc_only is set and no oidc_issuer: nobody could sign in",
                             fix="set FINLLM_OIDC_ISSUER, or take oidc_only away")  # fmt: skip
        return None
    if not settings.oidc_client_id:
        raise InputError("oidc_issuer is set and no oidc_client_id", fix="set FINLLM_OIDC_CLIENT_ID as it is there")
    try:
        import authlib  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise InputError("signing in by OpenID Connect needs authlib, which is not installed",
                         fix="pip install 'finllm[web]'") from error  # fmt: skip
    return Oidc(settings.oidc_issuer, settings.oidc_client_id, _secret_of(settings))


def _secret_of(settings: Settings) -> str:
    path = settings.oidc_client_secret_file
    if path is None:
        return settings.oidc_client_secret.get_secret_value() if settings.oidc_client_secret else ""
    try:
        check_secret(path, "the file of the provider's secret")
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", fix="mend oidc_client_secret_file") from error


def _safe(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.hostname) and (parts.scheme == "https" or parts.hostname in LOOPBACK) and "@" not in parts.netloc


def _why(error: Exception) -> str:
    """Which check it was that failed, in a word or two of the library's; nothing of the token."""
    claim = getattr(error, "claim", "") or getattr(error, "claims", "")
    name = str(getattr(error, "error", "") or type(error).__name__).replace("_", " ")
    return f"{name} ({claim})" if claim else name
