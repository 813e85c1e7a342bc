"""The cluster's authority: its key never leaves its home; it vouches for nodes that show a token, once each."""

from __future__ import annotations

import base64
import datetime as dt
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509

from finllm.errors import InputError
from finllm.files import check_secret, exclusive, write_atomically
from finllm.scheduler.cluster import Refused, Told
from finllm.scheduler.cluster.certificates import (
    ca_digest,
    key_pem,
    made_authority,
    new_key,
    pem_of,
    read_key,
    read_request,
    revocation_list,
    signed_certificate,
)
from finllm.scheduler.cluster.place import Place, utc_now
from finllm.scheduler.cluster.signed import Signer

LIFE = dt.timedelta(hours=24)
"""How long a node's certificate holds; the node asks for the next at half of it."""
TOKEN_LIFE = dt.timedelta(hours=1)


@dataclass(frozen=True)
class Token:
    """What lets one node join once. `ca`: the digest that the authority is known by before anything is told to it."""

    address: str
    ca: str
    secret: str

    def text(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode()

    @classmethod
    def read(cls, text: str) -> Token:
        """Errors: InputError for what is no token."""
        try:
            return cls(**json.loads(base64.urlsafe_b64decode(text.strip())))
        except (ValueError, TypeError) as error:
            raise InputError("the token cannot be read", fix="make one with 'finllm cluster token'") from error


@dataclass(frozen=True)
class _Issued:
    """A token by the digest of its secret, and what became of it; times in s since 1970."""

    until: float
    used_by: str | None = None


@dataclass(frozen=True)
class _Vouched:
    serial: int
    until: float
    revoked: bool = False


class Authority:
    """The authority in `place`. Its files are changed under a lock, so that a token is used once whoever asks.

    `told` puts on record what it grants and refuses. Errors: InputError where there is none, or its key lies open.
    """

    def __init__(self, place: Place, told: Told, now: Callable[[], dt.datetime] = utc_now) -> None:
        self._place, self._told, self._now = place, told, now
        try:
            check_secret(self._key_path, "the authority's key")
            self._key = read_key(self._key_path.read_bytes())
            self.ca_pem = place.ca_path.read_bytes()
        except FileNotFoundError as error:
            raise InputError("this home has no cluster's authority", fix="ask at the home of 'cluster init'") from error
        self._ca = x509.load_pem_x509_certificate(self.ca_pem)

    @classmethod
    def make(cls, place: Place, name: str, told: Told, now: Callable[[], dt.datetime] = utc_now) -> Authority:
        """A new one. Errors: InputError where this home has one."""
        if (place.folder / "ca.key").exists():
            raise InputError("this home has a cluster's authority already", fix="run 'finllm cluster leave' first")
        key = new_key()
        ca = made_authority(name, key, now())
        write_atomically(place.folder / "ca.key", key_pem(key))
        write_atomically(place.ca_path, pem_of(ca))
        write_atomically(place.crl_path, revocation_list((), ca, key, now()))
        told("cluster.made", {"name": name, "ca": ca_digest(pem_of(ca))})
        return cls(place, told, now)

    @property
    def _key_path(self) -> Path:
        return self._place.folder / "ca.key"

    def token(self, address: str, life: dt.timedelta = TOKEN_LIFE) -> Token:
        """A token that lets one node join at `address` within its life."""
        token = Token(address, ca_digest(self.ca_pem), secrets.token_urlsafe(32))
        with self._locked():
            issued = self._tokens()
            issued[_hash(token.secret)] = _Issued((self._now() + life).timestamp())
            self._keep("tokens.json", {name: asdict(one) for name, one in issued.items()})
        until = int((self._now() + life).timestamp())
        self._told("cluster.token", {"token": _hash(token.secret)[:16], "until": until})
        return token

    def join(self, secret: str, request_pem: bytes, life: dt.timedelta = LIFE) -> bytes:
        """A node's first certificate, PEM, for a token that nobody has used. Errors: Refused, on record."""
        name = "?"
        try:
            name, request = read_request(request_pem)
            with self._locked():
                issued, digest = self._tokens(), _hash(secret)
                found = issued.get(digest)
                if found is None:
                    raise Refused("the token is none of this cluster's", fix=_AGAIN)
                if found.used_by is not None:
                    raise Refused(f"the token was used before, by {found.used_by!r}", fix=_AGAIN)
                if found.until < self._now().timestamp():
                    raise Refused("the token has expired", fix=_AGAIN)
                if (old := self._vouched().get(name)) and not old.revoked and old.until > self._now().timestamp():
                    raise Refused(f"there is a node {name!r} already", fix="give another --name, or revoke that one")
                issued[digest] = replace(found, used_by=name)
                self._keep("tokens.json", {at: asdict(one) for at, one in issued.items()})
                return self._vouch(name, request, life)
        except Refused as error:
            self._told("cluster.refused", {"node": name, "why": error.message})
            raise

    def renew(self, holder: str, request_pem: bytes, life: dt.timedelta = LIFE) -> bytes:
        """The next certificate of a node that showed a good one over TLS as `holder`. Errors: Refused, on record."""
        try:
            name, request = read_request(request_pem)
            if name != holder:
                raise Refused(f"{holder!r} asked for a certificate of {name!r}", fix="ask for one's own")
            with self._locked():
                return self._vouch(name, request, life)
        except Refused as error:
            self._told("cluster.refused", {"node": holder, "why": error.message})
            raise

    def revoke(self, name: str, why: str) -> None:
        """A node's certificates hold no longer. Errors: InputError for one that is not known."""
        with self._locked():
            vouched = self._vouched()
            if name not in vouched:
                raise InputError(f"no node {name!r}", fix=f"use one of {', '.join(sorted(vouched)) or 'none'}")
            vouched[name] = replace(vouched[name], revoked=True)
            serials = self._revoked() | {vouched[name].serial}
            self._keep("revoked.json", sorted(map(str, serials)))
            self._keep("nodes.json", {at: asdict(one) for at, one in vouched.items()})
            write_atomically(self._place.crl_path, revocation_list(sorted(serials), self._ca, self._key, self._now()))
        self._told("cluster.revoked", {"node": name, "serial": str(vouched[name].serial), "why": why})

    @property
    def crl(self) -> bytes:
        """The list of revoked certificates as it is now, PEM."""
        return self._place.crl_path.read_bytes()

    def admission(self, name: str, serial: int, weights: Sequence[str], build: str) -> bytes:
        """The authority's word, signed, that a node has shown these weights (sha256) and this build."""
        said = {"node": name, "serial": str(serial), "weights": sorted(weights), "build": build,
                "at": int(self._now().timestamp())}  # fmt: skip
        self._told("cluster.admitted", said)
        return Signer(self._key, self.ca_pem).sign("admission", said)

    def refuse(self, about: Mapping[str, Any]) -> None:
        """Put on record what was refused elsewhere, such as a proof."""
        self._told("cluster.refused", about)

    def nodes(self) -> dict[str, bool]:
        """The nodes that were vouched for, by name: whether their certificate holds."""
        now = self._now().timestamp()
        return {name: not one.revoked and one.until > now for name, one in self._vouched().items()}

    def _vouch(self, name: str, request: x509.CertificateSigningRequest, life: dt.timedelta) -> bytes:
        certificate = signed_certificate(request, self._ca, self._key, self._now(), life)
        vouched = self._vouched()
        vouched[name] = _Vouched(certificate.serial_number, (self._now() + life).timestamp())
        self._keep("nodes.json", {at: asdict(one) for at, one in vouched.items()})
        self._told("cluster.vouched", {"node": name, "serial": str(certificate.serial_number),
                                       "until": int(vouched[name].until)})  # fmt: skip
        return pem_of(certificate)

    def _tokens(self) -> dict[str, _Issued]:
        return {name: _Issued(**one) for name, one in self._read("tokens.json", {}).items()}

    def _vouched(self) -> dict[str, _Vouched]:
        return {name: _Vouched(**one) for name, one in self._read("nodes.json", {}).items()}

    def _revoked(self) -> set[int]:
        return {int(one) for one in self._read("revoked.json", [])}

    def _read(self, name: str, empty: Any) -> Any:
        try:
            return json.loads((self._place.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return empty

    def _keep(self, name: str, value: object) -> None:
        write_atomically(self._place.folder / name, json.dumps(value, indent=1))

    def _locked(self) -> AbstractContextManager[None]:
        return exclusive(self._place.folder / ".lock")


_AGAIN = "make a new one with 'finllm cluster token' at the cluster's first node"


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
