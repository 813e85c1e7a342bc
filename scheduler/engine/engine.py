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
from finllm.scheduler.money.energy_share import CpuCounter, SharedEnergy

MOST_WAITING = 1024
"""Requests beyond so many are refused at once."""


ROOM = 128
"""A worker beside others takes a request more while it has fewer tokens than so many for its next step."""


@dataclass(frozen=True)
class EngineConfig:
    """What an engine runs on.

    `slots`: most requests side by side; with one, nothing is shared and greedy answers are the same bit for bit.
    `context`: most tokens of one request. `cells`: KV cells that all of them share. `store`: bytes of saved prefixes.
    `workers`: contexts of the model that compute at the same time, each with `cells` and `store` of its own. Where many
    requests wait, two on one core each do more than one on both, whose threads wait for each other at every operation.
    """

    path: Path
    threads: int
    slots: int
    context: int
    cells: int
    store: int
    workers: int = 1


class Engine:
    """A model that serves many requests at once.

    The file is loaded at the first request, and again after a failure. Each step computes on its part of `cores`.
    `energy` is that of the process, which its engines share.
    """

    def __init__(self, config: EngineConfig, cores: Cores | None = None, energy: SharedEnergy | None = None) -> None:
        self._config = config
        self._energy = energy or SharedEnergy(CpuCounter())
        self._cores = cores or Cores(config.threads)
        self._news = threading.Condition()
        self._inbox: list[Job] = []
        self._unfinished = [0] * config.workers
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, args=(at,), name=f"engine-{config.path.stem}-{at}", daemon=True)
            for at in range(config.workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; `job.done` is called exactly once. Errors: BackendError where the engine is closed or full."""
        with self._news:
            if self._closed:
                raise closed(self._config.path.stem)
            if len(self._inbox) + sum(self._unfinished) >= MOST_WAITING:
                raise BackendError(f"{MOST_WAITING} requests wait already", fix="ask again when fewer are under way")
            self._inbox.append(job)
            self._news.notify()

    def stop(self, job: Job) -> None:
        """Let a job go; its caller no longer waits."""
        job.stop.set()

    def close(self, wait: float = 30.0) -> None:
        """Answer what is under way with an error and free the model. Closing again does nothing.

        Errors: BackendError where a thread does not end within `wait` s.
        """
        with self._news:
            self._closed = True
            self._news.notify_all()
        for thread in self._threads:
            if threading.current_thread() is not thread:
                thread.join(wait)
                if thread.is_alive():
                    raise BackendError(f"the engine did not end within {wait:.0f} s", fix="end the process")

    def _run(self, at: int) -> None:
        while self._wait(at):
            try:
                self._serve(at)
            except Exception as error:  # noqa: BLE001  whatever it was, those that wait must hear of it
                self._refuse(_typed(error))
        self._refuse(closed(self._config.path.stem))

    def _wait(self, at: int) -> bool:
        """Wait for work; False once closed."""
        with self._news:
            self._unfinished[at] = 0
            self._news.wait_for(lambda: self._inbox or self._closed)
            return not self._closed

    def _serve(self, at: int) -> None:
        """Load the model and serve until closed or failed. Errors: those of loading, for which nobody was answered."""
        config = self._config
        native = Native(config.path, threads=config.threads, cells=config.cells, sequences=config.slots)
        seat = self._cores.seat()
        store = config.store if config.slots > 1 else 0
        loop = Loop(native, context=config.context, store=store, turn=seat, energy=self._energy)
        try:
            while True:
                with self._news:
                    self._unfinished[at] = loop.unfinished
                    if loop.idle and not self._inbox:
                        seat.works(False)
                    self._news.wait_for(lambda: self._inbox or self._closed or not loop.idle)
                    if self._closed:
                        loop.fail(closed(config.path.stem))
                        return
                    seat.works(True)
                    new = self._taken(loop)
                    self._unfinished[at] += len(new)
                for job in new:
                    loop.add(job)
                if not loop.idle:
                    loop.step()
        except Exception as error:  # noqa: BLE001  whatever it was, those that wait must hear of it
            loop.fail(_typed(error))
        finally:
            seat.works(False)
            native.close()

    def _taken(self, loop: Loop) -> list[Job]:
        """What a worker takes up: all there is; beside others, the first in order, if it has room for it."""
        if self._config.workers == 1:
            new, self._inbox = self._inbox, []
            return new
        if not self._inbox or (not loop.idle and loop.pending >= ROOM):
            return []
        first = min(self._inbox, key=lambda job: job.order)
        self._inbox.remove(first)
        return [first]

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
