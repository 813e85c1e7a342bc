"""The llama.cpp backend: one context, one engine thread, typed decoding by scored choices, greedy and reproducible."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finllm.errors import BackendError
from finllm.models import llama_log
from finllm.scheduler.backends import Generation, Offer, Request, TokenLimitReached
from finllm.scheduler.task import Prompt, Tier
from finllm.scheduler.template import fill

BATCH = 512
"""Longest prefill between two looks at `Request.stop`, tokens."""

_SYSTEM, _USER = "\x02system\x03", "\x02user\x03"


class LlamaCppBackend:
    """A GGUF file on the CPU (or on what llama.cpp was built for).

    Calls run one after another on the backend's own thread; the KV cache is emptied before each, so an answer depends
    on its request alone. The file is loaded on the first call. Threads: `threads`; context: `context` tokens.
    """

    def __init__(
        self, path: Path, weights_sha256: str, *, name: str, tier: Tier, precision: str, threads: int, context: int
    ) -> None:
        self._path = path
        self._threads = threads
        self._offer = Offer(name, tier, precision, weights_sha256, _build(), context)
        self._engine: _Engine | None = None
        self._closed = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"llama-{name}")

    @property
    def offer(self) -> Offer:
        return self._offer

    @property
    def path(self) -> Path:
        """The weights file."""
        return self._path

    async def generate(self, request: Request) -> Generation:
        """Fill the request's template.

        Errors: BackendError for a file that does not load, a prompt that does not fit or a decode that fails;
        TokenLimitReached; a cancelled call leaves the thread after its current step.
        """
        try:
            queued = self._thread.submit(self._generate, request)
        except RuntimeError as error:
            raise self._is_closed() from error
        return await asyncio.wrap_future(queued)

    def close(self) -> None:
        """Free the model. The call under way finishes first, those that wait fail; closing again does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._thread.submit(self._free).result()
        self._thread.shutdown()

    def _is_closed(self) -> BackendError:
        return BackendError(f"{self._offer.name!r} is closed", fix="open the desk again")

    def _free(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _generate(self, request: Request) -> Generation:
        if self._closed.is_set():
            raise self._is_closed()
        if request.stop.is_set():
            raise BackendError("the call was abandoned before it began", fix="ask again")
        if self._engine is None:
            self._engine = _Engine(self._path, self._threads, self._offer.context)
        started = time.monotonic()
        walk = _Walk(self._engine, request)
        walk.prefill(request.prompt)
        prompt_tokens = walk.position
        filled = fill(request.template, walk, request.priors)
        return Generation(
            filled.text, filled.choices, prompt_tokens, walk.position - prompt_tokens, time.monotonic() - started
        )


class _Walk:
    """One call's way through the context: the `Scorer` that a template is filled with.

    Text is decoded when a score needs it, so that a value and the forced text behind it cost one decode, and the text
    behind the last choice none. `position` counts it all the same.
    """

    def __init__(self, engine: _Engine, request: Request) -> None:
        self._engine = engine
        self._request = request
        self._logits: Any = None
        self._waiting: list[int] = []
        self.position = 0
        engine.clear()

    def prefill(self, prompt: Prompt) -> None:
        self._advance(self._engine.chat_tokens(prompt))

    def feed(self, text: str) -> None:
        self._advance(self._engine.tokenize(text, special=False))

    def score(self, field: str, values: Sequence[str]) -> list[float]:
        """Scores by first token; where two values share it, by the whole value's log-probability."""
        tokens = [self._engine.tokenize(value, special=False) for value in values]
        if self._waiting or self._logits is None:
            self._decode_waiting()
            self._logits = self._engine.logits()
        logits = self._logits
        if len({value[0] for value in tokens}) == len(values):
            return [float(logits[value[0]]) for value in tokens]
        return [self._score_whole(value, logits) for value in tokens]

    def _score_whole(self, tokens: list[int], logits: Any) -> float:
        total = 0.0
        for offset, token in enumerate(tokens):
            total += float(logits[token]) - _log_sum_exp(logits)
            if offset + 1 < len(tokens):
                self._engine.decode([token])
                logits = self._engine.logits()
        self._engine.roll_back(self.position)
        return total

    def _advance(self, tokens: list[int]) -> None:
        if self.position + len(tokens) > self._engine.context:
            raise BackendError(
                f"the prompt needs more than the {self._engine.context} tokens of the context",
                fix="shorten the sources or raise FINLLM_CONTEXT",
            )
        if self.position + len(tokens) > self._request.token_limit:
            raise TokenLimitReached(self._request.token_limit, self.position)
        self._waiting += tokens
        self.position += len(tokens)

    def _decode_waiting(self) -> None:
        for start in range(0, len(self._waiting), BATCH):
            if self._request.stop.is_set():
                raise BackendError("the call was abandoned", fix="ask again")
            self._engine.decode(self._waiting[start : start + BATCH])
        self._waiting = []


class _Engine:
    """A loaded model with its context, through llama.cpp's own functions. Not thread-safe: one thread owns it."""

    def __init__(self, path: Path, threads: int, context: int) -> None:
        import llama_cpp

        llama: Any = llama_cpp
        self._llama = llama
        llama_log.silence()
        llama.llama_backend_init()
        model_params = llama.llama_model_default_params()
        if _has_amx(llama):
            model_params.use_extra_bufts = False
        self._model = llama.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise BackendError(f"llama.cpp cannot load {str(path)!r}", fix="remove the file; it is derived again")
        context_params = llama.llama_context_default_params()
        context_params.n_ctx = context
        context_params.n_batch = BATCH
        context_params.n_threads = context_params.n_threads_batch = threads
        # On the CPU, flash attention makes a forced run of 7 tokens behind 976 cost 115 ms instead of 34.
        context_params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = llama.llama_init_from_model(self._model, context_params)
        if not self._context:
            llama.llama_model_free(self._model)
            raise BackendError(f"llama.cpp has no memory for a context of {context} tokens", fix="lower FINLLM_CONTEXT")
        self.context = context
        self._vocabulary = llama.llama_model_get_vocab(self._model)
        self._size = llama.llama_vocab_n_tokens(self._vocabulary)
        self._memory = llama.llama_get_memory(self._context)
        self._template = llama.llama_model_chat_template(self._model, None)

    def close(self) -> None:
        self._llama.llama_free(self._context)
        self._llama.llama_model_free(self._model)

    def clear(self) -> None:
        self._llama.llama_memory_clear(self._memory, True)

    def roll_back(self, position: int) -> None:
        """Forget everything from `position` on."""
        if not self._llama.llama_memory_seq_rm(self._memory, 0, position, -1):
            raise BackendError("this model cannot go back in its context", fix="use values that differ at their start")

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        data = text.encode()
        tokens = (self._llama.llama_token * (len(data) + 8))()
        count = self._llama.llama_tokenize(self._vocabulary, data, len(data), tokens, len(tokens), False, special)
        if count < 0:
            raise BackendError(f"llama.cpp cannot tokenise a text of {len(data)} bytes", fix="shorten the sources")
        return list(tokens[:count])

    def chat_tokens(self, prompt: Prompt) -> list[int]:
        """The chat prompt; only the template's own text may become control tokens, the messages never."""
        llama, vocabulary = self._llama, self._vocabulary
        tokens = [llama.llama_vocab_bos(vocabulary)] if llama.llama_vocab_get_add_bos(vocabulary) else []
        for piece in _chat_pieces(self._template, prompt):
            tokens += self.tokenize(piece.text, special=piece.special)
        return tokens

    def decode(self, tokens: list[int]) -> None:
        array = (self._llama.llama_token * len(tokens))(*tokens)
        status = self._llama.llama_decode(self._context, self._llama.llama_batch_get_one(array, len(tokens)))
        if status != 0:
            raise BackendError(f"llama_decode failed with status {status}", fix="ask again; see 'finllm doctor'")

    def logits(self) -> Any:
        """Logits after the last token; float32 ndarray of shape (vocabulary,), a copy."""
        import numpy as np

        pointer = self._llama.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, (self._size,)).copy()


