"""Measuring a rung: prefill and batched decoding on the engine, in a child process whose memory is its own."""

from __future__ import annotations

import itertools
import json
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from finllm.errors import BackendError
from finllm.scheduler.calibration.measured import BATCHES, DecodeRate, Speed
from finllm.scheduler.decoding.template import Write
from finllm.scheduler.engine.engine import Engine, EngineConfig
from finllm.scheduler.engine.job import Finished, Job, Work
from finllm.scheduler.money import energy
from finllm.scheduler.money.amount import Amount
from finllm.scheduler.placement.task import Prompt

PREFILL = 512
"""Tokens of the measured prompt."""
SHARED = 128
"""Tokens that all sequences share before they are decoded, as agents share a prefix."""
STEPS = 24
"""Decode steps measured at each batch size."""
ROUNDS = 3
"""Times that each rate is measured, in turns; the fastest counts: what else the machine does only slows it down."""
STORE = 64 << 20
"""Bytes in which the engine keeps the prefix."""
CHILD_TIMEOUT = 300.0
"""Longest wait for the measurement of one rung, s."""
_WORD = " oil"
_LONG = ". Write a long story about the captain of a tanker, in many sentences."
"""Asks for more tokens than are measured."""
_CHILD = "from finllm.scheduler.calibration.probe import answer; answer()"


class Measured(Protocol):
    """Something whose speed can be measured. What is timed returns the seconds that it took; token counts are exact."""

    def prefill(self, tokens: int) -> float:
        """Read a fresh prompt of `tokens` tokens."""
        ...

    def share(self, batch: int) -> None:
        """Read the prefix that `batch` sequences share."""
        ...

    def decode(self, batch: int, steps: int) -> float:
        """Decode `steps` tokens of each of `batch` sequences behind the prefix that was read for them."""
        ...


def measure_speed(probe: Measured, memory: Callable[[], int], batches: Sequence[int] = BATCHES) -> Speed:
    """Measure the rates of a probe after a warm-up. `memory`: bytes that the probe holds, asked at the end."""
    cpu = energy.read_cpu()
    probe.share(max(batches))
    probe.decode(max(batches), 1)

    def timed(work: Callable[[], float]) -> tuple[float, Amount]:
        before = energy.read_counters()
        seconds = work()
        return seconds, energy.between(before, energy.read_counters(), cpu)

    reads: list[tuple[float, Amount]] = []
    decodes: dict[int, list[tuple[float, Amount]]] = {batch: [] for batch in batches}
    for _ in range(ROUNDS):
        reads.append(timed(lambda: probe.prefill(PREFILL)))
        for batch in batches:
            probe.share(batch)  # before the joules are read: they are those of decoding alone
            decodes[batch].append(timed(lambda batch=batch: probe.decode(batch, STEPS)))
    seconds, used = min(reads, key=_seconds)
    return Speed(
        prefill_tokens_per_second=PREFILL / seconds,
        prefill_joules_per_token=used.value / PREFILL,
        decode=tuple(_rate(batch, *min(taken, key=_seconds)) for batch, taken in decodes.items()),
        memory_bytes=memory(),
        energy=used.provenance,
        energy_basis=used.basis,
    )


def _seconds(taken: tuple[float, Amount]) -> float:
    return taken[0]


def _rate(batch: int, seconds: float, spent: Amount) -> DecodeRate:
    tokens = batch * STEPS
    return DecodeRate(batch=batch, tokens_per_second=tokens / seconds, joules_per_token=spent.value / tokens)


def measure_rung(path: Path, threads: int, batches: Sequence[int] = BATCHES) -> Speed:
    """Measure a GGUF file on the engine, in a child process. Errors: BackendError where it fails or takes too long."""
    fix = "run 'finllm models verify'; see 'finllm doctor'"
    asked = json.dumps([str(path), threads, list(batches)])
    try:
        child = subprocess.run([sys.executable, "-c", _CHILD], input=asked, text=True,
                               capture_output=True, timeout=CHILD_TIMEOUT, check=False)  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"{str(path)!r} was not measured within {CHILD_TIMEOUT:.0f} s", fix=fix) from error
    if child.returncode != 0:
        why = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise BackendError(f"{str(path)!r} cannot be measured: {why}", fix=fix)
    return Speed.model_validate_json(child.stdout)


def answer() -> None:
    """The child's part: path, threads and batches on stdin, the speed on stdout, both JSON."""
    import llama_cpp  # before the first look at the memory, of which the library is no part

    del llama_cpp
    path, threads, batches = json.loads(sys.stdin.read())
    before = resident_peak()
    probe = EngineProbe(Path(path), threads, max(batches))
    try:
        print(measure_speed(probe, lambda: max(resident_peak() - before, 0), batches).model_dump_json())
    finally:
        probe.close()


def resident_peak() -> int:
    """Peak resident memory of this process, bytes; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024


class EngineProbe:
    """The engine that serves calls, asked as calls ask it: a step costs what it costs them, sampling and all.

    Not thread-safe. Errors: BackendError where the model does not load or a step fails.
    """

    def __init__(self, path: Path, threads: int, most: int) -> None:
        room = PREFILL + SHARED + 2 * STEPS
        self._engine = Engine(
            EngineConfig(path, threads=threads, slots=most, context=room, cells=room + most * 2 * STEPS, store=STORE)
        )
        self._fresh = itertools.count()
        self._prefix = ""
        self._least = self._tokens_of("")
        self._each = (self._tokens_of(_WORD * 8) - self._least) / 8

    def close(self) -> None:
        self._engine.close()

    def prefill(self, tokens: int) -> float:
        seconds, (done,) = self._ask([self._work(f"{next(self._fresh)}:" + self._filler(tokens), 1)])
        return seconds * tokens / (done.prompt_tokens - done.cached_tokens)

    def share(self, batch: int) -> None:
        self._prefix = f"{next(self._fresh)}:" + self._filler(SHARED - self._tokens_of(_LONG) + self._least) + _LONG
        self._ask([self._work(self._prefix, 1, pinned=True)])

    def decode(self, batch: int, steps: int) -> float:
        seconds, done = self._ask([self._work(self._prefix, steps + 1)] * batch)
        if not (written := sum(one.output_tokens for one in done)):
            raise BackendError("the model ends its answer before the first token", fix="check the file")
        return seconds * batch * steps / written

    def _tokens_of(self, text: str) -> int:
        """Tokens of a prompt with this text."""
        _, (done,) = self._ask([self._work(text, 1)])
        return done.prompt_tokens

    def _filler(self, tokens: int) -> str:
        """Text that makes a prompt of about so many tokens."""
        return _WORD * max(round((tokens - self._least) / self._each), 1)

    @staticmethod
    def _work(text: str, tokens: int, *, pinned: bool = False) -> Work:
        return Work(Prompt("You are a risk analyst.", text), (Write("text", tokens, None),), pinned=pinned)

    def _ask(self, works: Sequence[Work]) -> tuple[float, list[Finished]]:
        """s until all are answered, and the answers."""
        answers: queue.SimpleQueue[Finished | Exception] = queue.SimpleQueue()
        started = time.perf_counter()
        for work in works:
            self._engine.submit(Job(work, answers.put))
        done: list[Finished] = []
        for _ in works:
            answer = answers.get(timeout=CHILD_TIMEOUT)
            if isinstance(answer, Exception):
                raise answer
            done.append(answer)
        return time.perf_counter() - started, done
