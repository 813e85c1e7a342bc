"""One real typed question to a backend, and a look at the answer: a hung engine fails it, and so does nonsense."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from finllm.errors import BackendError
from finllm.scheduler.backends import Backend, Generation, Request
from finllm.scheduler.decoding.template import compile_template
from finllm.scheduler.placement.task import Prompt

PATIENCE = 60.0
"""Longest wait for the answer, s: a fresh server compiles kernels or loads its weights first."""
_PROMPT = Prompt(
    "You read news about markets.",
    "A strait through which a fifth of the world's oil passes is closed. Oil rose by a third. Which way did oil go?",
)
_FIX = "look at the server's log and weights; 'finllm doctor' asks again"


class OilMove(BaseModel):
    """What the question asks for."""

    model_config = ConfigDict(extra="forbid")

    oil: Literal["up", "down", "flat"]


@dataclass(frozen=True)
class Examined:
    """An answer that is in order: what it said, how sure it was (0 to 1), and after how many s."""

    said: str
    probability: float
    seconds: float

    @property
    def words(self) -> str:
        return f"a typed question answered in {self.seconds:.2f} s: oil {self.said}, {self.probability:.0%}"


async def examined(backend: Backend, within: float = PATIENCE) -> Examined:
    """Ask, and check that the answer keeps to its schema and its probabilities are finite and sum to 1.

    Errors: BackendError saying what was wrong with the answer, or that none came.
    """
    request = Request(_PROMPT, compile_template(OilMove, {}), None, 0, within=within)
    name, started = backend.offer.name, time.monotonic()
    try:
        async with asyncio.timeout(within):
            done = await backend.generate(request)
    except TimeoutError:
        raise BackendError(f"{name!r} gave no answer within {within:.0f} s", fix=_FIX) from None
    return Examined(*_checked(name, done), time.monotonic() - started)


def _checked(name: str, done: Generation) -> tuple[str, float]:
    try:
        said = OilMove.model_validate_json(done.text).oil
    except ValidationError as error:
        raise BackendError(f"{name!r} left the schema: {error.errors()[0]['msg']}", fix=_FIX) from error
    found = done.choices.get("oil", {})
    if set(found) != {"up", "down", "flat"}:
        raise BackendError(f"{name!r} gave probabilities of {sorted(found)}, not of each value", fix=_FIX)
    if not all(math.isfinite(p) and 0.0 <= p <= 1.0 for p in found.values()):
        raise BackendError(f"{name!r} gave probabilities that are none: {found}", fix=_FIX)
    if abs(sum(found.values()) - 1.0) > 1e-6:
        raise BackendError(f"{name!r} gave probabilities that sum to {sum(found.values()):.6g}", fix=_FIX)
    if done.tokens <= 0:
        raise BackendError(f"{name!r} says that it took no token", fix=_FIX)
    return said, found[said]