@dataclass(frozen=True)
class _Piece:
    text: str
    special: bool


def _chat_pieces(template: bytes | None, prompt: Prompt) -> list[_Piece]:
    """Split the rendered chat template at the two messages, so that these can be tokenised as data.

    A model whose template knows no system message gets both in the user's. Errors: BackendError for a template that
    does not show each message once.
    """
    separate = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    joined = [{"role": "user", "content": f"{_SYSTEM}\n\n{_USER}"}]
    for messages in (separate, joined):
        rendered = _rendered(template, messages)
        if rendered.count(_SYSTEM) == rendered.count(_USER) == 1 and rendered.index(_SYSTEM) < rendered.index(_USER):
            before, rest = rendered.split(_SYSTEM)
            between, after = rest.split(_USER)
            pieces = ((before, True), (prompt.system, False), (between, True), (prompt.user, False), (after, True))
            return [_Piece(text, special) for text, special in pieces if text]
    raise BackendError("the model's chat template cannot be used", fix="set FINLLM_MODEL to a chat model's GGUF file")


def _rendered(template: bytes | None, messages: list[dict[str, str]]) -> str:
    """The chat as the model expects it; empty where its template refuses these messages."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if template is None:
        return "\n\n".join([message["content"] for message in messages] + [""])
    try:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        return environment.from_string(template.decode("utf-8", "replace")).render(
            messages=messages, add_generation_prompt=True, bos_token="", eos_token=""
        )
    except (TemplateError, TypeError):
        return ""


def _log_sum_exp(logits: Any) -> float:
    import numpy as np

    wide = logits.astype(np.float64)
    top = wide.max()
    return float(top + np.log(np.exp(wide - top).sum()))


def _build() -> str:
    return f"llama-cpp-python {version('llama-cpp-python')}"


def _has_amx(llama: Any) -> bool:
    """AMX kernels built by GCC 12 crash on their first tile load (llama.cpp pull request 26954); they are avoided."""
    return b"AMX_INT8 = 1" in llama.llama_print_system_info()
