"""A home with users, a session and an item to review, made once; and the real server on a copy of it for each test."""

from __future__ import annotations

import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from finllm.desk.desk import assemble
from finllm.events import EventBus
from finllm.guardrails.audit.recorder import open_recorder
from finllm.memory.knowledge import KnowledgeBase
from finllm.memory.review_record import ReviewRecord
from finllm.running import Runner
from finllm.sessions.opening import Start
from finllm.sessions.session import Session
from finllm.settings import Settings
from finllm.testing import ScriptedBackend
from finllm.web.app import create_app
from finllm.web.server import Where, config_of, open_serving
from finllm.web.serving import Serving
from tests.desks import request_for
from tests.memory.desks import PHRASE, home_at
from tests.sessions.test_session import SAY
from tests.warm import Warm

PEOPLE: Any = {"boss": "admin", "risk1": "risk", "ana1": "analyst", "rev1": "reviewer", "rev2": "reviewer",
               "rev3": "reviewer", "aud1": "auditor"}  # fmt: skip
ROLE_OF = {"admin": "boss", "risk": "risk1", "analyst": "ana1", "reviewer": "rev1", "auditor": "aud1"}
WAIT = 240.0
"""s after which something has gone wrong, also on a machine that has much else to do."""


@dataclass(frozen=True)
class Made:
    """A home on disk: the session's id, the runs of its versions, and the item that was put to review."""

    home: Path
    session: str
    runs: tuple[str, ...]
    item: str


def make_home(folder: Path, warm: Warm, knowledge: KnowledgeBase, lines: tuple[str, ...], **changes: Any) -> Made:
    """A session of risk1 on the scripted model, with these lines typed; `changes` replace fields of its scenario.

    On a thread: a browser's driver may have its event loop in this one.
    """
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(_made, folder, warm, knowledge, lines, changes).result()


def _made(folder: Path, warm: Warm, knowledge: KnowledgeBase, lines: tuple[str, ...], changes: dict[str, Any]) -> Made:
    with home_at(folder, people=PEOPLE):
        pass
    start = Start("hormuz-blockade", request=request_for("hormuz-blockade", **changes))
    return _worked(folder, warm, knowledge, lines, start)


def _worked(folder: Path, warm: Warm, knowledge: KnowledgeBase, lines: tuple[str, ...], start: Start) -> Made:
    settings = Settings(home=folder)
    with closing(open_recorder(settings)) as ledger, Runner() as runner:
        desk = replace(assemble(settings, EventBus(), ledger, [ScriptedBackend(SAY, name="edge")]),
                       knowledge=knowledge, embedder=warm.embedder, calibrations=warm.calibrations,
                       second=warm.second, channels=None)  # fmt: skip
        with Session.on(start, desk, runner, who="risk1") as session:
            session.begin()
            for line in lines:
                answer = session.do(line)
                assert answer.error is None, answer.error
            runs = tuple(one.run for one in session.tree.versions.values())
            items = ReviewRecord(ledger).items()
            return Made(folder, session.id, runs, f"r-{max(items)}" if items else "")


def go_on(home: Path, session: str, warm: Warm, knowledge: KnowledgeBase, lines: tuple[str, ...]) -> str:
    """Type more lines in a session on record, from another door; the newest item then."""
    with ThreadPoolExecutor(1) as apart:
        start = Start(session, session=session)
        return apart.submit(_worked, home, warm, knowledge, lines, start).result().item


@pytest.fixture(scope="session")
def made(warm: Warm, shared_knowledge: KnowledgeBase, tmp_path_factory: pytest.TempPathFactory) -> Made:
    lines = ('shock OIL_WTI +60% because "two lanes are mined"', 'review "for Thursday\'s committee"')
    return make_home(tmp_path_factory.mktemp("web") / "home", warm, shared_knowledge, lines)


def token_in(page: str) -> str:
    found = re.search(r'name="token" value="([0-9a-f]{64})"', page)
    assert found is not None, page[:500]
    return found[1]


@dataclass
class Served:
    """The desk on a home, listening."""

    url: str
    serving: Serving
    made: Made
    _open: list[httpx.Client] = field(default_factory=list)

    def visitor(self) -> httpx.Client:
        """A browser that nobody has signed in with."""
        client = httpx.Client(base_url=self.url, timeout=WAIT, headers={"origin": self.url})
        self._open.append(client)
        return client

    def signed_in(self, name: str) -> httpx.Client:
        client = self.visitor()
        form = {"token": token_in(client.get("/sign-in").text), "name": name, "phrase": PHRASE}
        answer = client.post("/sign-in", data=form)
        assert answer.status_code == 303, answer.text
        return client

    def post(self, client: httpx.Client, path: str, **form: str) -> httpx.Response:
        """A form as a page of the desk would send it."""
        return client.post(path, data={"token": token_in(client.get("/account").text), **form})

    def close(self) -> None:
        for client in self._open:
            client.close()


@contextmanager
def serving_at(made: Made, **settings: Any) -> Iterator[Served]:
    """The real server on a home."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = Where(port=port)
    with ExitStack() as ending:
        serving = ending.enter_context(open_serving(Settings(home=made.home, **settings), where, lambda line: None))
        server = uvicorn.Server(config_of(create_app(serving), where))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        until = time.monotonic() + WAIT
        while not server.started:
            assert time.monotonic() < until
            assert thread.is_alive()
            time.sleep(0.01)
        served = Served(where.url, serving, made)
        try:
            yield served
        finally:
            served.close()
            server.should_exit = True
            thread.join(WAIT)


def copied(made: Made, folder: Path) -> Made:
    shutil.copytree(made.home, folder)
    return replace(made, home=folder)


@pytest.fixture
def served(made: Made, tmp_path: Path) -> Iterator[Served]:
    with serving_at(copied(made, tmp_path / "web-home")) as one:
        yield one


Serve = Callable[..., Any]
