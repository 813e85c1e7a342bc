"""Calls at the doors of other nodes: the cluster's authority is known by its digest before anything is told to it."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from finllm.errors import BackendError, InputError
from finllm.files import make_private
from finllm.scheduler.cluster import Refused
from finllm.scheduler.cluster.certificates import ca_digest
from finllm.scheduler.cluster.door import tls
from finllm.scheduler.cluster.place import Place

SECONDS = 30.0
_PIECE = 1 << 20


def split(address: str) -> tuple[str, int]:
    """Errors: InputError for what is not HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"{address!r} is no address", fix="give HOST:PORT, as 'finllm cluster token' prints it")
    return host.strip("[]"), int(port)


def asked_ca(address: str, digest: str) -> bytes:
    """The authority's certificate, PEM, from a door that is not believed yet: only its digest is.

    Errors: Refused where the digest is another's; BackendError where nobody answers.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    pem = str(_call(address, "/ca", {}, context)["ca"]).encode()
    try:
        found = ca_digest(pem)
    except ValueError as error:
        raise Refused("what answered is no cluster's authority", fix=_TOKEN) from error
    if found != digest:
        raise Refused("what answered is another authority than the token names", fix=_TOKEN)
    return pem


def knock(place: Place, address: str, path: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """A call at a node's door, by both sides' certificates. Errors: Refused, BackendError; those that it answers."""
    return _call(address, path, said, tls(place, server=False))


def knock_first(ca_path: Path, address: str, path: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """A call by who has no certificate yet; the door must show one of this authority. Errors: as `knock`."""
    context = ssl.create_default_context(cafile=str(ca_path))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return _call(address, path, said, context)


def fetch(place: Place, address: str, digest: str, to: Path) -> None:
    """Fetch the file of this digest (sha256) from a node. Errors: Refused where what came is another; as `knock`."""
    make_private(to.parent)
    partial, found = to.with_name(f".{to.name}.fetched"), sha256()
    connection = _open(address, tls(place, server=False))
    try:
        connection.request("POST", "/weights", json.dumps({"sha256": digest}))
        response = connection.getresponse()
        if response.status != 200:
            raise _told(response.read())
        with partial.open("wb") as file:
            while piece := response.read(_PIECE):
                found.update(piece)
                file.write(piece)
        if found.hexdigest() != digest:
            raise Refused(
                f"{address} sent other weights than {digest[:16]}", fix="check that node with 'models verify'"
            )
        partial.replace(to)
    except (OSError, http.client.HTTPException) as error:
        raise BackendError(f"cannot fetch weights from {address}: {error}", fix="join again") from error
    finally:
        partial.unlink(missing_ok=True)
        connection.close()


def _call(address: str, path: str, said: Mapping[str, Any], context: ssl.SSLContext) -> dict[str, Any]:
    connection = _open(address, context)
    try:
        connection.request("POST", path, json.dumps(said))
        response = connection.getresponse()
        body = response.read()
    except ssl.SSLError as error:
        raise Refused(f"{address}: the handshake was refused: {error.reason or error}", fix=_TOKEN) from error
    except (OSError, http.client.HTTPException) as error:
        raise BackendError(
            f"{address} does not answer: {error}", fix="check that it runs: 'finllm cluster status'"
        ) from error
    finally:
        connection.close()
    if response.status != 200:
        raise _told(body)
    return json.loads(body)


def _open(address: str, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    host, port = split(address)
    return http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)


def _told(body: bytes) -> Refused:
    try:
        error = json.loads(body)["error"]
        return Refused(str(error["message"]), fix=str(error["fix"]))
    except (ValueError, KeyError, TypeError):
        return Refused("the other node answered what cannot be read", fix="use the same version of finllm on both")


_TOKEN = "make a new token with 'finllm cluster token' at the cluster's first node"
