"""Any server that speaks OpenAI's chat protocol: llama-server, Ollama, LM Studio, vLLM, or one that is paid by token.

What it can do is found by asking one typed question when it is opened: whether it keeps to a JSON schema, gives
log-probabilities and counts tokens. Where it gives none, answers are sampled and counted, and the offer says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

import httpx
from pydantic import SecretStr

from finllm.errors import BackendError
from finllm.events import Noted
from finllm.scheduler.backends import Generation, Offer, Request
from finllm.scheduler.backends import openai_wire as wire
from finllm.scheduler.backends.http_client import HttpClient, Patience, Refused, Wording
from finllm.scheduler.backends.joined import Joined, joined
from finllm.scheduler.backends.kind import Opening, Site
from finllm.scheduler.backends.loop_thread import LoopThread
from finllm.scheduler.backends.openai_chat import SPARE, Asking, Chat
from finllm.scheduler.backends.sheet import Sheet, sheet
from finllm.scheduler.backends.vllm import LINK
from finllm.scheduler.placement.task import Prompt
from finllm.settings import Settings

SIDE_BY_SIDE = 8
"""Requests that a server is sent at once; the others wait here."""
CONTEXT = 8192
"""Tokens of context of a model whose server does not tell, unless `finllm nodes add --context` does."""
_CANNOT = frozenset({400, 422, 501})
"""How servers refuse a request that asks for what they do not know."""
_PROBE = Prompt("You read news about markets.", "Oil rose by a third. Which way did oil go: up or down?")
_ABILITIES = ((True, True), (False, True), (True, False), (False, False))
"""Log-probabilities and a schema, as they are asked for in turn until the server takes a request."""


class OpenAIBackend:
    """One served model behind the `Backend` protocol; `connect` opens it.

    The connection lives on a thread with an event loop of its own, so that callers may come from any loop. A caller
    that is cancelled closes its requests.
    """

    def __init__(self, chat: Chat, offer: Offer, loop: LoopThread) -> None:
        self._chat = chat
        self._offer = offer
        self._loop = loop
        self._gate = asyncio.Semaphore(SIDE_BY_SIDE)

    @property
    def offer(self) -> Offer:
        return self._offer

    async def generate(self, request: Request) -> Generation:
        """Fill the request's template. Errors: BackendError, TokenLimitReached."""
        return await self._loop.call(Asking(self._chat, request, self._offer.votes, self._gate).filled())

    def close(self) -> None:
        """Close the connections; calls under way fail. Closing again does nothing."""
        self._loop.close(self._chat.http.aclose())


class OpenAICompatible:
    """The servers that `finllm nodes add` joined as `openai`."""

    name = "openai"

    def sites(self, settings: Settings) -> Iterable[Site]:
        for node in joined(settings, self.name):
            yield self.site(node)

    def site(self, node: Joined) -> Site:
        """A server that is joined, or might be."""
        return Site(_offer(node), node.url, partial(_open, node))


def _offer(node: Joined) -> Offer:
    """A server's offer, as it is known without asking it."""
    scores = node.scores or "logprobs"
    return Offer(
        node.name, node.tier, node.precision, "", "chat completions", node.context or CONTEXT, OpenAICompatible.name,
        "remote", LINK, node.tariff, scores=scores, votes=node.votes if scores == "votes" else 0,
        stronger=node.tier == "deep", power=node.power, network=node.network,
    )  # fmt: skip


def _open(node: Joined, opening: Opening) -> OpenAIBackend:
    patience = Patience(connect=5.0, call=opening.settings.call_timeout)
    backend = opening.kept(connect(node, node.key(), patience=patience))
    if backend.offer.votes:
        told = f"{node.name!r} gives no log-probabilities: its probabilities are shares of {node.votes} answers"
        opening.bus.emit(Noted(level="info", message=told))
    return backend


def connect(
    node: Joined,
    key: SecretStr | None = None,
    *,
    patience: Patience | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> OpenAIBackend:
    """Open the backend of a server, and ask it one typed question to learn what it can do.

    Errors: BackendError where no server answers, it does not serve the node's model, or answers as no such server does.
    """
    loop = LoopThread(f"chat-{node.netloc}")
    http = HttpClient(node.url, _wording(node), api_key=key, patience=patience, transport=transport)
    try:
        model, context = loop.wait(_model(http, node))
        found = loop.wait(_found(http, model))
    except BaseException:
        loop.close(http.aclose())
        raise
    votes = 0 if found.logprobs else node.votes
    known = [OpenAICompatible.name, node.url, model, votes, found.schema]
    offer = replace(
        _offer(node), weights_sha256=hashlib.sha256(json.dumps(known).encode()).hexdigest(), votes=votes,
        scores="votes" if votes else "logprobs", counts_tokens=found.usage,
        context=node.context or context or CONTEXT,
    )  # fmt: skip
    return OpenAIBackend(Chat(http, model, found.schema, found.usage), offer, loop)


def _wording(node: Joined) -> Wording:
    key = f"the key in {node.api_key_env}" if node.api_key_env else "a key: finllm nodes add … --api-key-env VARIABLE"
    return Wording(
        what="OpenAI-compatible",
        absent="start it, or give 'finllm nodes add' the URL at which it listens",
        strange="name a server that speaks OpenAI's chat protocol, at the URL before its /v1",
        refused={
            400: "see the server's log; shorten the sources if they do not fit its context",
            401: f"give it {key}",
            403: f"give it {key}",
            404: "name a model that it serves: finllm nodes add … --model NAME",
            429: "ask again later, or let fewer runs go on side by side (--jobs)",
        },
    )


async def _model(http: HttpClient, node: Joined) -> tuple[str, int]:
    """The model to ask, the node's or the first that is served, and its context where the server tells, else 0."""
    data = await http.json("GET", "/v1/models")
    with http.understood("/v1/models"):
        served = wire.served_models(data)
    wanted = node.model or next(iter(served), None)
    if wanted is None or wanted not in served:
        names = ", ".join(map(repr, served)) or "nothing"
        raise BackendError(f"{http.url} does not serve {node.model!r}: it serves {names}",
                           fix="name one of them with --model")  # fmt: skip
    return wanted, served[wanted]


@dataclass(frozen=True)
class _Found:
    logprobs: bool
    schema: bool
    usage: bool


async def _found(http: HttpClient, model: str) -> _Found:
    """What a server can do, by its answer to a typed question; what it refuses to be asked for is left out."""
    form = sheet('{"oil":"', "oil", ("up", "down"))
    refused: Refused | None = None
    for logprobs, schema in _ABILITIES:
        chat = Chat(http, model, keeps_schema=schema)
        try:
            reply = await chat.ask(chat.messages(_PROBE, form), form, tokens=2 * SPARE, logprobs=logprobs)
        except Refused as error:
            if error.status not in _CANNOT:
                raise
            refused = refused or error
            continue
        return _Found(reply.tokens is not None, schema and _keeps(reply, form), reply.usage is not None)
    assert refused is not None
    raise refused


def _keeps(reply: wire.Reply, form: Sheet) -> bool:
    try:
        form.read(reply.text)
    except ValueError:
        return False
    return True
