"""An asynchronous client of one vLLM server: pooled, every wait bounded, retried only where nothing was begun.

Scores are asked by token id: `logprob_token_ids` gives exactly the candidates' log-probabilities, however improbable
they are, where the usual top 20 would leave some out.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from finllm.errors import BackendError
from finllm.scheduler.backends import BackendLost
from finllm.scheduler.backends import vllm_wire as wire
from finllm.scheduler.backends.pulse import Pulse, Standstill
from finllm.scheduler.backends.vllm_metrics import EngineLoad, parse_metrics

T = TypeVar("T")

MOST_CANDIDATES = 128
"""Token ids that vLLM scores in one request, at most."""
OK, _BUSY = 200, frozenset({429, 503})


@dataclass(frozen=True)
class Patience:
    """Longest waits, s. `connect`; `reply`, of everything but a model's work; `call`, of a whole request.

    `stall`: how long the engine may stand still with a call under way; `first` the same until it has answered once,
    since a fresh server compiles kernels then. `look`: between two looks at its counters. `tries`: of a request that
    was not begun, `backoff` s doubling between them.
    """

    connect: float = 2.0
    reply: float = 10.0
    call: float = 600.0
    stall: float = 4.0
    first: float = 120.0
    look: float = 0.4
    tries: int = 4
    backoff: float = 0.1


class VllmClient:
    """Talks to the server at `url`. Use it from one event loop, and close it there.

    Errors of every method: BackendError for a server that is away, hung, busy for too long, or refuses the request.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        patience: Patience | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.patience = patience or Patience()
        self._jitter = jitter or random.Random()
        self._proven = False
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(self.patience.reply, connect=self.patience.connect),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            transport=transport,
            trust_env=False,
        )
        self._pulse = Pulse(self._progress, self._stall_limit, every=self.patience.look)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def models(self) -> tuple[wire.Served, ...]:
        data = await self._json("GET", "/v1/models")
        with self._understood("/v1/models"):
            return wire.served(data)

    async def version(self) -> str:
        data = await self._json("GET", "/version")
        with self._understood("/version"):
            return str(data["version"])

    async def load(self) -> EngineLoad:
        """The server's queue, KV use and counters."""
        text = (await self._fetch("GET", "/metrics")).decode("utf-8", "replace")
        with self._understood("/metrics"):
            return parse_metrics(text)

    async def tokenize(self, model: str, text: str) -> list[int]:
        """Tokens of `text` alone; a control token's own spelling in it becomes that control token."""
        return await self._tokens({"model": model, "prompt": text, "add_special_tokens": False})

    async def tokenize_chat(self, model: str, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokens of the chat as the server itself renders it, up to where the assistant begins."""
        return await self._tokens({"model": model, "messages": list(messages)})

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        data = await self._json("POST", "/detokenize", {"model": model, "tokens": list(tokens)})
        with self._understood("/detokenize"):
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
        work = self._json("POST", "/v1/completions", _ranked(body, priority), self.patience.call)
        data = await self._watched(work)
        with self._understood("/v1/completions"):
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
        async with self._answered("POST", path, _ranked(body, priority), *limits) as response:
            lines = response.aiter_lines()
            while (line := await self._watched(_next(lines))) is not None:
                with self._understood(path):
                    piece = wire.chunk(line)
                if piece is not None:
                    yield piece

    async def load_adapter(self, name: str, path: str) -> None:
        """Serve the LoRA adapter in the server's folder `path` as `name`; the server must allow it."""
        await self._fetch("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path}, self.patience.call)

    async def unload_adapter(self, name: str) -> None:
        await self._fetch("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    async def _tokens(self, body: Mapping[str, Any]) -> list[int]:
        data = await self._json("POST", "/tokenize", body)
        with self._understood("/tokenize"):
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
        return self.patience.stall if self._proven else self.patience.first

    async def _progress(self) -> tuple[int, int, int]:
        return parse_metrics((await self._http.get("/metrics")).text).progress

    async def _json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, within: float | None = None
    ) -> Any:
        content = await self._fetch(method, path, body, within)
        with self._understood(path):
            return json.loads(content)

    async def _fetch(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, within: float | None = None
    ) -> bytes:
        within = within or self.patience.reply
        async with self._answered(method, path, body, within, within) as response:
            return await response.aread()

    @asynccontextmanager
    async def _answered(
        self, method: str, path: str, body: Mapping[str, Any] | None, within: float, head: float
    ) -> AsyncGenerator[httpx.Response, None]:
        """A response that says 200, its body still to be read: its head within `head` s, all of it within `within` s.

        Sent again only where the server has not begun: no connection, or 429 or 503 in place of an answer.
        """
        try:
            async with asyncio.timeout(within):
                response = await self._begun(method, path, body, within, head)
                try:
                    yield response
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise BackendError(
                f"{self.url}{path} gave no whole answer in time ({head:.0f} s to begin, {within:.0f} s in all)",
                fix="check it with 'finllm doctor'",
            ) from error
        except httpx.HTTPError as error:
            self._proven = False
            raise BackendLost(
                f"the connection to {self.url} broke: {type(error).__name__} {error}".rstrip(),
                fix="see whether the server still runs, and ask again",
            ) from error

    async def _begun(
        self, method: str, path: str, body: Mapping[str, Any] | None, within: float, head: float
    ) -> httpx.Response:
        timeout = httpx.Timeout(within, connect=self.patience.connect)
        for attempt in range(1, self.patience.tries + 1):
            last = attempt == self.patience.tries
            request = self._http.build_request(method, path, json=body, timeout=timeout)
            try:
                async with asyncio.timeout(head):
                    response = await self._http.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                self._proven = False
                if last:
                    raise self._away(error) from error
            else:
                if response.status_code == OK:
                    return response
                try:
                    if last or response.status_code not in _BUSY:
                        raise wire.refusal(self.url, response.status_code, await response.aread())
                finally:
                    await response.aclose()
            # Between none and the whole of a doubling time, so that clients refused together come back apart.
            await asyncio.sleep(self._jitter.uniform(0.0, self.patience.backoff * 2**attempt))
        raise AssertionError("the last try returns or raises")

    def _away(self, error: Exception) -> BackendLost:
        return BackendLost(
            f"no vLLM server answers at {self.url}: {type(error).__name__} {error}".rstrip(),
            fix="start it ('vllm serve MODEL'), or correct FINLLM_VLLM_URLS",
        )

    def _understood(self, path: str) -> wire.Understood:
        return wire.Understood(f"{self.url}{path}")


async def _next(lines: AsyncIterator[str]) -> str | None:
    return await anext(lines, None)


def _ranked(body: dict[str, Any], priority: int) -> dict[str, Any]:
    return {**body, "priority": priority} if priority else body
