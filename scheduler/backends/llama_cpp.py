"""The llama.cpp backend: requests go to an engine that serves many at once, in this process or in one of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, runtime_checkable

from finllm.scheduler.backends import Generation, Offer, Request
from finllm.scheduler.decoding.template import Template, Write
from finllm.scheduler.engine.job import Finished, Job, Work
from finllm.scheduler.engine.programs import OnText
from finllm.scheduler.money.meter import Meter
from finllm.scheduler.placement.task import Prompt

_NOTHING: Template = (Write("nothing", 1, None),)
"""The least that can be asked."""


class ServesJobs(Protocol):
    """`engine.Engine`, or `process.RemoteEngine` in front of one in another process."""

    def submit(self, job: Job) -> None: ...

    def stop(self, job: Job) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class Restarts(Protocol):
    """An engine in a process of its own, which can be ended from here and starts again by itself."""

    def restart(self, why: str) -> None: ...


class LlamaCppBackend:
    """A GGUF file, `path`, on the CPU (or on what llama.cpp was built for), behind an engine.

    `adapter`: a GGUF LoRA adapter that the engine puts on its context for this backend's calls, without loading the
    weights again; the offer's digest then stands for both. Backends with different adapters may share an engine.
    """

    def __init__(self, engine: ServesJobs, offer: Offer, path: Path, adapter: Path | None = None) -> None:
        self._engine = engine
        self._offer = offer
        self._path = path
        self._adapter = None if adapter is None else str(adapter)

    @property
    def offer(self) -> Offer:
        return self._offer

    @property
    def path(self) -> Path:
        """The weights file."""
        return self._path

    async def generate(self, request: Request) -> Generation:
        """Fill the request's template.

        Errors: BackendError for a file that does not load, a prompt that does not fit or a step that fails;
        TokenLimitReached. A cancelled call leaves the engine before its next step.
        """
        return await self._ask(request, None)

    async def stream(self, request: Request) -> AsyncGenerator[str | Generation, None]:
        """Fill the request's template; gives its free text piece by piece as it is written, and at last the whole.

        Errors: as `generate`. Closing the generator cancels the call.
        """
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        def on_text(piece: str) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        asking = asyncio.ensure_future(self._ask(request, on_text))
        asking.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            yield await asking
        finally:
            asking.cancel()

    async def warm(self, prompts: Sequence[Prompt]) -> None:
        """Prefill prompts and keep what they begin with pinned, so that calls that begin alike need not prefill it.

        Errors: as `generate`.
        """
        works = [Work(prompt, _NOTHING, adapter=self._adapter, pinned=True) for prompt in prompts]
        await asyncio.gather(*map(self._finish, works))

    def restart(self, why: str) -> None:
        """End the engine's process, which hangs; calls under way are answered with BackendLost, the next starts it."""
        if isinstance(self._engine, Restarts):
            self._engine.restart(why)

    def close(self) -> None:
        """Free the model; calls under way fail. Closing again does nothing."""
        self._engine.close()

    async def _ask(self, request: Request, on_text: OnText | None) -> Generation:
        finished = await self._finish(_work(request, self._adapter), on_text, request.meter)
        return Generation(
            finished.filled.text,
            finished.filled.choices,
            finished.prompt_tokens,
            finished.output_tokens,
            finished.seconds,
            finished.cached_tokens,
            finished.side_by_side,
            finished.joules,
        )

    async def _finish(self, work: Work, on_text: OnText | None = None, meter: Meter | None = None) -> Finished:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Finished] = loop.create_future()

        def settle(result: Finished | Exception) -> None:
            if answer.done():
                return
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        def done(result: Finished | Exception) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result)

        job = Job(work, done, on_text, on_used=None if meter is None else meter.read)
        self._engine.submit(job)
        try:
            return await answer
        except asyncio.CancelledError:
            self._engine.stop(job)
            raise


def _work(request: Request, adapter: str | None) -> Work:
    return Work(
        request.prompt,
        request.template,
        request.priors,
        request.seed,
        request.token_limit,
        request.rank,
        request.background,
        request.within,
        adapter,
    )


def llama_build() -> str:
    """The build that an offer names: answers may differ between two."""
    return f"llama-cpp-python {version('llama-cpp-python')}"
