"""Runs engines in a child process: if it dies, its calls fail, and the next call starts it again."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from finllm.errors import BackendError
from finllm.scheduler.backends import BackendLost
from finllm.scheduler.engine.engine import EngineConfig, closed
from finllm.scheduler.engine.job import Finished, Job
from finllm.scheduler.engine.wire import Beat, Close, Done, Failure, Open, Stop, Submit, TextPiece

STARTING = 60.0
"""Longest time until the first sign of life, s."""
SILENCE = 4.0
"""Longest time between two signs of life, s: beyond it the process hangs and is ended."""
STOPPED = 2.0
"""The same for one that a signal has stopped (SIGSTOP), also before its first sign of life."""
LOOK = 0.5
"""Seconds between two looks for signs of life. Looks are counted, not time: this process may have stood still too."""
CLOSING = 30.0
"""Longest wait for an engine to close, s."""
MOST_DEATHS = 3
WITHIN = 60.0
"""After so many deaths within so many seconds the process is not started again until they have passed."""


class EngineProcess:
    """One child process for all engines of a program, which divide the cores there. Safe for any thread.

    The child is started by the first request. When it dies, falls silent or is stopped (SIGSTOP), every request under
    way is answered with BackendLost, and the next one starts it again with the same engines.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._child: _Child | None = None
        self._configs: dict[str, EngineConfig] = {}
        self._deaths: deque[float] = deque(maxlen=MOST_DEATHS)
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        with self._lock:
            return self._child.pid if self._child is not None and self._child.alive else None

    def open(self, name: str, config: EngineConfig) -> RemoteEngine:
        """An engine in the child, loaded at its first request. Errors: ValueError for a name that is taken."""
        with self._lock:
            if name in self._configs:
                raise ValueError(f"there is an engine {name!r} already")
            self._configs[name] = config
            if self._child is not None and self._child.alive:
                self._child.send(Open(name, config))
        return RemoteEngine(self, name, config)

    def restart(self, why: str) -> None:
        """End the child, which hangs though it gives signs of life; the next request starts it again."""
        with self._lock:
            child = self._child
        if child is not None and child.alive:
            child.end(why)

    def close(self) -> None:
        """End the child; requests under way are answered with an error. Closing again does nothing."""
        with self._lock:
            self._closed = True
            child, self._child = self._child, None
        if child is not None:
            child.end("the engine's process was closed")

    def _running(self) -> _Child:
        """The child, started if need be; the lock is held."""
        if self._closed:
            raise BackendError("the engine's process was closed", fix="open the desk again")
        if self._child is None or not self._child.alive:
            if self._child is not None:
                self._deaths.append(time.monotonic())
            recent = [death for death in self._deaths if time.monotonic() - death < WITHIN]
            if len(recent) >= MOST_DEATHS:
                raise BackendLost(
                    f"the engine's process ended {len(recent)} times within {WITHIN:.0f} s",
                    fix="check the model with 'finllm doctor', then try again in a minute",
                )
            self._child = _Child()
            for name, config in self._configs.items():
                self._child.send(Open(name, config))
        return self._child

    def submit(self, name: str, job: Job) -> None:
        with self._lock:
            if name not in self._configs:
                raise closed(name)
            self._running().submit(name, job)

    def stop(self, job: Job) -> None:
        job.stop.set()
        with self._lock:
            if self._child is not None:
                self._child.stop(job)

    def drop(self, name: str) -> None:
        with self._lock:
            config = self._configs.pop(name, None)
            child = self._child
        if config is not None and child is not None and child.alive:
            child.drop(name)


class RemoteEngine:
    """An engine in the child process, with the face of `engine.Engine`."""

    def __init__(self, process: EngineProcess, name: str, config: EngineConfig) -> None:
        self._process = process
        self._name = name
        self._config = config

    def submit(self, job: Job) -> None:
        """Queue a job; `job.done` is called exactly once, from a thread of this process. Errors: BackendError."""
        self._process.submit(self._name, job)

    def stop(self, job: Job) -> None:
        """Let a job go; its caller no longer waits."""
        self._process.stop(job)

    def restart(self, why: str) -> None:
        """End the process that hangs; what is under way there is answered with BackendLost."""
        self._process.restart(why)

    def close(self) -> None:
        """Free the engine; what is under way is answered with an error. Errors: BackendError if that takes too long."""
        self._process.drop(self._name)


