"""Filling a template over an engine that takes token ids and gives log-probabilities: one question, one request.

The rule is `filling.walk`, as on the edge tier; here stand only the position in the text, and the scores.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from finllm.errors import BackendError
from finllm.scheduler.backends import Generation, Request, TokenLimitReached
from finllm.scheduler.filling import Ask, walk
from finllm.scheduler.task import Prompt
from finllm.scheduler.template import Write

END_OF_PROSE = '"'
"""What ends prose inside a judgement, beside the model's own end."""


@dataclass(frozen=True)
class Written:
    """What a model wrote, and the tokens that it took."""

    text: str
    tokens: int


class TokenEngine(Protocol):
    """An engine as one request's walk sees it. Tokens of text are those of data: no control token comes of it."""

    @property
    def cached(self) -> int:
        """Tokens that the first question did not compute, because the engine knew them."""
        ...

    async def chat(self, prompt: Prompt) -> list[int]: ...

    async def tokens(self, text: str) -> list[int]: ...

    async def score(self, prompts: Sequence[Sequence[int]], candidates: Sequence[int]) -> Sequence[Mapping[int, float]]:
        """Log-probability of each candidate token behind each prompt."""
        ...

    async def write(self, prompt: Sequence[int], step: Write, seed: int) -> Written: ...


async def answer(engine: TokenEngine, request: Request, context: int) -> Generation:
    """Fill the request's template. `context` is the engine's, in tokens; `engine` serves this request alone.

    `Generation.seconds` are those of the wait, also where the engine worked for others. Errors: BackendError, also for
    a prompt that does not fit; TokenLimitReached.
    """
    started = time.monotonic()
    position = _Position(request, context)
    position.advance(await engine.chat(request.prompt))
    prompt_tokens = len(position.tokens)
    walking = walk(request.template, request.priors)
    reply: Sequence[float] | str | None = None
    while True:
        try:
            question = next(walking) if reply is None else walking.send(reply)
        except StopIteration as end:
            filled = end.value
            break
        position.advance(await engine.tokens(question.text))
        if isinstance(question, Ask):
            reply = await _scores(engine, position.tokens, question.values)
        else:
            written = await engine.write(position.tokens, _fitting(question.write, position), request.seed)
            position.advance(await engine.tokens(written.text))
            reply = written.text
    output = len(position.tokens) - prompt_tokens
    seconds = time.monotonic() - started
    return Generation(filled.text, filled.choices, prompt_tokens, output, seconds, min(engine.cached, prompt_tokens))


class _Position:
    """The text so far, as tokens, within the context and the request's limit."""

    def __init__(self, request: Request, context: int) -> None:
        self.tokens: list[int] = []
        self._request = request
        self._context = context

    @property
    def room(self) -> int:
        return int(min(self._context, self._request.token_limit)) - len(self.tokens)

    def advance(self, tokens: Sequence[int]) -> None:
        if len(self.tokens) + len(tokens) >= self._context:
            raise BackendError(
                f"the prompt needs more than the {self._context} tokens of the context",
                fix="shorten the sources or raise the server's --max-model-len",
            )
        if len(self.tokens) + len(tokens) > self._request.token_limit:
            raise TokenLimitReached(self._request.token_limit, len(self.tokens))
        self.tokens += tokens


def _fitting(step: Write, position: _Position) -> Write:
    """The step, no longer than what is left of the context and of the limit."""
    return Write(step.field, max(1, min(step.tokens, position.room - 1)), step.prose, step.temperature)


async def _scores(engine: TokenEngine, position: Sequence[int], values: Sequence[str]) -> list[float]:
    """Scores by first token; where two values share it, by the whole value's log-probability, still in one request."""
    tokens = await asyncio.gather(*(engine.tokens(value) for value in values))
    firsts = {value[0] for value in tokens}
    if len(firsts) == len(values):
        (scores,) = await engine.score([position], sorted(firsts))
        return [scores[value[0]] for value in tokens]
    beginnings = sorted({tuple(value[:length]) for value in tokens for length in range(len(value))})
    candidates = sorted({token for value in tokens for token in value})
    found = await engine.score([[*position, *beginning] for beginning in beginnings], candidates)
    after = dict(zip(beginnings, found, strict=True))
    return [sum(after[tuple(value[:at])][value[at]] for at in range(len(value))) for value in tokens]
