"""The chat prompt of a served model as token ids, with the messages as data: no text becomes a control token.

vLLM's `/tokenize` turns a control token's own spelling into that token, wherever it stands. Text is therefore cut
inside every spelling that the server takes for one token, and its parts are tokenised apart.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

from finllm.errors import BackendError
from finllm.scheduler.backends.http_client import Refused
from finllm.scheduler.decoding.chat import Piece, chat_layouts, split_at_marks
from finllm.scheduler.placement.task import Prompt

MARKUP = re.compile(r"(?=(<[^<>\n]{1,64}>|\[[^\[\]\n]{1,32}\]|>>[A-Z_]{1,32}<<))")
"""How control tokens are spelt: `<|im_start|>`, `</s>`, `<｜end▁of▁sentence｜>`, `[INST]`, `>>ABSTRACT<<`."""
KEPT, SHORT = 4096, 256
"""Texts whose tokens are remembered, and their most characters: forced text and values come again with every call."""

Tokenize = Callable[[str], Awaitable[list[int]]]
TokenizeChat = Callable[[Sequence[dict[str, str]]], Awaitable[list[int]]]
Detokenize = Callable[[Sequence[int]], Awaitable[str]]


class PromptTokenizer:
    """Tokenises through a server's three calls; `markup` finds what may be spelt like a control token.

    Errors: BackendError, also for a model without a usable chat template.
    """

    def __init__(
        self,
        tokenize: Tokenize,
        tokenize_chat: TokenizeChat,
        detokenize: Detokenize,
        *,
        markup: re.Pattern[str] = MARKUP,
    ) -> None:
        self._markup = markup
        self._tokenize = tokenize
        self._tokenize_chat = tokenize_chat
        self._detokenize = detokenize
        self._rendered: list[str] | None = None
        self._control: set[int] = set()
        self._known: OrderedDict[tuple[str, bool], list[int]] = OrderedDict()

    async def chat(self, prompt: Prompt) -> list[int]:
        """The chat prompt's tokens, up to where the assistant begins."""
        tokens: list[int] = []
        for piece in await self._pieces(prompt):
            tokens += await self._raw(piece.text) if piece.special else await self.data(piece.text)
        return tokens

    async def data(self, text: str) -> list[int]:
        """Tokens of a text in which no control token counts."""
        if not text:
            return []
        if (known := self._known.get((text, False))) is not None:
            self._known.move_to_end((text, False))
            return known
        tokens: list[int] = []
        for part in await self._parts(text):
            tokens += await self._tokenize(part)
        if not self._control.isdisjoint(tokens):
            raise BackendError("a text cannot be kept apart from control tokens", fix="serve another model")
        return self._keep((text, False), tokens)

    async def _parts(self, text: str) -> list[str]:
        """The text, cut behind the first character of every spelling of a control token."""
        cuts: list[int] = []
        for match in self._markup.finditer(text):
            tokens = await self._raw(match[1])
            if len(tokens) == 1:
                self._control.update(tokens)
                cuts.append(match.start() + 1)
        return [text[start:end] for start, end in pairwise([0, *cuts, len(text)]) if end > start]

    async def _raw(self, text: str) -> list[int]:
        known = self._known.get((text, True))
        return known if known is not None else self._keep((text, True), await self._tokenize(text))

    def _keep(self, key: tuple[str, bool], tokens: list[int]) -> list[int]:
        if len(key[0]) <= SHORT:
            self._known[key] = tokens
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return tokens

    async def _pieces(self, prompt: Prompt) -> list[Piece]:
        if self._rendered is None:
            self._rendered = [await self._render(layout) for layout in chat_layouts()]
        for rendered in self._rendered:
            if (pieces := split_at_marks(rendered, prompt)) is not None:
                return pieces
        raise BackendError("the served model's chat template cannot be used", fix="serve a chat model")

    async def _render(self, layout: list[dict[str, str]]) -> str:
        """The chat as the server renders it; empty where its template refuses these messages."""
        try:
            return await self._detokenize(await self._tokenize_chat(layout))
        except Refused as error:
            if error.status in (401, 403, 404):
                raise
            return ""
