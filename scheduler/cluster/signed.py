"""Statements signed with a node's key: what it offers, and every answer it gives; believed only by its certificate."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric import ec

from finllm.scheduler.backends import Generation, Request
from finllm.scheduler.cluster import Refused
from finllm.scheduler.cluster.certificates import Holder, signature, signed_by
from finllm.scheduler.cluster.place import Place
from finllm.scheduler.money.amount import Amount
from finllm.scheduler.placement.task import canonical


@dataclass(frozen=True)
class Signer:
    """A node's key and the certificate that vouches for it, PEM."""

    key: ec.EllipticCurvePrivateKey
    certificate: bytes

    def sign(self, about: str, said: Mapping[str, Any]) -> bytes:
        """The statement as JSON with its signature; `about` tells statements of one kind from those of others."""
        text = canonical([about, said]).decode()
        value = base64.b64encode(signature(self.key, text.encode())).decode()
        return canonical({"said": text, "signature": value, "certificate": self.certificate.decode()})


def opened(envelope: bytes, about: str, place: Place) -> tuple[Holder, dict[str, Any]]:
    """Who said what, by a certificate that holds now. Errors: Refused where anything does not."""
    try:
        parts = json.loads(envelope)
        text, value = str(parts["said"]), base64.b64decode(parts["signature"], validate=True)
        certificate = str(parts["certificate"]).encode()
        kind, said = json.loads(text)
    except (ValueError, TypeError, KeyError) as error:
        raise Refused(f"a signed statement cannot be read: {error}", fix=_SEE) from error
    holder = place.holder(certificate)
    if kind != about or not isinstance(said, dict) or not signed_by(holder.public, value, text.encode()):
        raise Refused(f"a statement of {about!r} is not signed by {holder.name!r}, whom it names", fix=_SEE)
    return holder, cast(dict[str, Any], said)


def request_digest(request: Request) -> str:
    """Hex sha256 of what a call asks: everything that its answer may depend on."""
    template = [{"step": type(step).__name__, **asdict(step)} for step in request.template]
    asked = {"prompt": asdict(request.prompt), "template": template, "priors": request.priors, "seed": request.seed}
    return sha256(canonical(asked)).hexdigest()


def answer_of(generation: Generation) -> dict[str, Any]:
    """A generation as JSON-able data."""
    return asdict(generation)


def generation_of(said: Mapping[str, Any]) -> Generation:
    """The generation that `answer_of` made data of. Errors: Refused for what is none."""
    try:
        joules = said["joules"]
        parts: dict[str, Any] = {**said, "joules": None if joules is None else Amount(**joules)}
        return Generation(**parts)
    except (KeyError, TypeError) as error:
        raise Refused(f"an answer cannot be read: {error}", fix=_SEE) from error


_SEE = "see 'finllm cluster doctor'; revoke that node if it should not have said so"
