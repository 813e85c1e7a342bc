"""An asynchronous client of one vLLM server: pooled, every wait bounded, retried only where nothing was begun.

Scores are asked by token id: `logprob_token_ids` gives exactly the candidates' log-probabilities, however improbable
they are, where the usual top 20 would leave some out.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import httpx
from pydantic import SecretStr

from finllm.scheduler.backends import BackendLost
from finllm.scheduler.backends import vllm_wire as wire
from finllm.scheduler.backends.http_client import HttpClient, Patience, Wording
from finllm.scheduler.backends.pulse import Pulse, Standstill
from finllm.scheduler.backends.vllm_metrics import EngineLoad, parse_metrics

T = TypeVar("T")

MOST_CANDIDATES = 128
"""Token ids that vLLM scores in one request, at most."""

WORDING = Wording(
    what="vLLM",
    absent="start it ('vllm serve MODEL'), or correct its URL in FINLLM_VLLM_URLS or by 'finllm nodes add'",
    strange="point FINLLM_VLLM_URLS at a vLLM server, version 0.32 or later",
    refused={
        400: "shorten the sources, or raise the server's --max-model-len",
        401: "set FINLLM_VLLM_API_KEY to the key that the server was started with",
        404: "set FINLLM_VLLM_MODEL to a model that it serves",
    },
)


class VllmClient:
    """Talks to the server at `url`. Use it from one event loop, and close it there.

    Errors of every method: BackendError for a server that is away, hung, busy for too long, or refuses the request.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | SecretStr | None = None,
        patience: Patience | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        self._http = HttpClient(url, WORDING, api_key=api_key, patience=patience, transport=transport, jitter=jitter,
                                lost=self._unproven, waits=self._waits)  # fmt: skip
        self.url, self.patience = self._http.url, self._http.patience
        self._proven = False
        self._asked_wait, self._asked_until = 0.0, 0.0
        self._pulse = Pulse(self._progress, self._stall_limit, every=self.patience.look)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def models(self) -> tuple[wire.Served, ...]:
        data = await self._http.json("GET", "/v1/models")
        with self._http.understood("/v1/models"):
            return wire.served(data)

    async def version(self) -> str:
        data = await self._http.json("GET", "/version")
        with self._http.understood("/version"):
            return str(data["version"])

    async def load(self) -> EngineLoad:
        """The server's queue, KV use and counters."""
        text = (await self._http.fetch("GET", "/metrics")).decode("utf-8", "replace")
        with self._http.understood("/metrics"):
            return parse_metrics(text)

    async def tokenize(self, model: str, text: str) -> list[int]:
        """Tokens of `text` alone; a control token's own spelling in it becomes that control token."""
        return await self._tokens({"model": model, "prompt": text, "add_special_tokens": False})

    async def tokenize_chat(self, model: str, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokens of the chat as the server itself renders it, up to where the assistant begins."""
        return await self._tokens({"model": model, "messages": list(messages)})

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        data = await self._http.json("POST", "/detokenize", {"model": model, "tokens": list(tokens)})
        with self._http.understood("/detokenize"):
            return str(data["prompt"])

    async def score(
        self, model: str, prompts: Sequence[Sequence[int]], candidates: Sequence[int], *, priority: int = 0
    ) -> wire.Scores:
        """Log-probability of each candidate token behind each prompt, exact and unmasked, in one request.

        At most `MOST_CANDIDATES` candidates.
        """
        wanted = sorted(set(candidates))
        body: dict[str, Any] = {
            "model": model,
            "prompt": [list(prompt) for prompt in prompts],
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": 0,
            "logprob_token_ids": wanted,
            "return_tokens_as_token_ids": True,
        }
        work = self._http.json("POST", "/v1/completions", _ranked(body, priority), self.patience.call)
        data = await self._watched(work)
        with self._http.understood("/v1/completions"):
            return wire.scores(data, len(prompts), wanted)

    async def stream(
        self,
        model: str,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        structure: Mapping[str, Any] | None = None,
        stop: Sequence[str] = (),
        priority: int = 0,
    ) -> AsyncGenerator[wire.Chunk, None]:
        """Stream an answer; closing the generator ends it on the server too (`contextlib.aclosing`).

        `structure` is vLLM's `structured_outputs`, such as `{"json": schema}` or `{"regex": …}`.
        """
        body: dict[str, Any] = {
            "model": model,
            "prompt": list(prompt),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "stop": list(stop),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if structure is not None:
            body["structured_outputs"] = dict(structure)
        path, limits = "/v1/completions", (self.patience.call, self.patience.reply)
        async with self._http.answered("POST", path, _ranked(body, priority), *limits) as response:
            lines = response.aiter_lines()
            while (line := await self._watched(_next(lines))) is not None:
                with self._http.understood(path):
                    piece = wire.chunk(line)
                if piece is not None:
                    yield piece

    async def _tokens(self, body: Mapping[str, Any]) -> list[int]:
        data = await self._http.json("POST", "/tokenize", body)
        with self._http.understood("/tokenize"):
            return [int(token) for token in data["tokens"]]

    async def _watched(self, work: Coroutine[Any, Any, T]) -> T:
        """Await the model's work, as long as its engine moves."""
        try:
            result = await self._pulse.guard(work)
        except Standstill as stop:
            raise BackendLost(
                f"the engine at {self.url} hangs: no token and no step for {stop.seconds:.1f} s",
                fix="restart the server; its web part may still answer /health",
            ) from stop
        self._proven = True
        return result

    def _stall_limit(self) -> float:
        limit = self.patience.stall if self._proven else self.patience.first
        return limit + (self._asked_wait if time.monotonic() < self._asked_until + limit else 0.0)

    async def _progress(self) -> tuple[int, int, int]:
        return parse_metrics(await self._http.page("/metrics")).progress

    def _unproven(self) -> None:
        self._proven = False

    def _waits(self, seconds: float) -> None:
        """The server asked to be left alone for so long, in which it stands still with a call under way."""
        self._asked_wait, self._asked_until = seconds, time.monotonic() + seconds


async def _next(lines: AsyncIterator[str]) -> str | None:
    return await anext(lines, None)


def _ranked(body: dict[str, Any], priority: int) -> dict[str, Any]:
    return {**body, "priority": priority} if priority else body
