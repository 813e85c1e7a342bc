"""What a real vLLM server refuses, and what is told of one that hangs, dies or is let go."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from finllm.agents.sanity_checker import SourceCheck
from finllm.errors import BackendError
from finllm.events import EventBus
from finllm.scheduler.backends import Generation, TokenLimitReached
from finllm.scheduler.backends.kind import Opening
from finllm.scheduler.backends.registry import open_backends
from finllm.scheduler.backends.vllm import VllmBackend, VllmServer, connect
from finllm.scheduler.backends.vllm_client import Patience
from finllm.scheduler.placement.task import Prompt
from finllm.settings import Settings
from tests.conftest import bounded
from tests.scheduler.backends.vllm.asking import LONG, again, loaded
from tests.scheduler.vllm_server import ADAPTER, KEY, MISSING, MODEL, Server

pytestmark = [pytest.mark.skipif(MISSING is not None, reason=MISSING or ""), pytest.mark.vllm]

FOUND_WITHIN = 5.0
"""Seconds until a server that hangs or died is told of."""


def test_the_token_limit_is_exact(backend: VllmBackend) -> None:
    needed = bounded(backend.generate(again())).tokens
    assert bounded(backend.generate(again(token_limit=needed))).tokens == needed
    with pytest.raises(TokenLimitReached):
        bounded(backend.generate(again(token_limit=needed - 1)))


def test_a_prompt_too_long_for_the_context_says_what_to_do(backend: VllmBackend) -> None:
    with pytest.raises(BackendError, match="2048 tokens of the context; shorten the sources"):
        bounded(backend.generate(again(prompt=Prompt("s", "tanker " * 2100))))


def test_a_model_that_is_not_served_is_named_beside_those_that_are(opened: Callable[..., VllmBackend]) -> None:
    with pytest.raises(BackendError, match=f"does not serve 'nothing': it serves '{MODEL}', '{ADAPTER}'"):
        opened("nothing")


def test_a_wrong_key_is_refused_with_the_setting_that_mends_it(server: Server) -> None:
    with pytest.raises(BackendError, match=r"401.*FINLLM_VLLM_API_KEY"):
        connect(server.url, api_key="wrong")


def test_a_desk_takes_the_servers_that_answer_and_notes_the_others(server: Server) -> None:
    settings = Settings.model_validate({"vllm_urls": [server.url, "http://127.0.0.1:9"], "vllm_api_key": KEY})
    noted: list[Any] = []
    with contextlib.ExitStack() as closing:
        backends = open_backends(Opening(settings, EventBus(noted.append), closing), [VllmServer()])
        assert [(each.offer.tier, each.offer.where) for each in backends] == [("deep", "remote")]
    assert len(noted) == 1
    assert "without the deep backend at http://127.0.0.1:9" in noted[0].message


@pytest.mark.parametrize("when", ["while it writes", "before the call"])
def test_a_hung_engine_is_found_within_five_seconds_though_its_health_page_answers(
    when: str, backend: VllmBackend, server: Server
) -> None:
    async def hang() -> tuple[float, BaseException | Generation]:
        if when == "before the call":
            server.signal_engine(signal.SIGSTOP)
            stopped = time.monotonic()
            call = asyncio.create_task(backend.generate(again()))
        else:
            call = asyncio.create_task(backend.generate(again(template=LONG)))
            await loaded(backend, lambda load: load.running == 1)
            server.signal_engine(signal.SIGSTOP)
            stopped = time.monotonic()
        await asyncio.sleep(1)
        assert server.is_up()
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        return time.monotonic() - stopped, outcome

    try:
        seconds, outcome = bounded(hang())
    finally:
        server.signal_engine(signal.SIGCONT)
    assert isinstance(outcome, BackendError)
    assert "hangs" in outcome.message
    assert "restart the server" in outcome.fix
    assert seconds < FOUND_WITHIN
    bounded(backend.generate(again()))


def test_a_server_killed_mid_request_is_an_error_and_works_again_once_restarted(
    backend: VllmBackend, server: Server
) -> None:
    async def killed() -> tuple[float, list[Any]]:
        calls = [asyncio.create_task(backend.generate(again(template=LONG))) for _ in range(2)]
        calls.append(asyncio.create_task(backend.generate(again())))
        await loaded(backend, lambda load: load.running > 0)
        server.kill()
        started = time.monotonic()
        return time.monotonic() - started, await asyncio.gather(*calls, return_exceptions=True)

    seconds, outcomes = bounded(killed())
    assert seconds < FOUND_WITHIN
    assert all(isinstance(outcome, BackendError) for outcome in outcomes[:2])
    assert isinstance(outcomes[2], BackendError | Generation)
    with pytest.raises(BackendError, match=r"no vLLM server answers at .*'vllm serve"):
        bounded(backend.generate(again(prompt=Prompt("s", "not seen before"))))
    server.start()
    SourceCheck.model_validate_json(bounded(backend.generate(again())).text)


def test_closing_fails_the_calls_under_way(server: Server) -> None:
    made = connect(server.url, model=MODEL, api_key=KEY, patience=Patience())

    async def close() -> list[Any]:
        call = asyncio.create_task(made.generate(again(template=LONG)))
        await loaded(made, lambda load: load.running == 1)
        await asyncio.to_thread(made.close)
        return list(await asyncio.gather(call, return_exceptions=True))

    (outcome,) = bounded(close())
    assert isinstance(outcome, BackendError)
    assert "closed" in outcome.message
    made.close()
    with pytest.raises(BackendError, match="closed"):
        bounded(made.generate(again()))
