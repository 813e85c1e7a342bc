"""Measuring a rung: prefill and batched decoding on llama.cpp itself, in a child process whose memory is its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from finllm.errors import BackendError
from finllm.models import llama_log
from finllm.scheduler import energy
from finllm.scheduler.amount import Amount
from finllm.scheduler.calibration import BATCHES, DecodeRate, Speed
from finllm.scheduler.engine.native import choose_attention, has_amx

PREFILL = 512
"""Tokens of the measured prompt."""
SHARED = 128
"""Tokens that all sequences share before they are decoded, as agents share a prefix."""
STEPS = 12
"""Decode steps measured at each batch size."""
CHILD_TIMEOUT = 300.0
"""Longest wait for the measurement of one rung, s."""
_CHILD = "from finllm.scheduler.calibration_probe import answer; answer()"


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
        before = energy.read()
        seconds = work()
        return seconds, energy.between(before, energy.read(), cpu)

    seconds, used = timed(lambda: probe.prefill(PREFILL))
    rates: list[DecodeRate] = []
    for batch in batches:
        probe.share(batch)  # before the joules are read: they are those of decoding alone
        took, spent = timed(lambda batch=batch: probe.decode(batch, STEPS))
        tokens = batch * STEPS
        rates.append(DecodeRate(batch=batch, tokens_per_second=tokens / took, joules_per_token=spent.value / tokens))
    return Speed(
        prefill_tokens_per_second=PREFILL / seconds,
        prefill_joules_per_token=used.value / PREFILL,
        decode=tuple(rates),
        memory_bytes=memory(),
        energy=used.provenance,
        energy_basis=used.basis,
    )


def measure_rung(path: Path, threads: int, batches: Sequence[int] = BATCHES) -> Speed:
    """Measure a GGUF file on llama.cpp, in a child process. Errors: BackendError where it fails or takes too long."""
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
    probe = RawProbe(Path(path), threads, max(batches))
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


class RawProbe:
    """llama.cpp without an engine around it: the speed that any scheduler on this build can at most reach.

    One unified KV cache; the sequences share their prefix in it. Not thread-safe.
    """

    def __init__(self, path: Path, threads: int, most: int) -> None:
        import llama_cpp

        llama: Any = llama_cpp
        self._llama = llama
        llama_log.silence()
        llama.llama_backend_init()
        model_params = llama.llama_model_default_params()
        model_params.use_extra_bufts = not has_amx(llama)
        self._model = llama.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise BackendError(f"llama.cpp cannot load {str(path)!r}", fix="run 'finllm models verify'")
        params = llama.llama_context_default_params()
        params.n_ctx = PREFILL + SHARED + most * (STEPS + 8)
        params.n_batch = params.n_ubatch = PREFILL
        params.n_seq_max = most
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = threads
        choose_attention(llama, params)
        self._context = llama.llama_init_from_model(self._model, params)
        if not self._context:
            llama.llama_model_free(self._model)
            raise BackendError(f"llama.cpp has no memory for {str(path)!r}", fix="free some memory")
        self._memory = llama.llama_get_memory(self._context)
        self._batch = llama.llama_batch_init(PREFILL, 0, 1)
        self._vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model))

    def close(self) -> None:
        self._llama.llama_batch_free(self._batch)
        self._llama.llama_free(self._context)
        self._llama.llama_model_free(self._model)

    def prefill(self, tokens: int) -> float:
        self._llama.llama_memory_clear(self._memory, True)
        started = time.perf_counter()
        for start in range(0, tokens, PREFILL):
            count = min(PREFILL, tokens - start)
            self._decode([(start + at, 0, start + at + 1 == tokens) for at in range(count)])
        return time.perf_counter() - started

    def share(self, batch: int) -> None:
        self.prefill(SHARED)
        for sequence in range(1, batch):
            self._llama.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)

    def decode(self, batch: int, steps: int) -> float:
        started = time.perf_counter()
        for step in range(steps):
            self._decode([(SHARED + step, sequence, True) for sequence in range(batch)])
        return time.perf_counter() - started

    def _decode(self, entries: Sequence[tuple[int, int, bool]]) -> None:
        """Decode entries of (position, sequence, whether logits are wanted); which tokens they are costs nothing."""
        batch = self._batch
        batch.n_tokens = len(entries)
        for at, (position, sequence, wanted) in enumerate(entries):
            batch.token[at] = (position * 7919 + sequence * 104_729 + 17) % self._vocabulary
            batch.pos[at] = position
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = sequence
            batch.logits[at] = wanted
        status = self._llama.llama_decode(self._context, batch)
        if status != 0:
            raise BackendError(f"llama_decode failed with status {status}", fix="see 'finllm doctor'")
        self._llama.llama_synchronize(self._context)
