"""The server: where it listens, its certificate and its names; slow and silent clients are dropped; no access log."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from finllm.errors import InputError
from finllm.web.shell import MOST_HEADERS

if TYPE_CHECKING:
    from finllm.settings import Settings
    from finllm.web.serving import Serving

SLOWEST_HEADERS = 10.0
"""s in which a connection has to have sent the whole head of its next request."""
MOST_CONNECTIONS, BACKLOG = 600, 512
PAGES = ("finllm.graphs.report", "finllm.review.html", "finllm.review.outputs", "finllm.review.opened",
         "finllm.review.opened_text", "finllm.review.trace_tables", "finllm.review.diff", "finllm.review.explanation",
         "finllm.review.search", "finllm.review.audits", "finllm.sessions.requests",
         "finllm.tools.data.books.load", "finllm.web.pages.sessions")  # fmt: skip
"""What pages are made with: imported before anybody waits for the first of them."""


@dataclass(frozen=True)
class Where:
    """Where the desk is served. `names`: what browsers may call it, beside the address itself."""

    host: str = "127.0.0.1"
    port: int = 8080
    cert: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()

    @property
    def tls(self) -> bool:
        return self.cert is not None

    @property
    def loopback(self) -> bool:
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that a request may be for; on loopback those of this machine to itself and no other."""
        own = ("127.0.0.1", "localhost", "[::1]") if self.loopback else ()
        return tuple(dict.fromkeys((*own, *self.names)))

    @property
    def origins(self) -> tuple[str, ...]:
        """How browsers name the desk's own pages."""
        scheme, usual = ("https", 443) if self.tls else ("http", 80)
        port = "" if self.port == usual else f":{self.port}"
        return tuple(f"{scheme}://{name}{port}" for name in self.hosts)

    @property
    def url(self) -> str:
        return self.origins[0]


def check_where(where: Where) -> Where:
    """Errors: InputError for an address that others reach without a certificate and names, or missing files."""
    if (where.cert is None) != (where.key is None):
        raise InputError("a certificate and its key go together", fix="give both --cert FILE and --key FILE")
    for path, what in ((where.cert, "--cert"), (where.key, "--key")):
        if path is not None and not path.is_file():
            raise InputError(f"{what} {str(path)!r} is no file", fix="give a PEM file")
    if not where.loopback and not where.tls:
        raise InputError(f"{where.host} is reached by others, and what goes there would be read on the way",
                         fix="give your own --cert FILE and --key FILE, or leave --host out")  # fmt: skip
    if not where.loopback and not where.names:
        raise InputError(f"by which name do browsers call the desk on {where.host}?",
                         fix="give it: --name desk.example.com")  # fmt: skip
    if any("*" in name or "/" in name or ":" in name for name in where.names):
        raise InputError("a name is that of one machine, without a port", fix="such as --name desk.example.com")
    if not 0 < where.port < 65536:
        raise InputError(f"{where.port} is no port", fix="give one from 1 to 65535")
    return where


class Impatient(H11Protocol):
    """HTTP/1.1 of a server that does not wait for ever for the rest of a request's head, on any connection."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        """The clock runs from the first moment that no request is being answered, however many bytes trickle in."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(SLOWEST_HEADERS, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _too_slow(self) -> None:
        self._waiting = None
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()


def config_of(app: Any, where: Where) -> uvicorn.Config:
    """How uvicorn runs the desk: one process, no proxy believed, nothing of a request in a log."""
    return uvicorn.Config(
        app, host=where.host, port=where.port, http=Impatient, ws="none", lifespan="on", loop="asyncio",
        log_level="critical", access_log=False, log_config=None, proxy_headers=False, server_header=False,
        date_header=True, forwarded_allow_ips="", timeout_keep_alive=15, limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=MOST_HEADERS + 4096, timeout_graceful_shutdown=3, backlog=BACKLOG,
        ssl_certfile=where.cert, ssl_keyfile=where.key,
    )  # fmt: skip


@contextlib.contextmanager
def open_serving(settings: Settings, where: Where, say: Callable[[str], None] | None = None) -> Iterator[Serving]:
    """What a server shares, on the home's record. Errors: InputError where there is no user; RecordError."""
    from finllm.guardrails.audit.recorder import open_recorder
    from finllm.memory.reviews import Policy, Reviews
    from finllm.memory.secret_file import SecretFile
    from finllm.memory.users import Users
    from finllm.memory.web_sessions import WebSessions
    from finllm.web.at_work import AtWork
    from finllm.web.oidc import oidc_of
    from finllm.web.serving import Serving

    with contextlib.ExitStack() as closing:
        ledger = open_recorder(settings, say)
        closing.callback(ledger.close)
        secret = SecretFile(settings.users_path)
        closing.callback(secret.close)
        users = Users(ledger, secret, phrases=not settings.oidc_only)
        if not any(not user.disabled for user in users.list()):
            raise InputError("there is no user who could sign in, and none comes with finllm",
                             fix="add one: finllm users add NAME --role reviewer")  # fmt: skip
        oidc = oidc_of(settings)
        at_work = AtWork(settings)
        closing.callback(at_work.close)
        reviews = Reviews(ledger, users, Policy.of(settings))
        yield Serving(settings, ledger, users, WebSessions(users, secret), reviews, at_work, hosts=where.hosts,
                      origins=where.origins, tls=where.tls, oidc=oidc, say=say)  # fmt: skip


def serve(
    settings: Settings, where: Where, say: Callable[[str], None], listens: Callable[[], None] = lambda: None
) -> None:
    """Serve until a signal stops it; `listens` is called once it is listened. Errors: as `open_serving`; InputError for
    an address that is taken; KeyboardInterrupt once a signal has stopped it."""
    from finllm.web.app import create_app

    check_where(where)
    for name in PAGES:
        importlib.import_module(name)
    with open_serving(settings, where, say) as serving:
        listening = _listen(where)
        serving.costs.begin()
        serving.indexer.begin(wait=False)
        gc.collect()
        gc.freeze()  # what was imported stays: it is not looked through for cycles while somebody waits
        say(f"the desk is at {where.url} (Ctrl-C stops it)")
        listens()
        uvicorn.Server(config_of(create_app(serving), where)).run([listening])


def _listen(where: Where) -> socket.socket:
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((where.host, where.port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise InputError(f"{where.host}:{where.port} cannot be listened on: {error}",
                         fix="stop what is there, or give another --port") from error  # fmt: skip
    return listening


def names_of(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.strip().lower() for text in texts if text.strip()))
