"""Sessions at work: each in a process of its own, so that no computing keeps a page waiting, nor a crash the desk.

What a session is, is on record; here is only what goes on at the moment: what was typed, how far it is, what failed.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from finllm.errors import InputError, as_finllm_error
from finllm.web.refusals import not_found

if TYPE_CHECKING:
    from finllm.settings import Settings

MOST = 16
"""Sessions at work; above that the one idle for longest is let go, which loses nothing."""
IDLE = 1800.0
"""s after which an idle session's process ends; the next line opens it again."""
HEAVY = ("numpy", "pandas", "finllm.desk.desk", "finllm.graphs.flow", "finllm.sessions.session",
         "finllm.sessions.opening", "finllm.sessions.edits", "finllm.sessions.in_hand", "finllm.review.search",
         "finllm.guardrails.audit.reading")  # fmt: skip
"""What is imported once, by the process that the sessions' are forked from."""


@dataclass(frozen=True)
class Now:
    """What goes on in a session. `busy`: the line that is being carried out; `shown`: provisional figures at once.

    `session`: its id, None until it is opened. `failed`: what was wrong with the last line, and the mend.
    """

    who: str
    start: str = ""
    session: str | None = None
    busy: str = ""
    since: float = 0.0
    node: str = ""
    asked: int = 0
    reused: int = 0
    shown: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    took: str = ""
    failed: tuple[str, str] | None = None
    at: int = 0

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        where = self.node.replace("_", " ") or "opening the models and the ledger"
        return f"{where}: asked {self.asked}, from the record {self.reused}"


@functools.cache
def forking() -> Any:
    """How processes are begun: forked from one that has imported what is heavy."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(HEAVY))
    return context


def hang_up(pipe: Connection) -> None:
    """End a pipe for both of its sides: closed alone, it would stand as long as a thread of this one waits at it."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(pipe.fileno())) as both:
        both.shutdown(socket.SHUT_RDWR)


@dataclass
class _Process:
    now: Now
    process: Any
    pipe: Connection
    used: float
    ended: bool = False


class AtWork:
    """The sessions' processes. Thread-safe."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._lock = threading.RLock()
        self._of: dict[str, _Process] = {}
        self._changed: Callable[[], None] = lambda: None

    def on_change(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def begin(self, who: str, start: Mapping[str, Any], said: str) -> str:
        """Open a session; the key of what goes on, until it has an id."""
        key = f"n-{secrets.token_hex(6)}"
        self._spawn(key, Now(who, said, busy=f"open {said}", since=self._clock()), start)
        return key

    def do(self, session: str, who: str, line: str) -> None:
        """Carry out a line in a session of that person's. Errors: InputError while another line is carried out."""
        with self._lock:
            one = self._of.get(session)
            if one is None or one.ended:
                now = Now(who, session, session, busy=line, since=self._clock())
                one = self._spawn(session, now, {"start": session})
            elif one.now.busy:
                raise InputError(f"{one.now.busy[:60]!r} is still being carried out", fix="wait for it, or stop it")
            else:
                kept = replace(one.now, busy=line, since=self._clock(), node="", asked=0, reused=0, shown=(), said=(),
                               took="", failed=None, at=one.now.at + 1)  # fmt: skip
                self._put(session, kept)
            one.used = self._clock()
            one.pipe.send(line)
        self._changed()

    def stop(self, session: str) -> None:
        """Stop what is being carried out; what was recorded is kept."""
        with self._lock:
            one = self._of.get(session)
            if one is not None and one.now.busy and one.process.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one.process.pid, signal.SIGINT)

    def now(self, session: str) -> Now | None:
        """What goes on in a session; None where it is not at work."""
        with self._lock:
            one = self._of.get(session)
            return None if one is None else one.now

    def opened(self, key: str, who: str) -> Now:
        """What became of a session that is being opened. Errors: NotFound for another's, or none."""
        now = self.now(key)
        if now is None or now.who != who:
            raise not_found("session")
        return now

    def close(self) -> None:
        """Let all go: each ends at its next look, and what was recorded is kept."""
        with self._lock:
            for key in list(self._of):
                self._let_go(key)

    def _spawn(self, key: str, now: Now, start: Mapping[str, Any]) -> _Process:
        from finllm.web.session_process import work

        with self._lock:
            self._make_room()
            ours, theirs = forking().Pipe()
            process = forking().Process(target=work, args=(theirs, now.who, dict(start), self._settings), daemon=True)
            one = self._of[key] = _Process(now, process, ours, self._clock())
        threading.Thread(target=self._listen, args=(one, theirs), daemon=True).start()
        self._changed()
        return one

    def _make_room(self) -> None:
        now = self._clock()
        for key, one in list(self._of.items()):
            if not one.now.busy and (now - one.used > IDLE or one.ended):
                self._let_go(key)
        while len({id(one) for one in self._of.values()}) >= MOST:
            idle = sorted((one.used, key) for key, one in self._of.items() if not one.now.busy)
            if not idle:
                raise InputError(f"{MOST} sessions are at work", fix="wait until one of them has its answer")
            self._let_go(idle[0][1])

    def _let_go(self, key: str) -> None:
        one = self._of.get(key)
        self._of = {name: other for name, other in self._of.items() if other is not one}
        if one is not None:
            hang_up(one.pipe)

    def _listen(self, one: _Process, theirs: Connection) -> None:
        """Start the process, which takes seconds the first time, and take what it tells, until it ends."""
        try:
            one.process.start()
        except (OSError, EOFError, MemoryError) as error:
            told = as_finllm_error(error)
            one.ended = True
            self._put_one(one, replace(one.now, busy="", failed=(told.message, told.fix), at=one.now.at + 1))
            return
        finally:
            theirs.close()
        while True:
            try:
                told = one.pipe.recv()
            except (EOFError, OSError):
                break
            now = one.now
            if "session" in told and now.session is None:
                with self._lock:
                    now = replace(now, session=told["session"])
                    self._of[told["session"]] = one
            changed = {name: value for name, value in told.items() if name != "session"}
            self._put_one(one, replace(now, **changed, at=now.at + 1))
        one.ended = True
        one.pipe.close()
        if one.now.busy:
            gone = ("the process that worked on it has ended", "what was recorded is kept: do it again")
            self._put_one(one, replace(one.now, busy="", failed=one.now.failed or gone, at=one.now.at + 1))

    def _put(self, key: str, now: Now) -> None:
        self._of[key].now = now

    def _put_one(self, one: _Process, now: Now) -> None:
        with self._lock:
            one.now = now
        self._changed()
