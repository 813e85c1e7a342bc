"""What a node's doors answer: the authority's to join, renew and leave by; every node's to give weights by digest."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from finllm.scheduler.cluster import Refused
from finllm.scheduler.cluster.authority import Authority
from finllm.scheduler.cluster.certificates import Holder
from finllm.scheduler.cluster.door import Handler

_PIECE = 1 << 20

Files = Callable[[], Mapping[str, Path]]
"""The weights that this node has, by digest (sha256)."""


def proof_of(nonce: str, path: Path) -> str:
    """Hex sha256 of a nonce and a file behind it: only who has the whole file can tell it. Errors: OSError."""
    found = sha256(nonce.encode())
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


class Admitting:
    """The authority's side of joining. `build`: what answers here; `facts`: what a node that was let in is told."""

    def __init__(self, authority: Authority, files: Files, build: str, facts: Callable[[], Mapping[str, Any]]) -> None:
        self._authority, self._files, self._build, self._facts = authority, files, build, facts
        self._lock = threading.Lock()
        self._nonces: dict[str, int] = {}

    def first_routes(self) -> dict[str, Handler]:
        """Of the door for who has no certificate yet."""
        return {"/ca": self._ca, "/join": self._join}

    def _ca(self, holder: Holder | None, said: Mapping[str, Any]) -> dict[str, Any]:
        del holder, said
        return {"ca": self._authority.ca_pem.decode()}

    def routes(self) -> dict[str, Handler]:
        """Of the door for members."""
        return {"/renew": self._renew, "/challenge": self._challenge, "/prove": self._prove, "/leave": self._leave}

    def _join(self, _: Holder | None, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        certificate = self._authority.join(str(asked["secret"]), str(asked["request"]).encode())
        return {"certificate": certificate.decode(), "crl": self._authority.crl.decode(), **self._facts()}

    def _renew(self, holder: Holder | None, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        certificate = self._authority.renew(_name(holder), str(asked["request"]).encode())
        return {"certificate": certificate.decode()}

    def _challenge(self, holder: Holder | None, _: Mapping[str, Any]) -> Mapping[str, Any]:
        nonce = secrets.token_hex(16)
        with self._lock:
            self._nonces[nonce] = holder.serial if holder else 0
        return {"nonce": nonce}

    def _prove(self, holder: Holder | None, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """Admit a node whose weights and build are those that are known here. Errors: Refused, on record."""
        name, nonce = _name(holder), str(asked["nonce"])
        try:
            with self._lock:
                if holder is None or self._nonces.pop(nonce, None) != holder.serial:
                    raise Refused(f"{name!r} shows a proof that was not asked for", fix=_AGAIN)
            if asked["build"] != self._build:
                raise Refused(f"{name!r} answers with {asked['build']!r}, here it is {self._build!r}", fix=_SAME)
            files = self._files()
            for digest, proof in dict(asked["proofs"]).items():
                if digest not in files:
                    raise Refused(f"{name!r} offers weights that nobody here knows: {str(digest)[:16]}", fix=_SAME)
                if proof_of(nonce, files[digest]) != proof:
                    raise Refused(f"{name!r} does not have the weights that it names: {str(digest)[:16]}", fix=_SAME)
        except Refused as error:
            self._authority.refuse({"node": name, "why": error.message})
            raise
        weights = [*asked["proofs"], *asked["servers"]]
        return {"admission": self._authority.admission(name, holder.serial, weights, self._build).decode()}

    def _leave(self, holder: Holder | None, _: Mapping[str, Any]) -> Mapping[str, Any]:
        self._authority.revoke(_name(holder), "it left")
        return {}


def weights_route(files: Files) -> dict[str, Handler]:
    """The route by which any member fetches weights."""

    def weights(_: Holder | None, asked: Mapping[str, Any]) -> Path:
        digest = str(asked["sha256"])
        found = files().get(digest)
        if found is None:
            raise Refused(f"this node has no weights {digest[:16]}", fix="ask another")
        return found

    return {"/weights": weights}


def _name(holder: Holder | None) -> str:
    return "?" if holder is None else holder.name


_AGAIN = "join again"
_SAME = "use the same model, adapter and version of finllm on all nodes"
