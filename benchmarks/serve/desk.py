"""A home with people, a session whose answers are on record, and items to review; and the real server on it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from finllm.guardrails.audit.recorder import AuditedRecorder, open_recorder
from finllm.memory.reviews import Policy, Reviews
from finllm.memory.secret_file import SecretFile
from finllm.memory.users import Users
from finllm.memory.web_sessions import WebSessions
from finllm.sessions.session import Session
from finllm.settings import Settings

PHRASE = "seven quiet herons at noon"
WORKING, READING, REVIEWING = 10, 10, 4
LINES = tuple(f'shock OIL_WTI +{percent}% because "step {percent}"' for percent in (20, 40, 60, 80))
"""What the sessions do over and over: each run is answered from the ledger from the second time on."""
SCENARIO = "hormuz-blockade"
WAIT = 120.0


@dataclass
class Books:
    """The home's record, opened beside the server, as another door has it."""

    settings: Settings
    ledger: AuditedRecorder
    users: Users
    secret: SecretFile
    reviews: Reviews

    def cookie(self, name: str) -> str:
        """Somebody signed in, without the wait that keeps pass phrases from being tried."""
        user = self.users.find(name)
        assert user is not None
        return WebSessions(self.users, self.secret).begin(user)


@contextlib.contextmanager
def books_at(home: Path, hasher: Any = None) -> Iterator[Books]:
    settings = Settings(home=home)
    ledger, secret = open_recorder(settings), SecretFile(settings.users_path)
    try:
        users = Users(ledger, secret, hasher=hasher)
        yield Books(settings, ledger, users, secret, Reviews(ledger, users, Policy.of(settings)))
    finally:
        secret.close()
        ledger.close()


def prepare(home: Path) -> tuple[str, list[str], str]:
    """Users, a session with its answers on record, and an item: the session, its runs, the item."""
    with books_at(home) as books:
        for name, role in people():
            if books.users.find(name) is None:
                books.users.add(name, role, PHRASE, by="boss")
    with Session.open(SCENARIO, who="risk0", settings=Settings(home=home)) as session:
        session.begin()
        for line in LINES:
            answer = session.do(line)
            assert answer.error is None, answer.error
        runs = [one.run for one in session.tree.versions.values()]
        version = session.version.number
        made = session.id
    with books_at(home) as books:
        item = books.reviews.put(made, version, runs[-1], who="risk0", why="for the bench").id
    return made, runs, item


def people() -> Iterator[tuple[str, Any]]:
    yield "boss", "admin"
    yield from ((f"risk{number}", "risk") for number in range(WORKING))
    yield from ((f"read{number}", "auditor") for number in range(READING))
    yield from ((f"rev{number}", "reviewer") for number in range(REVIEWING))


@dataclass(frozen=True)
class Memory:
    """MiB of the server: resident, which counts what it shares with others, and its own alone. `below`: of the
    processes that it began, each page that several share counted once among them."""

    resident: float
    own: float
    below: float
    processes: int


def _memory(pid: int) -> tuple[float, float, float]:
    """MiB resident, private, and proportional (Linux: `smaps_rollup`); zeros for a process that has ended."""
    try:
        said = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0, 0.0, 0.0
    kb = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", said, re.MULTILINE)}
    return kb["Rss"] / 1024, (kb["Private_Clean"] + kb["Private_Dirty"]) / 1024, kb["Pss"] / 1024


def _below(pid: int) -> list[int]:
    """The processes that a process began, and those that they began."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *_below(int(child))]
    return found


@dataclass
class Server:
    """The server as a process, started as a person starts it."""

    home: Path
    port: int
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, cookie: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, cookies={"finllm-session": cookie}, timeout=WAIT,
                            headers={"origin": self.url})  # fmt: skip

    @property
    def memory(self) -> Memory:
        """What the server has now, and what the processes of its sessions have."""
        own, others = _memory(self.process.pid), [_memory(pid) for pid in _below(self.process.pid)]
        return Memory(own[0], own[1], sum(one[2] for one in others), len(others))

    @property
    def processor(self) -> float:
        """s of processor time that the server itself has had."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@contextlib.contextmanager
def server_at(home: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-P", "-c", "from finllm.cli.main import main; raise SystemExit(main())", "serve",
               "--port", str(port)]  # fmt: skip
    process = subprocess.Popen(command, env={**os.environ, "FINLLM_HOME": str(home)}, stderr=subprocess.PIPE)
    try:
        wait_for(port, process)
        yield Server(home, port, process)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + WAIT
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/sign-in").status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the server did not begin: {process.poll()}")


def token_of(client: httpx.Client) -> str:
    found = re.search(r'name="token" value="([0-9a-f]{64})"', client.get("/account").text)
    assert found is not None
    return found[1]
