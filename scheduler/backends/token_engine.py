"""Filling a template over an engine that takes token ids and gives log-probabilities: one round, one request.

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
from finllm.scheduler.decoding.filling import Ask, Round, walk
from finllm.scheduler.decoding.scoring import Tokens, beginnings, candidates, value_scores
from finllm.scheduler.decoding.template import Write
from finllm.scheduler.money.meter import Used
from finllm.scheduler.placement.task import Prompt

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
    def computed(self) -> int | None:
        """Tokens that the first round computed, those of its branches too; None where the engine does not tell."""
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
    reply: Sequence[Sequence[float]] | str | None = None
    while True:
        try:
            question = next(walking) if reply is None else walking.send(reply)
        except StopIteration as end:
            filled = end.value
            break
        position.advance(await engine.tokens(question.text))
        if isinstance(question, Round):
            reply = await _scores(engine, position, question.asks)
        else:
            position.tell()
            written = await engine.write(position.tokens, _fitting(question.write, position), request.seed)
            position.advance(await engine.tokens(written.text))
            reply = written.text
    output = position.used - prompt_tokens
    seconds = time.monotonic() - started
    computed = prompt_tokens if engine.computed is None else engine.computed
    cached = min(max(prompt_tokens - computed, 0), prompt_tokens)
    return Generation(filled.text, filled.choices, prompt_tokens, output, seconds, cached)


class _Position:
    """The text so far, as tokens, within the context and the request's limit."""

    def __init__(self, request: Request, context: int) -> None:
        self.tokens: list[int] = []
        self._request = request
        self._context = context
        self._branched = 0
        self._started = time.monotonic()

    @property
    def used(self) -> int:
        """Tokens so far, with those that were taken back."""
        return len(self.tokens) + self._branched

    @property
    def room(self) -> int:
        return int(min(self._context, self._request.token_limit - self._branched)) - len(self.tokens)

    def tell(self) -> None:
        """Say that all of it goes to the engine now: what it has had counts as used, also where no answer comes."""
        if self._request.meter is not None:
            self._request.meter.read(Used(self.used, time.monotonic() - self._started))

    def advance(self, tokens: Sequence[int]) -> None:
        self._check(len(tokens), len(tokens))
        self.tokens += tokens

    def branch(self, branches: Sequence[Sequence[int]]) -> None:
        """Count tokens that are fed behind the text and taken back."""
        more = sum(map(len, branches))
        self._check(more, max(map(len, branches)))
        self._branched += more

    def _check(self, more: int, deepest: int) -> None:
        if len(self.tokens) + deepest >= self._context:
            raise BackendError(
                f"the prompt needs more than the {self._context} tokens of the context",
                fix="shorten the sources or raise the server's --max-model-len",
            )
        if self.used + more > self._request.token_limit:
            raise TokenLimitReached(self._request.token_limit, self.used)


def _fitting(step: Write, position: _Position) -> Write:
    """The step, no longer than what is left of the context and of the limit."""
    return Write(step.field, max(1, min(step.tokens, position.room - 1)), step.prose, step.temperature)


async def _scores(engine: TokenEngine, position: _Position, asks: Sequence[Ask]) -> list[list[float]]:
    """The scores of every ask's values, in one request; see `scoring`."""
    texts = [text for ask in asks for text in (ask.stem, *ask.values)]
    tokens = dict(zip(texts, await asyncio.gather(*(engine.tokens(text) for text in texts)), strict=True))
    values = [[tuple(tokens[value]) for value in ask.values] for ask in asks]
    probes = [(at, beginning) for at, of in enumerate(values) for beginning in beginnings(of)]
    branches = [[*tokens[asks[at].stem], *beginning] for at, beginning in probes]
    position.branch(branches)
    position.tell()
    wanted = sorted({token for at, beginning in probes for token in candidates(values[at], beginning)})
    read = await engine.score([[*position.tokens, *branch] for branch in branches], wanted)
    found: list[dict[Tokens, Mapping[int, float]]] = [{} for _ in asks]
    for (at, beginning), logprobs in zip(probes, read, strict=True):
        found[at][beginning] = logprobs
    return [value_scores(*pair) for pair in zip(values, found, strict=True)]
