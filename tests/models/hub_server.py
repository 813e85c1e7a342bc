"""A hub on this machine: it serves one repository, drops connections midway and lies about digests as it is told."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What is served, and what was asked. `drops`: after how many bytes each coming download is cut off."""

    files: dict[str, bytes]
    licence: str | None = "apache-2.0"
    promised: str | None = None
    continues: bool = True
    url: str = ""
    drops: list[int] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)

    def digest(self, name: str) -> str:
        return self.promised or hashlib.sha256(self.files[name]).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        assert isinstance(self.server, _Server)
        return self.server.hub

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def do_HEAD(self) -> None:
        self._file(body=False)

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/owner/tiny"):
            card = {"license": self.hub.licence} if self.hub.licence else {}
            info = {"_id": "1", "id": "owner/tiny", "modelId": "owner/tiny", "sha": COMMIT, "cardData": card,
                    "siblings": [{"rfilename": name} for name in self.hub.files]}  # fmt: skip
            self._answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        else:
            self._file(body=True)

    def _file(self, *, body: bool) -> None:
        hub = self.hub
        name = self.path.partition(f"/owner/tiny/resolve/{COMMIT}/")[2]
        if name not in hub.files:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no such repository"})
            return
        data, status = hub.files[name], 200
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hub.digest(name)}"', "X-Linked-Size": str(len(data)),
                   "X-Linked-Etag": f'"{hub.digest(name)}"'}  # fmt: skip
        wanted = self.headers.get("Range", "")
        if body:
            hub.ranges.append(wanted)
        if wanted and hub.continues:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        self._answer(status, data, headers, body=body, drop=hub.drops.pop(0) if body and hub.drops else None)

    def _answer(
        self, status: int, data: bytes, headers: dict[str, str], *, body: bool = True, drop: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data if drop is None else data[:drop])
            self.wfile.flush()
        if drop is not None:
            self.close_connection = True


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    server = _Server(hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
