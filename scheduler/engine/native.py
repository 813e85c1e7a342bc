"""llama.cpp's model and context, as far as the engine needs them. Not thread-safe: one thread owns a `Native`."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finllm.errors import BackendError
from finllm.models import llama_log
from finllm.models.llama_lock import LLAMA_LOCK
from finllm.scheduler.engine.vocabulary import Vocabulary

Logits = NDArray[np.float32]
"""Log-probabilities up to a common offset; shape (vocabulary,)."""

BATCH = 512
"""Most tokens in one step."""
BRANCHES = 96
"""Most branches in one step."""

_NO_ROOM = 1
_BF16 = 30  # ggml.h: GGML_TYPE_BF16, which llama_cpp does not name


class NoRoom(Exception):
    """The KV cache has no cells left for the step."""


@dataclass(frozen=True)
class Run:
    """Tokens of a sequence, from `position` on, that go through the model in one step; `scored`: logits are wanted
    behind the last of them. `also`: sequences that hold the same so far, and get the same tokens."""

    sequence: int
    position: int
    tokens: Sequence[int]
    scored: bool
    also: tuple[int, ...] = ()


class Native:
    """A GGUF file loaded with one context of `cells` KV cells that `sequences` sequences share.

    Beside these, the sequences in `branches` are for what is fed and taken back within a step.

    Errors of the constructor: BackendError for a file that llama.cpp cannot load, or no memory for the context.
    """

    def __init__(self, path: Path, *, threads: int, cells: int, sequences: int) -> None:
        import llama_cpp

        self._llama: Any = llama_cpp
        self._closing = contextlib.ExitStack()
        self._adapters: dict[str, Any] = {}
        self._threads = threads
        self.cells = cells
        self.sequences = sequences
        self.branches = range(sequences, sequences + BRANCHES)
        with LLAMA_LOCK:
            self._load(path)

    def _load(self, path: Path) -> None:
        llama = self._llama
        llama_log.silence()
        llama.llama_backend_init()
        model_params = llama.llama_model_default_params()
        if has_amx(llama):
            model_params.use_extra_bufts = False
        self._model = llama.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise BackendError(f"llama.cpp cannot load {str(path)!r}", fix="remove the file; it is derived again")
        self._closing.callback(llama.llama_model_free, self._model)
        params = llama.llama_context_default_params()
        params.n_ctx = self.cells
        params.n_batch = params.n_ubatch = BATCH
        params.n_seq_max = self.sequences + BRANCHES
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = self._threads
        choose_attention(llama, params)
        self._context = llama.llama_init_from_model(self._model, params)
        if not self._context:
            self._closing.close()
            raise BackendError(
                f"llama.cpp has no memory for a context of {self.cells} tokens",
                fix="lower FINLLM_CONTEXT or FINLLM_SLOTS",
            )
        self._closing.callback(llama.llama_free, self._context)
        self._memory = llama.llama_get_memory(self._context)
        self.vocabulary = Vocabulary(llama, self._model)
        self._batch = _Batch(llama)
        self._closing.callback(self._batch.free)

    def close(self) -> None:
        """Free the context and the model; the object is of no use afterwards."""
        with LLAMA_LOCK:
            self._closing.close()

    def use(self, threads: int) -> None:
        """Compute with so many threads from here on. The answers stay the same bit for bit."""
        if threads != self._threads:
            self._llama.llama_set_n_threads(self._context, threads, threads)
            self._threads = threads

    def decode(self, runs: Sequence[Run]) -> list[int]:
        """Put at most `BATCH` tokens through the model.

        Returns for each run the index of its logits, -1 where none are wanted. Errors: NoRoom, with the cache as it
        was before; BackendError for any other failure.
        """
        rows = self._batch.load(runs)
        status = self._llama.llama_decode(self._context, self._batch.value)
        if status == _NO_ROOM:
            raise NoRoom
        if status != 0:
            raise BackendError(f"llama_decode failed with status {status}", fix="ask again; see 'finllm doctor'")
        return rows

    def logits(self, row: int) -> Logits:
        """The logits at an index that `decode` gave; a view that the next step overwrites."""
        pointer = self._llama.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(pointer, (self.vocabulary.size,))

    def share(self, source: int, target: int, length: int) -> None:
        """Let `target` begin with the first `length` cells of `source`, without copying them."""
        self._llama.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def forget(self, sequence: int, position: int = 0) -> None:
        """Forget everything of a sequence from `position` on. Errors: BackendError where the model cannot."""
        if not self._llama.llama_memory_seq_rm(self._memory, sequence, position, -1):
            raise BackendError("this model cannot go back in its context", fix="use values that differ at their start")

    def clear(self) -> None:
        """Forget every sequence; the next one finds the context as if it were new."""
        self._llama.llama_memory_clear(self._memory, False)

    def length(self, sequence: int) -> int:
        """How many positions a sequence holds; 0 for a free one."""
        return self._llama.llama_memory_seq_pos_max(self._memory, sequence) + 1

    def save(self, sequence: int) -> bytes:
        """A copy of a sequence's cells."""
        size = self._llama.llama_state_seq_get_size(self._context, sequence)
        buffer = (ctypes.c_uint8 * size)()
        written = self._llama.llama_state_seq_get_data(self._context, buffer, size, sequence)
        return bytes(memoryview(buffer)[:written])

    def load(self, sequence: int, saved: bytes) -> None:
        """Put saved cells back, under any free sequence. Errors: NoRoom."""
        buffer = (ctypes.c_uint8 * len(saved)).from_buffer_copy(saved)
        if self._llama.llama_state_seq_set_data(self._context, buffer, len(saved), sequence) == 0:
            self.forget(sequence)
            raise NoRoom

    def adapt(self, path: str | None) -> None:
        """Put a GGUF LoRA adapter on the context, in place of any other; None takes it off.

        The cells computed before stay as they were. Errors: BackendError for a file that is no adapter of this model.
        """
        llama = self._llama
        if path is None:
            llama.llama_set_adapters_lora(self._context, None, 0, None)
            return
        if path not in self._adapters:
            with LLAMA_LOCK:
                adapter = llama.llama_adapter_lora_init(self._model, path.encode())
            if not adapter:
                raise BackendError(
                    f"llama.cpp cannot use the adapter {path!r} with this model",
                    fix="train or convert it for this model",
                )
            self._adapters[path] = adapter
        adapters = (llama.llama_adapter_lora_p_ctypes * 1)(self._adapters[path])
        if llama.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0)) != 0:
            raise BackendError(f"llama.cpp refused the adapter {path!r}", fix="train or convert it for this model")


