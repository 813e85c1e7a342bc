"""Two who sign in the same instant, a server killed amid a signature, a full disk, and connections by thousands."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serve.desk import PHRASE, Books, Server, books_at, server_at, token_of
from finllm.errors import FinllmError, ReviewRefused
from finllm.guardrails.audit import verify_log
from finllm.guardrails.audit.home import verify_home

RACES, KILLS, CONNECTIONS = 1000, 12, 2000


def _light() -> Any:
    """argon2id as light as it can be, for races of what comes after it."""
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@dataclass(frozen=True)
class Raced:
    """Of so many races: signatures that were lost or doubled, refusals that no rule gives who comes an instant late,
    and what they said. `sealed`: of how many items the loser was told that they may have to audit it blind."""

    races: int
    lost: int
    doubled: int
    odd: int
    seconds: float
    sealed: int = 0
    strange: tuple[str, ...] = ()


def races(home: Path, run: str, count: int = RACES) -> Raced:
    """Two processes sign the same item at the same instant; half of the items need one signature, half need two."""
    light = _light()
    with books_at(home, light) as books:
        for name in ("rev0", "rev1"):
            books.users.change_phrase(name, f"{PHRASE} {name}", by="boss")
        request, result = _of(books, run)
        items = [_item(books, request, result, number) for number in range(count)]
    context = multiprocessing.get_context("spawn")
    gate, queue, began = context.Barrier(2), context.Queue(), time.monotonic()
    both = [context.Process(target=_sign_all, args=(home, name, items, gate, queue)) for name in ("rev0", "rev1")]
    for one in both:
        one.start()
    said: dict[str, list[str]] = dict(queue.get() for _ in both)
    for one in both:
        one.join()
    took = time.monotonic() - began
    with books_at(home, light) as books:
        return _counted(books, items, said, took)


def _counted(books: Books, items: list[str], said: dict[str, list[str]], took: float) -> Raced:
    lost = doubled = odd = sealed = 0
    strange = list[str]()
    for at, item in enumerate(items):
        found = books.reviews.record.get(item)
        signed = [one.by for one in found.signatures]
        accepted = {name for name, answers in said.items() if answers[at] == "signed"}
        lost += len(accepted - set(signed))
        doubled += len(signed) - len(set(signed)) + (len(signed) > found.row.needs)
        drawn = bool(books.reviews.record.open_audits_of(found.row.number))
        rules = ("signed", "closed", *(("sealed",) if drawn else ()))
        none = [f"{item}: {name} {answers[at]}" for name, answers in said.items() if answers[at] not in rules]
        sealed += sum(answers[at] == "sealed" for answers in said.values())
        odd += len(none) + (found.ended != "approved")
        strange += none
    return Raced(len(items), lost, doubled, odd, took, sealed, tuple(strange))


def _of(books: Books, run: str) -> tuple[dict[str, Any], dict[str, Any]]:
    row = books.ledger.run(run)
    assert row is not None
    assert row.result is not None
    return row.request, row.result


def _item(books: Books, request: dict[str, Any], result: dict[str, Any], number: int) -> str:
    """A run of its own on record, put to review: every second one without what makes it need two signatures."""
    run = f"race-{os.getpid()}-{number}"
    found = {**result, "run_id": run}
    if number % 2:
        found |= {"breaches": [], "findings": [], "hand": [], "compliance": "pass", "status": "finished"}
    books.ledger.start_run(run, request)
    books.ledger.end_run(run, "finished", found)
    return books.reviews.put(f"s-{run}", 1, run, who="risk1", why="a race").id


def _sign_all(home: Path, name: str, items: list[str], gate: Any, queue: Any) -> None:
    answers: list[str] = []
    with books_at(home, _light()) as books:
        user = books.users.find(name)
        assert user is not None
        for item in items:
            gate.wait()
            try:
                books.reviews.sign(item, user, f"{PHRASE} {name}", "read")
                answers.append("signed")
            except ReviewRefused as error:
                answers.append(error.rule)
            except FinllmError as error:
                answers.append(error.kind)
    queue.put((name, answers))


@dataclass(frozen=True)
class Killed:
    """Servers that were killed amid a signature: signed and on record, neither, and what was neither of the two."""

    kills: int
    signed: int
    unsigned: int
    broken: tuple[str, ...]


def kills(home: Path, run: str, count: int = KILLS) -> Killed:
    """kill -9 at a moment drawn anew each time; then the record is verified, and says one thing only."""
    chance, signed, unsigned, broken = random.Random(7), 0, 0, list[str]()
    for number in range(count):
        with books_at(home) as books:
            request, result = _of(books, run)
            item = _item(books, request, result, 100_000 + number * 2)
            report = books.reviews.record.get(item).row.report_sha256
            cookie = books.cookie("rev2")
        with server_at(home) as server, server.client(cookie) as client:
            token = token_of(client)
            form = {"token": token, "phrase": PHRASE, "reason": "read", "report": report}
            answered: list[int] = []
            thread = threading.Thread(target=_post, args=(client, f"/item/{item}/sign", form, answered))
            thread.start()
            time.sleep(chance.uniform(0.0, 0.35))
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
            thread.join()
        with books_at(home) as books:
            found = books.reviews.record.get(item)
            signatures = len(found.signatures)
            if found.refused or signatures > 1 or (answered == [303] and not signatures):
                broken.append(f"{item}: answered {answered}, {signatures} signatures, {found.refused}")
            signed, unsigned = signed + (signatures == 1), unsigned + (signatures == 0)
        broken += damage(home)
    return Killed(count, signed, unsigned, tuple(broken))


def _post(client: httpx.Client, path: str, form: dict[str, str], answered: list[int]) -> None:
    with contextlib.suppress(httpx.HTTPError):
        answered.append(client.post(path, data=form).status_code)


def damage(home: Path) -> list[str]:
    """What is wrong with the record of a home."""
    from finllm.settings import Settings

    settings = Settings(home=home)
    verdict = verify_log(settings.audit_dir)
    held = verify_home(settings.audit_dir, settings.ledger_path) if not verdict.damage else []
    return [*(f"record {one.index}: {one.what}" for one in verdict.damage), *(p for one in held for p in one.problems)]


def full_disk(home: Path, item: str, run: str) -> dict[str, str]:
    """On a file system that is full: what a signature, a look and a page are answered; then with space made."""
    found: dict[str, str] = {}
    with _disk(home) as (folder, resize):
        if folder is None:
            return {"not measured": "no file system may be mounted here"}
        with books_at(folder) as books:
            cookie = books.cookie("rev3")
            report = books.reviews.record.get(item).row.report_sha256
        with server_at(folder) as server, server.client(cookie) as client:
            form = {"token": token_of(client), "phrase": PHRASE, "reason": "read", "report": report}
            client.get(f"/item/{item}")
            resize(0)
            found["signing"] = str(client.post(f"/item/{item}/sign", data=form).status_code)
            pages = ("/queue", f"/item/{item}", f"/run/{run}", f"/run/{run}?open=E5", "/runs", "/record")
            found["reading"] = ", ".join(str(client.get(page).status_code) for page in pages)
            resize(64 << 20)
            found["signing, with space made"] = str(client.post(f"/item/{item}/sign", data=form).status_code)
        with books_at(folder) as books:
            found["signatures on record"] = str(len(books.reviews.record.get(item).signatures))
        found["damage"] = "; ".join(damage(folder)) or "none"
    return found


@contextlib.contextmanager
def _disk(home: Path) -> Iterator[tuple[Path | None, Any]]:
    """A copy of the home on a file system of its own, and what leaves so many bytes free on it."""
    with tempfile.TemporaryDirectory() as at:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", at], capture_output=True, check=False
        )
        if mounted.returncode:
            yield None, None
            return
        folder = Path(at) / "home"

        def resize(free: int) -> None:
            told = os.statvfs(at)
            used = (told.f_blocks - told.f_bfree) * told.f_frsize
            subprocess.run(["mount", "-o", f"remount,size={max(used + free, 4096)}", at], check=True)

        try:
            skipped = shutil.ignore_patterns("models", "knowledge*", "*.gguf", "vectors*")
            shutil.copytree(home, folder, symlinks=True, ignore=skipped)
            yield folder, resize
        finally:
            subprocess.run(["umount", "-l", at], check=False)


@dataclass(frozen=True)
class Held:
    """Before and after so many live connections were opened and dropped: MiB of memory, and open files."""

    connections: int
    before: tuple[float, int]
    middle: tuple[float, int]
    after: tuple[float, int]
    refused: int


def connections(server: Server, cookies: list[str], count: int = CONNECTIONS) -> Held:
    """Open a live page, hear its first word, drop it; over and over, by several at a time."""
    half, refused, lock = count // 2, [0], threading.Lock()

    def some(cookie: str, times: int) -> None:
        with server.client(cookie) as client:
            for _ in range(times):
                with contextlib.suppress(httpx.HTTPError), client.stream("GET", "/live/queue?state=none") as live:
                    if live.status_code != 200:
                        with lock:
                            refused[0] += 1
                        time.sleep(0.5)
                        continue
                    next(live.iter_raw(), None)
                time.sleep(0.02)

    def all_of(times: int) -> None:
        threads = [threading.Thread(target=some, args=(cookie, times // len(cookies))) for cookie in cookies]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        time.sleep(12.0)  # a heartbeat, by which a dropped connection is noticed

    all_of(len(cookies) * 20)
    before = server.memory.own, server.files
    all_of(half)
    middle = server.memory.own, server.files
    all_of(half)
    return Held(2 * half, before, middle, (server.memory.own, server.files), refused[0])
