"""Filling a template over a token engine: the same answers as over a scorer, within the call's limits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from finllm.agents.narrative import Asked
from finllm.errors import BackendError
from finllm.scheduler.backends import Generation, Request, TokenLimitReached
from finllm.scheduler.backends.token_engine import Written, answer
from finllm.scheduler.decoding.filling import fill
from finllm.scheduler.decoding.template import Choose, Force, Write, compile_template
from finllm.scheduler.placement.task import Prompt

TEMPLATE = compile_template(Asked, {"because": "ABC"})
REQUEST = Request(Prompt("system", "user"), TEMPLATE, None, 0)


def weight(text: str, token: int) -> float:
    """A made-up log-probability that depends on all that stands before."""
    return -((sum(map(ord, text)) * 31 + token * 17) % 97) / 7


class Letters:
    """An engine whose tokens are letters. `requests` counts what a server would be asked."""

    computed = len("system|user|") - 3

    def __init__(self) -> None:
        self.requests = 0

    async def chat(self, prompt: Prompt) -> list[int]:
        return await self.tokens(f"{prompt.system}|{prompt.user}|")

    async def tokens(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    async def score(self, prompts: Sequence[Sequence[int]], candidates: Sequence[int]) -> Sequence[Mapping[int, float]]:
        self.requests += 1
        texts = ["".join(map(chr, prompt)) for prompt in prompts]
        return [{token: weight(text, token) for token in candidates} for text in texts]

    async def write(self, prompt: Sequence[int], step: Write, seed: int) -> Written:
        del prompt, seed
        return Written("o" * step.tokens, step.tokens)


class LetterScorer:
    def __init__(self, prompt: str) -> None:
        self._prompt = prompt

    def score(self, text: str, field: str, values: Sequence[str]) -> list[float]:
        del field
        whole = self._prompt + text
        if len({value[0] for value in values}) == len(values):
            return [weight(whole, ord(value[0])) for value in values]
        return [sum(weight(whole + value[:at], ord(value[at])) for at in range(len(value))) for value in values]


def ask(request: Request, context: int = 4096) -> Generation:
    return asyncio.run(answer(Letters(), request, context))


def test_the_answers_are_those_of_a_scorer_at_the_same_place() -> None:
    done = ask(REQUEST)
    filled = fill(TEMPLATE, LetterScorer("system|user|"))
    assert done.text == filled.text
    for field, probabilities in filled.choices.items():
        assert done.choices[field] == pytest.approx(probabilities), field
    assert (done.prompt_tokens, done.cached_tokens) == (len("system|user|"), 3)


def test_a_round_of_questions_is_one_request() -> None:
    engine = Letters()
    asyncio.run(answer(engine, REQUEST, 4096))
    assert engine.requests == 2, "the second round asks for the sizes of what moves"


def test_each_question_in_place_is_one_request_even_where_whole_values_are_scored() -> None:
    engine = Letters()
    template = (Force("{"), Choose("a", ("upward", "upwind", "calm")), Choose("b", ("x", "y")), Force("}"))
    done = asyncio.run(answer(engine, replace(REQUEST, template=template), 4096))
    assert engine.requests == 2
    assert math.isclose(sum(done.choices["a"].values()), 1.0)


def test_the_token_limit_is_exact() -> None:
    needed = ask(REQUEST).tokens
    assert ask(replace(REQUEST, token_limit=needed)).tokens == needed
    for limit in (needed - 1, needed // 2, 3, 0):
        with pytest.raises(TokenLimitReached) as stop:
            ask(replace(REQUEST, token_limit=limit))
        assert stop.value.tokens <= limit


def test_a_text_beyond_the_context_is_an_error_with_its_mend() -> None:
    with pytest.raises(BackendError, match=r"20 tokens of the context; shorten the sources or raise"):
        ask(REQUEST, context=20)


def test_prose_takes_no_more_than_the_context_leaves() -> None:
    request = replace(REQUEST, template=(Write("story", 500, None),))
    assert ask(request, context=100).tokens < 100
