"""The engine: a thread that owns a model and its loop, and takes requests from any other thread."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from finllm.errors import BackendError, FinllmError
from finllm.scheduler.engine.cores import Cores
from finllm.scheduler.engine.job import Job
from finllm.scheduler.engine.loop import Loop
from finllm.scheduler.engine.native import Native

MOST_WAITING = 1024
"""Requests beyond so many are refused at once."""


@dataclass(frozen=True)
class EngineConfig:
    """What an engine runs on.

    `slots`: most requests side by side; with one, nothing is shared and greedy answers are the same bit for bit.
    `context`: most tokens of one request. `cells`: KV cells that all of them share. `store`: bytes of saved prefixes.
    """

    path: Path
    threads: int
    slots: int
    context: int
    cells: int
    store: int


class Engine:
    """A model that serves many requests at once.

    The file is loaded at the first request, and again after a failure. Each step computes on its part of `cores`.
    """

    def __init__(self, config: EngineConfig, cores: Cores | None = None) -> None:
        self._config = config
        self._seat = (cores or Cores(config.threads)).seat()
        self._news = threading.Condition()
        self._inbox: list[Job] = []
        self._unfinished = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"engine-{config.path.stem}", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; `job.done` is called exactly once. Errors: BackendError where the engine is closed or full."""
        with self._news:
            if self._closed:
                raise closed(self._config.path.stem)
            if len(self._inbox) + self._unfinished >= MOST_WAITING:
                raise BackendError(f"{MOST_WAITING} requests wait already", fix="ask again when fewer are under way")
            self._inbox.append(job)
            self._news.notify()

    def stop(self, job: Job) -> None:
        """Let a job go; its caller no longer waits."""
        job.stop.set()

    def close(self, wait: float = 30.0) -> None:
        """Answer what is under way with an error and free the model. Closing again does nothing.

        Errors: BackendError where the thread does not end within `wait` s.
        """
        with self._news:
            self._closed = True
            self._news.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(wait)
            if self._thread.is_alive():
                raise BackendError(f"the engine did not end within {wait:.0f} s", fix="end the process")

    def _run(self) -> None:
        while self._wait():
            try:
                self._serve()
            except Exception as error:  # noqa: BLE001  whatever it was, those that wait must hear of it
                self._refuse(_typed(error))
        self._refuse(closed(self._config.path.stem))

    def _wait(self) -> bool:
        """Wait for work; False once closed."""
        with self._news:
            self._unfinished = 0
            self._news.wait_for(lambda: self._inbox or self._closed)
            return not self._closed

    def _serve(self) -> None:
        """Load the model and serve until closed or failed. Errors: those of loading, for which nobody was answered."""
        config = self._config
        native = Native(config.path, threads=config.threads, cells=config.cells, sequences=config.slots)
        loop = Loop(native, context=config.context, store=config.store if config.slots > 1 else 0, turn=self._seat)
        try:
            while True:
                with self._news:
                    self._unfinished = loop.unfinished
                    self._seat.works(bool(self._inbox) or not loop.idle)
                    self._news.wait_for(lambda: self._inbox or self._closed or not loop.idle)
                    if self._closed:
                        loop.fail(closed(config.path.stem))
                        return
                    new, self._inbox = self._inbox, []
                    self._seat.works(True)
                for job in new:
                    loop.add(job)
                loop.step()
        except Exception as error:  # noqa: BLE001  whatever it was, those that wait must hear of it
            loop.fail(_typed(error))
        finally:
            self._seat.works(False)
            native.close()

    def _refuse(self, error: FinllmError) -> None:
        with self._news:
            refused, self._inbox = self._inbox, []
        for job in refused:
            job.done(error)


def _typed(error: Exception) -> FinllmError:
    if isinstance(error, FinllmError):
        return error
    return BackendError(f"the engine failed: {type(error).__name__}: {error}", fix="ask again; see 'finllm doctor'")


def closed(name: str) -> BackendError:
    return BackendError(f"the engine {name!r} is closed", fix="open the desk again")
