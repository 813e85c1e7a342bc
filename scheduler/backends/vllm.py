"""The vLLM backend and its kind: a model served by one `vllm serve`, filled by the same rule as on the edge tier."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from finllm.errors import BackendError
from finllm.models.hf_export import MANIFEST
from finllm.scheduler.backends import Generation, Offer, Request
from finllm.scheduler.backends.http_client import Refused
from finllm.scheduler.backends.joined import Joined, joined
from finllm.scheduler.backends.kind import Opening, Site
from finllm.scheduler.backends.loop_thread import LoopThread
from finllm.scheduler.backends.token_engine import END_OF_PROSE, Written, answer
from finllm.scheduler.backends.vllm_client import MOST_CANDIDATES, Patience, VllmClient
from finllm.scheduler.backends.vllm_metrics import EngineLoad
from finllm.scheduler.backends.vllm_prompt import PromptTokenizer
from finllm.scheduler.backends.vllm_wire import Served, Usage
from finllm.scheduler.decoding.prose import Prose
from finllm.scheduler.decoding.template import Write
from finllm.scheduler.money.tariff import Tariff, token_prices
from finllm.scheduler.placement.task import Prompt, Tier
from finllm.settings import Settings

T = TypeVar("T")

LINK = 0.01
"""s there and back to a server, as placing reckons: fixed, so that the same run is placed the same twice."""
_RANK_STEPS = 1000
_BACKGROUND = 10**9


class VllmBackend:
    """One served model behind the `Backend` protocol; `connect` opens it.

    The connection lives on a thread with an event loop of its own, so that callers may come from any loop. A caller
    that is cancelled closes its connection, which ends the request on the server.
    """

    def __init__(self, client: VllmClient, offer: Offer, model: str, loop: LoopThread) -> None:
        self._client = client
        self._offer = offer
        self._model = model
        self._loop = loop
        self._ranked = True
        self._tokenizer = PromptTokenizer(
            lambda text: client.tokenize(model, text),
            lambda messages: client.tokenize_chat(model, messages),
            lambda tokens: client.detokenize(model, tokens),
        )
        self.used = Usage()

    @property
    def offer(self) -> Offer:
        return self._offer

    async def generate(self, request: Request) -> Generation:
        """Fill the request's template. Errors: as `token_engine.answer`."""
        engine = _Served(self, _priority(request))
        return await self._loop.call(answer(engine, request, self._offer.context))

    async def load(self) -> EngineLoad:
        """The server's queue and KV use. Errors: BackendError."""
        return await self._loop.call(self._client.load())

    async def load_words(self) -> str:
        """Its queue and KV use, in words. Errors: BackendError."""
        load = await self.load()
        return f"{load.running} running, {load.waiting} waiting, KV {load.kv_used:.0%} used"

    def close(self) -> None:
        """Close the connections; calls under way fail. Closing again does nothing."""
        self._loop.close(self._client.aclose())

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], priority: int
    ) -> tuple[list[dict[int, float]], Usage]:
        """Scores in as few requests as the server's limit on candidates allows, and the first one's usage."""
        batches = [candidates[at : at + MOST_CANDIDATES] for at in range(0, len(candidates), MOST_CANDIDATES)]
        merged: list[dict[int, float]] = [{} for _ in prompts]
        first = Usage()
        for batch in batches:
            asking = partial(self._client.score, self._model, prompts, batch)
            scores = await self._ranking(priority, asking)
            for into, found in zip(merged, scores.logprobs, strict=True):
                into.update(found)
            self._count(scores.usage)
            first = scores.usage if batch is batches[0] else first
        return merged, first

    async def write(self, prompt: Sequence[int], step: Write, seed: int, priority: int) -> Written:
        return await self._ranking(priority, partial(self._write, prompt, step, seed))

    async def chat(self, prompt: Prompt) -> list[int]:
        return await self._tokenizer.chat(prompt)

    async def tokens(self, text: str) -> list[int]:
        return await self._tokenizer.data(text)

    async def _write(self, prompt: Sequence[int], step: Write, seed: int, *, priority: int) -> Written:
        text, tokens = "", 0
        structure = None if step.prose is None else {"regex": prose_regex(step.prose)}
        stream = self._client.stream(
            self._model,
            prompt,
            max_tokens=step.tokens,
            temperature=step.temperature,
            seed=seed,
            structure=structure,
            stop=() if step.prose is None else (END_OF_PROSE,),
            priority=priority,
        )
        async with contextlib.aclosing(stream):
            async for chunk in stream:
                text += chunk.text
                if chunk.usage is not None:
                    tokens = chunk.usage.output
                    self._count(chunk.usage)
        return Written(text, tokens)

    async def _ranking(self, priority: int, ask: Callable[..., Awaitable[T]]) -> T:
        """Ask with a priority; without one where the server has no priority scheduling and refuses it."""
        try:
            return await ask(priority=priority if self._ranked else 0)
        except Refused as error:
            if not self._ranked or priority == 0 or "priority" not in error.message.lower():
                raise
            self._ranked = False
            return await ask(priority=0)

    def _count(self, usage: Usage) -> None:
        self.used = Usage(
            self.used.prompt + usage.prompt, self.used.output + usage.output, self.used.cached + usage.cached
        )


