"""Fifty people reading and ten sessions running: how long pages take, and how late live pages are told."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from benchmarks.serve.desk import LINES, READING, SCENARIO, Books, Memory, Server, token_of

READERS, SESSIONS = 50, 10
PAUSE = (5.0, 10.0)
"""s that a reader looks at a page before the next one: fifty of them ask for seven pages a second."""
PRESSING, PRESSED = 8, 20.0
"""Readers who do not look at all, and s for which they ask: so much the server answers at most."""
OPENED = 180.0
"""s in which a session has to be open, ten of them at once."""
STATED = 60.0
"""s that are measured, once all sessions are open."""


@dataclass
class Measured:
    """s per page; s per line of a session, with the calls that asked a model; s until a live page was told.

    `busy`: s of the server's processor time for each page that was asked for without a pause, of which it answered
    `most` a second, the sessions still running. `memory`: with all sessions open.
    """

    pages: list[float] = field(default_factory=list[float])
    by_kind: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    failed: list[str] = field(default_factory=list[str])
    lines: list[float] = field(default_factory=list[float])
    lags: list[float] = field(default_factory=list[float])
    unheard: int = 0
    busy: float = 0.0
    most: float = 0.0
    memory: Memory = field(default_factory=lambda: Memory(0.0, 0.0, 0.0, 0))


def quantile(values: list[float], share: float) -> float:
    """The value that so large a share is not above; NaN for none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def load(server: Server, books: Books, runs: list[str], item: str) -> Measured:
    """Play everybody at once for the stated time."""
    found, over, read, ready = Measured(), threading.Event(), threading.Event(), threading.Event()
    at_work = [_Working(server, books, f"risk{number}") for number in range(SESSIONS)]
    with ThreadPoolExecutor(SESSIONS) as all_at_once:
        list(all_at_once.map(_Working.open, at_work))
    clicks = [threading.Thread(target=one.work, args=(found, over)) for one in at_work]
    cookies = [books.cookie(f"read{number}") for number in range(READING)]
    people = [threading.Thread(target=_read, args=(server, cookies[number % READING], runs, item, number, found, read,
                                                   ready)) for number in range(READERS)]  # fmt: skip
    for thread in (*clicks, *people):
        thread.start()
    time.sleep(5.0)  # everybody has begun
    ready.set()
    listening = threading.Thread(target=_lags, args=(server, books, item, found, read))
    listening.start()
    time.sleep(STATED)
    read.set()
    for thread in (*people, listening):
        thread.join()
    found.memory = server.memory
    _press(server, cookies, runs, item, found)
    over.set()
    for thread in clicks:
        thread.join()
    return found


def _press(server: Server, cookies: list[str], runs: list[str], item: str, found: Measured) -> None:
    """How many pages a second the server answers those who ask for the next one at once."""
    pressed, none = Measured(), threading.Event()
    none.set()
    over = time.monotonic() + PRESSED

    def press(number: int) -> None:
        while time.monotonic() < over:
            _read(server, cookies[number], runs, item, random.randrange(1 << 30), pressed, none, none)

    began, busy = time.monotonic(), server.processor
    people = [threading.Thread(target=press, args=(number,)) for number in range(PRESSING)]
    for one in people:
        one.start()
    for one in people:
        one.join()
    found.failed += pressed.failed
    found.busy = (server.processor - busy) / max(1, len(pressed.pages))
    found.most = len(pressed.pages) / (time.monotonic() - began)


def _pages(runs: list[str], item: str, chance: random.Random) -> Iterator[tuple[str, str]]:
    while True:
        run, row = chance.choice(runs), f"E{chance.randrange(1, 90)}"
        yield chance.choice((
            ("queue", "/queue"), ("item", f"/item/{item}"), ("item, a row open", f"/item/{item}?open={row}"),
            ("run", f"/run/{run}"), ("run, a row open", f"/run/{run}?open={row}"),
            ("row", f"/run/{run}/evidence/{row}"),
            ("compare", f"/compare?first={runs[0]}&second={run}"), ("runs", "/runs"), ("record", "/record"),
            ("cost", "/cost"), ("search", "/search?text=convoy"), ("books", "/books"),
        ))  # fmt: skip


def _read(server: Server, cookie: str, runs: list[str], item: str, number: int, found: Measured, over: threading.Event,
          ready: threading.Event) -> None:  # fmt: skip
    chance = random.Random(number)
    with server.client(cookie) as client:
        for kind, path in _pages(runs, item, chance):
            began = time.perf_counter()
            try:
                answer = client.get(path)
                took = time.perf_counter() - began
                if answer.status_code not in (200, 404):
                    found.failed.append(f"{path}: {answer.status_code}")
            except httpx.HTTPError as error:
                found.failed.append(f"{path}: {error!r}")
                continue
            if ready.is_set():
                found.pages.append(took)
                found.by_kind.setdefault(kind, []).append(took)
            if over.wait(chance.uniform(*PAUSE)):
                return


class _Working:
    """Somebody who edits a session over and over, every run of it answered from the ledger."""

    def __init__(self, server: Server, books: Books, name: str) -> None:
        self.client = server.client(books.cookie(name))
        self.session = ""
        self.token = token_of(self.client)

    def open(self) -> None:
        answer = self.client.post("/sessions", data={"token": self.token, "scenario": SCENARIO, "book": "default"})
        at = answer.headers["location"]
        until = time.monotonic() + OPENED
        while not self.session:
            time.sleep(0.3)
            answer = self.client.get(at)
            to = answer.headers.get("location", "")
            self.session = to.rpartition("/")[2] if to.startswith("/session/") else ""
            if not self.session and time.monotonic() > until:
                raise RuntimeError(f"a session was not opened in {OPENED:.0f} s: {answer.text[-2000:]}")
        self._wait()

    def work(self, found: Measured, over: threading.Event) -> None:
        turn = 0
        while not over.is_set():
            began = time.perf_counter()
            line = LINES[turn % len(LINES)]
            form = {"token": self.token, "verb": "line", "text": line}
            answer = self.client.post(f"/session/{self.session}/do", data=form)
            if answer.status_code != 303:
                found.failed.append(f"do: {answer.status_code}")
            self._wait()
            found.lines.append(time.perf_counter() - began)
            turn += 1
            over.wait(1.0)
        self.client.close()

    def _wait(self) -> None:
        """Until the page says that nothing goes on: as its reader would, without JavaScript."""
        while 'class="busy"' in self.client.get(f"/session/{self.session}").text:
            time.sleep(0.5)


def _lags(server: Server, books: Books, item: str, found: Measured, over: threading.Event) -> None:
    """Claim and give back an item; how late does the queue that another has open hear of it?"""
    heard, ended = list[float](), threading.Event()
    listener = server.client(books.cookie("rev1"))

    def listen() -> None:
        with listener.stream("GET", "/live/queue?state=none") as live:
            for part in live.iter_text():
                if "event: changed" in part:
                    heard.append(time.perf_counter())
                if ended.is_set():
                    return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    with server.client(books.cookie("rev0")) as client:
        token = token_of(client)
        time.sleep(2.0)
        while not over.wait(2.0):
            for verb in ("claim", "release"):
                before = len(heard)
                client.post(f"/item/{item}/{verb}", data={"token": token})
                done = time.perf_counter()
                until = done + 10
                while len(heard) == before and time.perf_counter() < until:
                    time.sleep(0.005)
                if len(heard) == before:
                    found.unheard += 1
                else:
                    found.lags.append(max(0.0, heard[-1] - done))
                time.sleep(0.7)
    ended.set()


def mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else float("nan")
