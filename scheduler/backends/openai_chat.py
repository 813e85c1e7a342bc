"""One request's way through a chat server: each choice asked as a sheet, an invalid answer once more."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finllm.errors import BackendError
from finllm.scheduler.backends import Generation, Request, TokenLimitReached
from finllm.scheduler.backends import openai_wire as wire
from finllm.scheduler.backends.http_client import HttpClient
from finllm.scheduler.backends.sheet import Sheet, number_of, sheet, together
from finllm.scheduler.decoding.filling import Ask, Filled, Round, walk
from finllm.scheduler.decoding.template import Write
from finllm.scheduler.money.meter import Used
from finllm.scheduler.placement.task import Prompt

PATH = "/v1/chat/completions"
ALTERNATIVES = 20
"""Alternatives at each token that are asked for: the most that the protocol allows."""
VOTING_TEMPERATURE = 1.0
"""At which answers are sampled that are counted: the model's own distribution."""
CHARS_PER_TOKEN = 4
"""Rough length of a token, where the server does not count them."""
_ANOTHER = "serve another model there, or by a server that keeps to a schema"
SPARE = 24
"""Tokens that an answer may have beyond one for every two characters of its sheet."""

Messages = list[dict[str, str]]
Extra = Callable[[str], str | None]


class Invalid(BackendError):
    """The server answered outside the schema, twice."""


@dataclass(frozen=True)
class Chat:
    """A model behind a server. `keeps_schema`: it holds answers to a schema that is sent; else the prompt tells it."""

    http: HttpClient
    model: str
    keeps_schema: bool = True
    counts_tokens: bool = True

    async def ask(
        self, messages: Messages, form: Sheet | None, *, tokens: int, temperature: float = 0.0, seed: int = 0,
        logprobs: bool = False,
    ) -> wire.Reply:  # fmt: skip
        """One answer. Errors: as HttpClient's."""
        body: dict[str, Any] = {"model": self.model, "messages": messages, "max_tokens": tokens,
                                "temperature": temperature, "seed": seed}  # fmt: skip
        if form is not None and self.keeps_schema:
            told = {"name": "answer", "strict": True, "schema": form.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": told}
        if logprobs:
            body |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
        data = await self.http.json("POST", PATH, body, self.http.patience.call)
        with self.http.understood(PATH):
            return wire.reply(data)

    def messages(self, prompt: Prompt, form: Sheet | None) -> Messages:
        """The prompt as the server gets it; retrieved text stays in the user's message."""
        told = "" if form is None or self.keeps_schema else f"\n\n{_by_schema(form)}"
        rows = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user + told}]
        return [row for row in rows if row["content"]]


