"""The llama.cpp backend, and the kind that opens it on the ladder's rungs: one engine serves many requests at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, runtime_checkable

from finllm.events import EventBus, Progress
from finllm.models.cards import adapter_for
from finllm.models.ladder import derived_rungs, ensure_rung
from finllm.models.registry import default_source
from finllm.scheduler.backends import Generation, Offer, Request
from finllm.scheduler.backends.kind import Opening, Site
from finllm.scheduler.decoding.template import Template, Write
from finllm.scheduler.engine.engine import EngineConfig
from finllm.scheduler.engine.job import Finished, Job, Work
from finllm.scheduler.engine.process import EngineProcess
from finllm.scheduler.engine.programs import OnText
from finllm.scheduler.money.meter import Meter
from finllm.scheduler.placement.task import Prompt, Tier
from finllm.settings import Settings

MOST_WORKERS = 4
"""Contexts that an engine has at most: each takes memory, and no more compute at once than there are cores."""
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


class LlamaCpp:
    """The edge and the deep rung of the default model, with the adapter of the settings merged into them.

    Both are derived from one file. Deep is deeper where the edge runs the pruned rung, and else of more bits only.
    """

    name = "llama_cpp"

    def sites(self, settings: Settings) -> Iterable[Site]:
        """The two rungs. Errors: InputError for a model or adapter that cannot be used."""
        source = default_source(settings)
        rungs = derived_rungs(source.sha256, settings)
        tiers: tuple[tuple[Tier, str], ...] = ("edge", settings.edge_precision), ("deep", settings.deep_precision)
        for tier, precision in tiers:
            adapter, _card = adapter_for(source, settings, precision)
            model = source.name if adapter is None else f"{source.name}+{adapter.path.stem}"
            digest = None if adapter is None else adapter.sha256
            rung = next((one for one in rungs if (one.precision, one.adapter_sha256) == (precision, digest)), None)
            offer = Offer(
                f"{tier}:{model}:{precision}", tier, precision, rung.sha256 if rung else "", llama_build(),
                settings.context, self.name, slots=settings.slots, calibratable=True, carded=True,
                weights_file=str(rung.path) if rung else None,
            )  # fmt: skip
            yield Site(offer, "this machine" if rung else "this machine; not derived yet", partial(_open, offer))


def _open(offer: Offer, opening: Opening) -> LlamaCppBackend:
    """A rung's backend, in a process that all of an opening share; the rung is derived if it is not there."""

    def progress(what: str, done: int, total: int) -> None:
        opening.bus.emit(Progress(what=what, done=done, total=total))

    settings, source = opening.settings, default_source(opening.settings)
    adapter, _card = adapter_for(source, settings, offer.precision)
    rung = ensure_rung(source, offer.precision, settings, progress, adapter=adapter)
    workers = min(opening.runs, settings.threads, MOST_WORKERS)
    offer = replace(offer, weights_sha256=rung.sha256, weights_file=str(rung.path), slots=settings.slots * workers)
    config = engine_config(rung.path, settings, workers=workers)
    return LlamaCppBackend(opening.shared(EngineProcess).open(offer.name, config), offer, rung.path)


def llama_backends(settings: Settings, process: EngineProcess) -> list[LlamaCppBackend]:
    """The rungs' backends alone, in a process of the caller's: for measurements of the model itself."""
    with contextlib.ExitStack() as nothing:
        opening = Opening(settings, EventBus(), nothing, _shared={EngineProcess: process})
        return [_open(site.offer, opening) for site in LlamaCpp().sites(settings)]


def engine_config(path: Path, settings: Settings, workers: int = 1) -> EngineConfig:
    """How an engine runs a file: room for two requests of full length, which many short ones share.

    Several workers have room for one each, and their part of the saved prompts.
    """
    return EngineConfig(
        path,
        threads=settings.threads,
        slots=settings.slots,
        context=settings.context,
        cells=settings.context * (min(settings.slots, 2) if workers == 1 else 1),
        store=(settings.prefix_cache << 20) // workers,
        workers=workers,
    )
