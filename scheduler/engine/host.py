"""The engine process: `python -m finllm.scheduler.engine.host FD` serves engines over one pipe until it closes."""

from __future__ import annotations

import contextlib
import sys
import threading
from multiprocessing.connection import Connection

from finllm.errors import BackendError
from finllm.interrupts import ignore_interrupts
from finllm.scheduler.engine.cores import Cores
from finllm.scheduler.engine.engine import Engine
from finllm.scheduler.engine.job import Finished, Job
from finllm.scheduler.engine.wire import Beat, Close, Done, Failure, Open, Stop, Submit, TextPiece
from finllm.scheduler.money.energy_share import CpuCounter, SharedEnergy

BEAT = 0.5
"""Seconds between two signs of life."""


class _Host:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self._cores = Cores()
        self._energy = SharedEnergy(CpuCounter())
        self._engines: dict[str, Engine] = {}
        self._jobs: dict[int, Job] = {}

    def serve(self) -> None:
        threading.Thread(target=self._beat, daemon=True).start()
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._handle(self._pipe.recv())

    def _handle(self, message: object) -> None:
        if isinstance(message, Open):
            self._cores.count = max(self._cores.count, message.config.threads)
            self._engines[message.name] = Engine(message.config, self._cores, self._energy)
        elif isinstance(message, Submit):
            self._submit(message)
        elif isinstance(message, Stop):
            job = self._jobs.get(message.number)
            if job is not None:
                job.stop.set()
        elif isinstance(message, Close):
            engine = self._engines.pop(message.name, None)
            failure = None
            try:
                if engine is not None:
                    engine.close()
            except BackendError as error:
                failure = Failure.of(error)
            self._send(Done(message.name, failure))

    def _submit(self, message: Submit) -> None:
        number = message.number

        def done(result: Finished | Exception) -> None:
            self._jobs.pop(number, None)
            self._send(Done(number, Failure.of(result, job.used) if isinstance(result, Exception) else result))

        def on_text(piece: str) -> None:
            self._send(TextPiece(number, piece))

        job = Job(message.work, done, on_text if message.streamed else None)
        self._jobs[number] = job
        try:
            self._engines[message.name].submit(job)
        except BackendError as error:
            done(error)

    def _send(self, message: object) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._pipe.send(message)

    def _beat(self) -> None:
        while True:
            self._send(Beat({number: job.used for number, job in list(self._jobs.items()) if job.used.tokens}))
            threading.Event().wait(BEAT)


def main() -> None:
    """Serve the pipe that the parent process left at the file descriptor given."""
    ignore_interrupts()
    _Host(Connection(int(sys.argv[1]))).serve()


if __name__ == "__main__":
    main()