class _Batch:
    """One `llama_batch` that is filled again for every step, through arrays over its memory."""

    def __init__(self, llama: Any) -> None:
        self._llama = llama
        self.value = llama.llama_batch_init(BATCH, 0, 1 + BRANCHES)
        self._tokens = np.ctypeslib.as_array(self.value.token, (BATCH,))
        self._positions = np.ctypeslib.as_array(self.value.pos, (BATCH,))
        self._scored = np.ctypeslib.as_array(self.value.logits, (BATCH,))
        self._counts = np.ctypeslib.as_array(self.value.n_seq_id, (BATCH,))
        self._sequences = [np.ctypeslib.as_array(self.value.seq_id[at], (1 + BRANCHES,)) for at in range(BATCH)]

    def load(self, runs: Sequence[Run]) -> list[int]:
        rows: list[int] = []
        end = 0
        for run in runs:
            start, end = end, end + len(run.tokens)
            self._tokens[start:end] = run.tokens
            self._positions[start:end] = np.arange(run.position, run.position + len(run.tokens))
            self._scored[start:end] = 0
            sequences = (run.sequence, *run.also)
            self._counts[start:end] = len(sequences)
            for of in self._sequences[start:end]:
                of[: len(sequences)] = sequences
            if run.scored:
                self._scored[end - 1] = 1
            rows.append(end - 1 if run.scored else -1)
        self.value.n_tokens = end
        return rows

    def free(self) -> None:
        self._llama.llama_batch_free(self.value)


def choose_attention(llama: Any, params: Any) -> None:
    """Flash attention passes over the cells of other requests, but on the CPU it is fast with BF16 cells only.

    Measured with SmolLM2 at Q4_0 on two cores, 24 sequences of about 300 tokens, tokens/s: BF16 cells with flash
    attention 293, F16 without 279, F16 with flash attention 146. BF16 needs a CPU that multiplies it.
    """
    if b"AVX512_BF16 = 1" in llama.llama_print_system_info():
        params.type_k = params.type_v = _BF16
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
    else:
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED


def has_amx(llama: Any) -> bool:
    """AMX kernels built by GCC 12 crash on their first tile load (llama.cpp pull request 26954); they are avoided."""
    return b"AMX_INT8 = 1" in llama.llama_print_system_info()