class _Served:
    """A backend at one request's service: what `answer` drives."""

    def __init__(self, backend: VllmBackend, priority: int) -> None:
        self._backend = backend
        self._priority = priority
        self._computed: int | None = None
        self.chat = backend.chat
        self.tokens = backend.tokens

    @property
    def computed(self) -> int | None:
        return self._computed

    async def score(self, prompts: Sequence[Sequence[int]], candidates: Sequence[int]) -> Sequence[Mapping[int, float]]:
        """Scores; a call's first prompt goes alone: of a request with several the server tells the last one's cache."""
        if self._computed is None and len(prompts) > 1:
            return [*await self.score(prompts[:1], candidates), *await self.score(prompts[1:], candidates)]
        scores, usage = await self._backend.score(prompts, candidates, self._priority)
        self._computed = usage.prompt - usage.cached if self._computed is None else self._computed
        return scores

    async def write(self, prompt: Sequence[int], step: Write, seed: int) -> Written:
        return await self._backend.write(prompt, step, seed, self._priority)


def connect(
    url: str,
    *,
    model: str | None = None,
    api_key: str | SecretStr | None = None,
    known: Offer | None = None,
    name: str | None = None,
    patience: Patience | None = None,
) -> VllmBackend:
    """Open the backend of what the server at `url` serves: `model` (or adapter), or its first model.

    `known`: what is offered beside what the server tells: tier, tariff, and the precision, which vLLM keeps to itself.
    `name`: of the backend; None: made of the model and the server. Errors: BackendError where no server answers, or it
    does not serve `model`.
    """
    known = known or _offer("", "deep", "BF16", None)
    loop = LoopThread(f"vllm-{urlsplit(url).netloc}")
    client = VllmClient(url, api_key=api_key, patience=patience)
    try:
        models = loop.wait(client.models())
        version = loop.wait(client.version())
        served = _chosen(models, model, client.url)
    except BaseException:
        loop.close(client.aclose())
        raise
    parent = next((m for m in models if m.id == served.parent), None)
    offer = replace(
        known,
        name=name or f"{known.tier}:{served.id}@{urlsplit(client.url).netloc.rpartition('@')[2]}",
        weights_sha256=weights_digest(served, parent),
        build=f"vllm {version}",
        context=served.context or (parent.context if parent else 0),
    )
    return VllmBackend(client, offer, served.id, loop)


class VllmServer:
    """The servers of `FINLLM_VLLM_URLS`, on the deep tier, and those that `finllm nodes add` joined as `vllm`."""

    name = "vllm"

    def sites(self, settings: Settings) -> Iterable[Site]:
        """A site for each. Errors: InputError for prices or a file of joined servers that cannot be read."""
        tariff, model = token_prices(settings.vllm_usd_per_mtok, "FINLLM_VLLM_USD_PER_MTOK"), settings.vllm_model
        for url in settings.vllm_urls:
            offer = _offer(
                f"deep:{model or 'as served'}@{urlsplit(url).netloc}", "deep", settings.vllm_precision, tariff
            )
            yield Site(offer, url, partial(_open, url, model, None, settings.vllm_api_key, offer))
        for node in joined(settings, self.name):
            yield self.site(node)

    def site(self, node: Joined) -> Site:
        """A server that is joined, or might be."""
        offer = replace(
            _offer(node.name, node.tier, node.precision, node.tariff), power=node.power, network=node.network
        )
        return Site(offer, node.url, lambda opening: _open(node.url, node.model, node.name, node.key(), offer, opening))


def _offer(name: str, tier: Tier, precision: str, tariff: Tariff | None) -> Offer:
    """A server's offer, as it is known without asking it."""
    return Offer(name, tier, precision, "", "vllm", 0, VllmServer.name, "remote", LINK, tariff, stronger=tier == "deep")


def _open(
    url: str, model: str | None, name: str | None, key: SecretStr | None, known: Offer, opening: Opening
) -> VllmBackend:
    return opening.kept(connect(url, model=model, api_key=key, known=known, name=name))


def _chosen(models: Sequence[Served], wanted: str | None, url: str) -> Served:
    for served in models:
        if wanted is None or served.id == wanted:
            return served
    names = ", ".join(repr(served.id) for served in models) or "nothing"
    raise BackendError(f"{url} does not serve {wanted!r}: it serves {names}", fix="correct FINLLM_VLLM_MODEL")


def weights_digest(served: Served, parent: Served | None) -> str:
    """What stands for the served weights in the ledger's keys: hex sha256.

    vLLM tells no digest. Where the weights lie in a folder that can be read here and was exported by finllm, it is
    made of the digest in its manifest; else of the names that the server gives, so that other weights under the same
    name and folder are taken for the same.
    """
    known = [_manifest_digest(one) for one in (served, parent) if one is not None]
    return hashlib.sha256(json.dumps(["vllm", *known]).encode()).hexdigest()


def _manifest_digest(served: Served) -> str:
    try:
        manifest = json.loads((Path(served.root) / MANIFEST).read_text(encoding="utf-8"))
        return str(manifest["weights_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{served.id} {served.root}"


def prose_regex(prose: Prose) -> str:
    """The part of a prose's grammar that vLLM's grammar engines understand: Latin letters, punctuation, literals."""
    literals = ["".join("\\" + c if c in r".^$*+?()[]{}|\/" else c for c in literal) for literal in prose.literals]
    plain = ["[a-zA-ZÀ-ÖØ-öø-ÿ]", r"[ .,;:!?'()&/$€£%+\-]", "[‐-―‘’]"]
    return f"({'|'.join([*literals, *plain])})*{END_OF_PROSE}?"


def _priority(request: Request) -> int:
    """vLLM serves the lowest number first."""
    return (_BACKGROUND if request.background else 0) - round(request.rank * _RANK_STEPS)