@dataclass
class Asking:
    """A request under way. `votes`: answers that are counted at each choice; 0: log-probabilities are read there."""

    chat: Chat
    request: Request
    votes: int
    gate: asyncio.Semaphore
    counted: int = 0
    _started: float = field(default_factory=time.monotonic)
    _prompt: int = 0
    _output: int = 0
    _cached: int = 0
    _reserved: float = 0.0

    async def filled(self) -> Generation:
        """The template, filled. Errors: BackendError, TokenLimitReached."""
        done = await self._walked()
        return Generation(done.text, done.choices, self._prompt, self._output, self._seconds, self._cached,
                          votes=self.counted)  # fmt: skip

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started

    async def _walked(self) -> Filled:
        walking, before = walk(self.request.template, self.request.priors), ""
        answer: Sequence[Sequence[float]] | str | None = None
        while True:
            try:
                question = next(walking) if answer is None else walking.send(answer)
            except StopIteration as end:
                return end.value
            before += question.text
            if isinstance(question, Round):
                answer = await (self._voted if self.votes else self._scored)(before, question.asks)
            else:
                answer = await self._written(before, question.write)
                before += answer

    async def _scored(self, before: str, asks: Sequence[Ask]) -> list[list[float]]:
        """Scores read at each choice, every one asked on its own, as on the other tiers."""

        async def one(ask: Ask) -> list[float]:
            form = sheet(before + ask.stem, ask.field, ask.values)
            reply, told = await self._valid(form, logprobs=True)
            value = next(iter(told.values()))
            if reply.tokens is None:
                raise BackendError(f"{self.chat.http.url} gave no log-probabilities, as it did before",
                                   fix="see it with 'finllm doctor', and open the desk again")  # fmt: skip
            text = "".join(token.text for token in reply.tokens)
            with self.chat.http.understood(PATH):
                return wire.value_scores(reply.tokens, text.rindex(f'"{value}"') + 1, ask.values)

        return list(await asyncio.gather(*map(one, asks)))

    async def _voted(self, before: str, asks: Sequence[Ask]) -> list[list[float]]:
        """The logarithm of each value's share of sampled answers; -inf for one that none gave."""
        forms = [sheet(before + ask.stem, ask.field, ask.values, at) for at, ask in enumerate(asks)]
        counts: list[Counter[str]] = [Counter() for _ in asks]

        async def vote(form: Sheet, number: int) -> Mapping[str, str] | None:
            try:
                seed = self.request.seed * 1000 + number
                return (await self._valid(form, temperature=VOTING_TEMPERATURE, seed=seed))[1]
            except Invalid:
                return None

        for form in together(forms):
            votes = await asyncio.gather(*(vote(form, number) for number in range(self.votes)))
            valid = [one for one in votes if one is not None]
            if 2 * len(valid) <= self.votes:
                told = f"gave {self.votes - len(valid)} of {self.votes} answers outside the schema"
                raise Invalid(f"{self.chat.http.url} {told}", fix=_ANOTHER)
            self.counted = min(self.counted or self.votes, len(valid))
            for one in valid:
                for mark, value in one.items():
                    counts[number_of(mark)][value] += 1
        return [
            [math.log(of[value] / of.total()) if of[value] else -math.inf for value in ask.values]
            for ask, of in zip(asks, counts, strict=True)
        ]

    async def _written(self, before: str, step: Write) -> str:
        """Free text: within an object where it stands in one, and checked against its grammar."""
        prose, seed = step.prose, self.request.seed
        if prose is None:
            messages = self.chat.messages(self.request.prompt, None)
            return (await self._counted(messages, None, step.tokens, step.temperature, seed, False)).text

        def wrong(text: str) -> str | None:
            return None if prose.allows(text) else "it holds digits or signs that are not allowed; write words alone"

        form = sheet(before, step.field, ())
        _reply, told = await self._valid(form, temperature=step.temperature, seed=seed, spare=step.tokens, also=wrong)
        return next(iter(told.values()))

    async def _valid(
        self, form: Sheet, *, temperature: float = 0.0, seed: int = 0, logprobs: bool = False, spare: int = SPARE,
        also: Extra = lambda text: None,
    ) -> tuple[wire.Reply, dict[str, str]]:  # fmt: skip
        """A valid answer; an invalid one is told what is wrong with it, once. Errors: Invalid after that."""
        messages, problem = self.chat.messages(self.request.prompt, form), ""
        most = len(json.dumps(form.skeleton)) // 2 + max(map(len, sum(form.gaps.values(), ())), default=0) + spare
        for _attempt in range(2):
            reply = await self._counted(messages, form, most, temperature, seed, logprobs)
            try:
                told = form.read(reply.text)
                problem = next((said for text in told.values() if (said := also(text))), "")
                if not problem:
                    return reply, told
            except ValueError as error:
                problem = str(error)
            messages = [*messages, {"role": "assistant", "content": reply.text},
                        {"role": "user", "content": f"That is not valid: {problem}. {_by_schema(form)}"}]  # fmt: skip
        raise Invalid(f"{self.chat.http.url} answered outside the schema twice: {problem}",
                      fix=_ANOTHER)  # fmt: skip

    async def _counted(
        self, messages: Messages, form: Sheet | None, most: int, temperature: float, seed: int, logprobs: bool
    ) -> wire.Reply:
        """One answer, within what is left of the request's tokens, and charged to it."""
        length = sum(len(row["content"]) for row in messages)
        needed = length / CHARS_PER_TOKEN
        async with self.gate:
            used = self._prompt + self._output
            if used + self._reserved + needed > self.request.token_limit:
                raise TokenLimitReached(self.request.token_limit, used)
            self._reserved += needed
            try:
                tokens = max(int(min(most, self.request.token_limit - used - self._reserved)), 1)
                reply = await self.chat.ask(messages, form, tokens=tokens, temperature=temperature, seed=seed,
                                            logprobs=logprobs)  # fmt: skip
            finally:
                self._reserved -= needed
        if reply.usage is None and self.chat.counts_tokens:
            raise BackendError(f"{self.chat.http.url} did not say how many tokens it took, as it did before",
                               fix="see it with 'finllm doctor', and open the desk again")  # fmt: skip
        told = reply.usage
        self._prompt += math.ceil(needed) if told is None else told.prompt
        self._output += math.ceil(len(reply.text) / CHARS_PER_TOKEN) if told is None else told.output
        self._cached += 0 if told is None else told.cached
        if self.request.meter is not None:
            self.request.meter.read(Used(self._prompt + self._output, self._seconds))
        return reply


def _by_schema(form: Sheet) -> str:
    return f"Answer with one JSON object and nothing else, by this JSON Schema: {json.dumps(form.schema)}"
