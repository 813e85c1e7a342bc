"""A connection to one inference server: pooled, every wait bounded, sent again only where nothing was begun."""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import json
import math
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import httpx
from pydantic import SecretStr

from finllm.errors import BackendError
from finllm.scheduler.backends import BackendLost

OK, _BUSY = 200, frozenset({429, 503})
LARGEST = 64 << 20
"""Bytes of an answer that are read at most: what is longer is no answer to what is asked here."""


@dataclass(frozen=True)
class Patience:
    """Longest waits, s. `connect`; `reply`, of everything but a model's work; `call`, of a whole request.

    `stall`: how long the engine may stand still with a call under way; `first` the same until it has answered once,
    since a fresh server compiles kernels then. `look`: between two looks at its counters. `tries`: of a request that
    was not begun, `backoff` s doubling between them; `longest`: that a server may ask to be left alone (Retry-After).
    """

    connect: float = 2.0
    reply: float = 10.0
    call: float = 600.0
    stall: float = 4.0
    first: float = 120.0
    look: float = 0.4
    tries: int = 4
    backoff: float = 0.1
    longest: float = 30.0


@dataclass(frozen=True)
class Wording:
    """How errors speak of a server: what it is, what mends its absence, a wrong answer, or a refusal by its status."""

    what: str
    absent: str
    strange: str
    refused: Mapping[int, str] = field(default_factory=dict[int, str])


class Refused(BackendError):
    """The server answered with the error `status` of HTTP."""

    def __init__(self, status: int, message: str, *, fix: str) -> None:
        super().__init__(message, fix=fix)
        self.status = status


class Understood:
    """Turns what a malformed answer raises while it is read into a BackendError that names `where` it came from."""

    def __init__(self, where: str, wording: Wording) -> None:
        self._where = where
        self._wording = wording

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError | KeyError | TypeError | IndexError | AttributeError):
            raise BackendError(
                f"{self._where} did not answer as {self._wording.what} servers do: {type(error).__name__} {error}",
                fix=self._wording.strange,
            ) from error


class HttpClient:
    """Talks to the server at `url`. Use it from one event loop, and close it there. `lost` is called when it is gone,
    `waits` with the s that it asked to be left alone before a request is sent again.

    Errors of every method: BackendError for a server that is away, hung, busy for too long, or refuses the request.
    """

    def __init__(
        self,
        url: str,
        wording: Wording,
        *,
        api_key: str | SecretStr | None = None,
        patience: Patience | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        jitter: random.Random | None = None,
        lost: Callable[[], None] = lambda: None,
        waits: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.patience = patience or Patience()
        self._wording = wording
        self._key = api_key if isinstance(api_key, SecretStr) or api_key is None else SecretStr(api_key)
        self._jitter = jitter or random.Random()
        self._lost = lost
        self._waits = waits
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self._key.get_secret_value()}"} if self._key else {},
            timeout=httpx.Timeout(self.patience.reply, connect=self.patience.connect),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            transport=transport,
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def page(self, path: str) -> str:
        """A page as it is, asked for once. Errors: httpx.HTTPError."""
        return (await self._http.get(path)).text

    async def json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, within: float | None = None
    ) -> Any:
        """The answer as JSON, in which NaN and infinities are errors."""
        content = await self.fetch(method, path, body, within)
        with self.understood(path):
            return json.loads(content, parse_constant=_no_number)

    async def fetch(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, within: float | None = None
    ) -> bytes:
        within = within or self.patience.reply
        content = bytearray()
        async with self.answered(method, path, body, within, within) as response:
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > LARGEST:
                    raise BackendError(f"{self.url}{path} answers with more than {LARGEST >> 20} MiB",
                                       fix=self._wording.strange)  # fmt: skip
        return bytes(content)

    @asynccontextmanager
    async def answered(
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
            self._lost()
            raise BackendLost(
                f"the connection to {self.url} broke: {type(error).__name__} {error}".rstrip(),
                fix="see whether the server still runs, and ask again",
            ) from error

    def understood(self, path: str) -> Understood:
        return Understood(f"{self.url}{path}", self._wording)

    async def _begun(
        self, method: str, path: str, body: Mapping[str, Any] | None, within: float, head: float
    ) -> httpx.Response:
        timeout = httpx.Timeout(within, connect=self.patience.connect)
        for attempt in range(1, self.patience.tries + 1):
            last, asked = attempt == self.patience.tries, 0.0
            request = self._http.build_request(method, path, json=body, timeout=timeout)
            try:
                async with asyncio.timeout(head):
                    response = await self._http.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                self._lost()
                if last:
                    raise self._away(error) from error
            else:
                if response.status_code == OK:
                    return response
                try:
                    asked = retry_after(response.headers.get("retry-after"), dt.datetime.now(dt.UTC)) or 0.0
                    if last or response.status_code not in _BUSY or asked > self.patience.longest:
                        raise self._refusal(response.status_code, await response.aread(), asked)
                finally:
                    await response.aclose()
            self._waits(asked)
            # Between none and the whole of a doubling time, so that clients refused together come back apart.
            await asyncio.sleep(asked + self._jitter.uniform(0.0, self.patience.backoff * 2**attempt))
        raise AssertionError("the last try returns or raises")

    def _away(self, error: Exception) -> BackendLost:
        return BackendLost(
            f"no {self._wording.what} server answers at {self.url}: {type(error).__name__} {error}".rstrip(),
            fix=self._wording.absent,
        )

    def _refusal(self, status: int, content: bytes, asked: float) -> Refused:
        """The error behind an answer that is not 200, in the server's words, but for the key should they hold it."""
        try:
            found: Any = json.loads(content)["error"]
            message = str(cast(dict[str, Any], found)["message"] if isinstance(found, dict) else found)
        except (ValueError, KeyError, TypeError):
            message = content.decode("utf-8", "replace")[:200].strip()
        if self._key is not None:
            message = message.replace(self._key.get_secret_value(), "**********")
        fix = self._wording.refused.get(status, "see the server's log")
        if asked:
            fix = f"ask again in {asked:.0f} s, as it says"
        return Refused(status, f"{self.url} refused with {status}: {message}", fix=fix)


def retry_after(value: str | None, now: dt.datetime) -> float | None:
    """Seconds that a Retry-After header asks for, in either of its forms; None for one that says nothing usable."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (when.replace(tzinfo=when.tzinfo or dt.UTC) - now).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} in place of a number")