class _Child:
    """One life of the child process, with the requests it owes an answer."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the child
        command = [sys.executable, "-m", "finllm.scheduler.engine.host", str(theirs.fileno())]
        # Threads that spin at OpenMP's barriers starve each other as soon as anything else runs on the machine.
        environment = {"GOMP_SPINCOUNT": "20000", **os.environ}
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
        )
        theirs.close()
        self._pipe = Connection(ours.detach())
        self._sending = threading.Lock()
        self._numbers = itertools.count()
        self._owed: dict[int, Job] = {}
        self._closing: dict[str, threading.Event] = {}
        self._state = threading.Lock()
        self._ended: str | None = None
        self._why: str | None = None
        self._reader = threading.Thread(target=self._read, name="engine-process", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._ended is None

    def send(self, message: object) -> None:
        with self._sending, contextlib.suppress(OSError, ValueError):
            self._pipe.send(message)

    def submit(self, name: str, job: Job) -> None:
        with self._state:
            ended = self._ended
            number = next(self._numbers)
            self._owed[number] = job
        if ended is not None:
            self._owed.pop(number, None)
            raise self._death(ended)
        self.send(Submit(number, name, job.work, job.on_text is not None))

    def stop(self, job: Job) -> None:
        with self._state:
            numbers = [number for number, owed in self._owed.items() if owed is job]
        for number in numbers:
            self.send(Stop(number))

    def drop(self, name: str) -> None:
        done = self._closing.setdefault(name, threading.Event())
        self.send(Close(name))
        if not done.wait(CLOSING) and self.alive:
            self.end(f"engine {name!r} did not close within {CLOSING:.0f} s")

    def end(self, why: str) -> None:
        """Kill the process and answer what it owed."""
        self._why = why
        self._process.kill()
        self._reader.join(CLOSING)

    def _read(self) -> None:
        longest, silent = STARTING, 0.0
        try:
            while True:
                if self._pipe.poll(LOOK):
                    longest, silent = SILENCE, 0.0
                    self._handle(self._pipe.recv())
                    continue
                silent += LOOK
                if silent >= (STOPPED if _stopped(self._process.pid) else longest):
                    self._process.kill()
                    self._over(f"the engine's process gave no sign of life for {silent:.0f} s and was ended")
                    return
        except (EOFError, OSError):
            code = self._process.wait()
            self._over(self._why or f"the engine's process ended ({_how(code)}){self._last_words()}")

    def _handle(self, message: object) -> None:
        if isinstance(message, TextPiece):
            job = self._owed.get(message.number)
            if job is not None and job.on_text is not None:
                job.on_text(message.piece)
        elif isinstance(message, Done):
            if isinstance(message.number, str):
                self._closing.setdefault(message.number, threading.Event()).set()
                return
            with self._state:
                job = self._owed.pop(message.number, None)
            if job is not None and message.result is not None:
                result: Finished | Failure = message.result
                if isinstance(result, Failure):
                    job.use(result.used)
                job.done(result.error() if isinstance(result, Failure) else result)
        else:
            assert isinstance(message, Beat)
            for number, used in message.used.items():
                if (job := self._owed.get(number)) is not None:
                    job.use(used)

    def _over(self, why: str) -> None:
        with self._state:
            if self._ended is not None:
                return
            self._ended = why
            owed, self._owed = list(self._owed.values()), {}
        self._process.wait()
        self._pipe.close()
        self._said.close()
        for event in self._closing.values():
            event.set()
        for job in owed:
            job.done(self._death(why))

    def _last_words(self) -> str:
        """The last line that the child wrote before it died, which is where llama.cpp says what failed."""
        with contextlib.suppress(OSError, ValueError):
            self._said.seek(0)
            lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
            return f": {lines[-1]}" if lines else ""
        return ""

    def _death(self, why: str) -> BackendLost:
        return BackendLost(why, fix="ask again: the process is started anew; see 'finllm doctor'")


def _stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal; False where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
