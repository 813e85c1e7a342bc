"""What the tests ask a real vLLM server, and how they wait for its load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from finllm.agents.sanity_checker import SourceCheck
from finllm.scheduler.backends import Request
from finllm.scheduler.backends.vllm import VllmBackend
from finllm.scheduler.backends.vllm_client import VllmClient
from finllm.scheduler.backends.vllm_metrics import EngineLoad
from finllm.scheduler.decoding.template import Write, compile_template
from finllm.scheduler.placement.task import Prompt
from tests.scheduler.vllm_server import KEY, Server

TEMPLATE = compile_template(SourceCheck, {"because": "AB"}, count=1)
REQUEST = Request(Prompt("You are a risk analyst.", "A: Hormuz is closed.\nB: Oil rose."), TEMPLATE, None, 0)
LONG = (Write("story", 1200, None),)
SEEN_WITHIN = 30.0
"""Bounds the wait until the server shows a load; no requirement: a busy machine takes seconds to begin."""


def again(**changes: Any) -> Request:
    return replace(REQUEST, **changes)


def client_of(server: Server) -> VllmClient:
    return VllmClient(server.url, api_key=KEY)


async def loaded(backend: VllmBackend, wanted: Callable[[EngineLoad], bool]) -> EngineLoad:
    """The server's load as soon as it is as wanted."""
    async with asyncio.timeout(SEEN_WITHIN):
        while not wanted(load := await backend.load()):
            await asyncio.sleep(0.05)
    return load
