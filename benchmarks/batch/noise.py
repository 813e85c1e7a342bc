"""How far sharing a batch moves a choice: recorded calls asked alone and in a crowd, apart from the sides compared."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from finllm.errors import BackendError
from finllm.scheduler.backends import Backend, Request
from finllm.scheduler.backends.llama_cpp import llama_backends
from finllm.scheduler.decoding.filling import Choices
from finllm.scheduler.decoding.template import template_from
from finllm.scheduler.engine.process import EngineProcess
from finllm.scheduler.placement.task import Prompt
from finllm.settings import Settings

TRIES = 5
LEAST = 1e-12
"""Probability under which a value counts as this probable: leads stay finite."""


@dataclass(frozen=True)
class Noise:
    """Over `calls` with `fields`: the largest change, in nat, of the best value's lead over the second."""

    calls: int
    fields: int
    widest: float


def batch_noise(settings: Settings, asked: Sequence[Mapping[str, Any]], count: int) -> Noise:
    """Ask up to `count` of the recorded requests, spread evenly over them, in two ways, and compare the leads.

    Alone: one at a time, in an engine with one slot, which gives the same bits each time. In a crowd: all at once and
    shuffled, in an engine with `settings.slots`. Neither is how a run asks, with `--jobs 1` or more.
    """
    sample = [asked[at * len(asked) // count] for at in range(count)] if len(asked) > count else list(asked)
    alone = _answers(settings.model_copy(update={"slots": 1}), sample)
    order = random.Random(5).sample(range(len(sample)), len(sample))
    shuffled = _answers(settings, [sample[at] for at in order])
    crowd = dict(zip(order, shuffled, strict=True))
    changes = [
        lead_change(found, crowd[at][field])
        for at, one in enumerate(alone)
        for field, found in one.items()
        if len(found) > 1
    ]
    return Noise(len(sample), len(changes), max(changes, default=0.0))


def lead_change(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """By how many nat the lead of `one`'s best value over its second differs in `other`."""
    first, second = sorted(one, key=lambda value: -one[value])[:2]
    return abs(lead(one, first, second) - lead(other, first, second))


def lead(found: Mapping[str, float], value: str, rival: str) -> float:
    """By how many nat a value's score is ahead of another's."""
    return math.log(max(found[value], LEAST)) - math.log(max(found[rival], LEAST))


def _answers(settings: Settings, asked: Sequence[Mapping[str, Any]]) -> list[Choices]:
    with closing(EngineProcess()) as process:
        backends = {one.offer.precision: one for one in llama_backends(settings, process)}
        return asyncio.run(_ask(backends, asked, one_by_one=settings.slots == 1))


async def _ask(
    backends: Mapping[str, Backend], asked: Sequence[Mapping[str, Any]], *, one_by_one: bool
) -> list[Choices]:
    room = asyncio.Semaphore(1 if one_by_one else len(asked))

    async def one(request: Mapping[str, Any]) -> Choices:
        async with room:
            template = template_from(request["template"])
            call = Request(Prompt(**request["prompt"]), template, request["priors"], request["seed"])
            return await _answer(backends[request["precision"]], call)

    return list(await asyncio.gather(*map(one, asked)))


async def _answer(backend: Backend, call: Request) -> Choices:
    """The answer; asked again where a busy machine let the engine's process fall silent. Errors: BackendError."""
    for _again in range(TRIES - 1):
        with contextlib.suppress(BackendError):
            return (await backend.generate(call)).choices
    return (await backend.generate(call)).choices
