"""A node's own doors: small HTTPS services. All but the one that takes in new nodes ask for a certificate."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from finllm.errors import BackendError, FinllmError
from finllm.scheduler.cluster import Refused, Told
from finllm.scheduler.cluster.certificates import Holder
from finllm.scheduler.cluster.place import Place

LONGEST = 1 << 20
"""Bytes of the longest body that is read."""
PATIENCE = 10.0
"""s that a caller may take for its handshake, and for each step after it."""
_PIECE = 1 << 20

Handler = Callable[[Holder | None, Mapping[str, Any]], Mapping[str, Any] | Path]
"""`handler(holder, asked)`: JSON-able data in and out, or a file. `holder` is None at a door that asks for none."""


def tls(place: Place, *, server: bool, mutual: bool = True) -> ssl.SSLContext:
    """TLS 1.3 by the cluster's authority alone, with this node's certificate, against its list of revoked ones."""
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    context = ssl.create_default_context(purpose, cafile=str(place.ca_path))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if place.certificate_path.exists():
        context.load_cert_chain(place.certificate_path, place.key_path)
    if mutual or not server:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cafile=str(place.crl_path))
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


@dataclass
class Door:
    """Listens at `host`; port 0: one that is free. `mutual`: only for holders of a certificate that holds.

    `told` puts refused handshakes on record, with why.
    """

    place: Place
    routes: Mapping[str, Handler]
    told: Told
    host: str
    port: int = 0
    mutual: bool = True
    _server: ThreadingHTTPServer = field(init=False)

    def __post_init__(self) -> None:
        door = self

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def finish_request(self, request: Any, client_address: Any) -> None:
                request.settimeout(PATIENCE)
                try:
                    context = tls(door.place, server=True, mutual=door.mutual)  # afresh: certificates are renewed
                    with context.wrap_socket(request, server_side=True) as secure:
                        super().finish_request(secure, client_address)
                except (ssl.SSLError, FinllmError) as error:
                    why = getattr(error, "reason", None) or str(error)
                    if "UNEXPECTED_EOF" not in str(why):
                        door.told("cluster.refused", {"node": "?", "from": str(client_address[0]),
                                                      "why": f"handshake: {_why(error)}"})  # fmt: skip
                except OSError:
                    pass  # the caller went away

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        class Call(_Call):
            of = door

        self._server = Server((self.host, self.port), Call)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.2,), daemon=True, name="finllm-door").start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Call(BaseHTTPRequestHandler):
    of: Door
    timeout = PATIENCE

    def do_POST(self) -> None:
        handler = self.of.routes.get(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if handler is None or not 0 <= length <= LONGEST:
            self._say(404, {"error": {"kind": "bad_input", "message": "no such route", "fix": "update finllm"}})
            return
        try:
            asked = json.loads(self.rfile.read(length) or b"{}")
            answer = handler(self._holder(), asked)
        except FinllmError as error:
            self._say(403, error.to_json())
            return
        except (ValueError, KeyError, TypeError):
            self._say(400, {"error": {"kind": "bad_input", "message": "the call is malformed", "fix": "update finllm"}})
            return
        if isinstance(answer, Path):
            self._send(answer)
        else:
            self._say(200, answer)

    def _holder(self) -> Holder | None:
        if not self.of.mutual:
            return None
        secure = self.connection
        assert isinstance(secure, ssl.SSLSocket)
        der = secure.getpeercert(binary_form=True)
        return self.of.place.holder(ssl.DER_cert_to_PEM_cert(der or b"").encode())

    def _say(self, status: int, said: Mapping[str, Any]) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send(self, path: Path) -> None:
        with path.open("rb") as file:
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            with contextlib.suppress(OSError):
                while piece := file.read(_PIECE):
                    self.wfile.write(piece)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _why(error: Exception) -> str:
    """Such as `certificate revoked`, as the library says it."""
    told = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
    return str(told).replace("_", " ").lower()


def handshake(place: Place, host: str, port: int, seconds: float = 5.0) -> None:
    """Shake hands as this node, by TLS 1.3, with whoever listens there, Ray's processes too, and hang up.

    Errors: Refused where either side does not believe the other, BackendError where nobody answers.
    """
    try:
        with socket.create_connection((host, port), seconds) as plain:
            context = tls(place, server=False)
            context.set_alpn_protocols(["h2"])
            with context.wrap_socket(plain, server_hostname=host):
                pass
    except ssl.SSLError as error:
        raise Refused(f"the handshake was refused: {_why(error)}", fix="join the cluster again") from error
    except OSError as error:
        raise BackendError(f"it does not answer: {error}", fix="run 'finllm cluster doctor'") from error


def reachable(host: str, port: int, seconds: float = 3.0) -> bool:
    """Whether anybody listens there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), seconds):
        return True
    return False
