"""A model's tokens: text to tokens and back, the chat prompt as tokens, and which tokens end a text."""

from __future__ import annotations

import ctypes
from functools import cached_property
from typing import Any

from finllm.errors import BackendError
from finllm.scheduler.decoding.chat import chat_pieces
from finllm.scheduler.placement.task import Prompt

_LONGEST_PIECE = 512


class Vocabulary:
    """The tokeniser and chat template inside a GGUF file, through llama.cpp. Safe for any thread."""

    def __init__(self, llama: Any, model: Any) -> None:
        self._llama = llama
        self._vocabulary = llama.llama_model_get_vocab(model)
        self.size: int = llama.llama_vocab_n_tokens(self._vocabulary)
        template = llama.llama_model_chat_template(model, None)
        self._template: str | None = None if template is None else template.decode("utf-8", "replace")

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text; control tokens are recognised only where `special` says so."""
        data = text.encode()
        tokens = (self._llama.llama_token * (len(data) + 8))()
        count = self._llama.llama_tokenize(self._vocabulary, data, len(data), tokens, len(tokens), False, special)
        if count < 0:
            raise BackendError(f"llama.cpp cannot tokenise a text of {len(data)} bytes", fix="shorten the sources")
        return list(tokens[:count])

    def chat_tokens(self, prompt: Prompt) -> list[int]:
        """The chat prompt; only the template's own text may become control tokens, the messages never."""
        llama = self._llama
        begins = llama.llama_vocab_get_add_bos(self._vocabulary)
        tokens = [llama.llama_vocab_bos(self._vocabulary)] if begins else []
        for piece in chat_pieces(self._template, prompt):
            tokens += self.tokenize(piece.text, special=piece.special)
        return tokens

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of every token; control tokens have none."""
        buffer = ctypes.create_string_buffer(_LONGEST_PIECE)
        found: list[bytes] = []
        for token in range(self.size):
            count = self._llama.llama_token_to_piece(self._vocabulary, token, buffer, _LONGEST_PIECE, 0, False)
            found.append(buffer.raw[:count] if count > 0 else b"")
        return found

    def text(self, tokens: list[int]) -> str:
        """The text of tokens; bytes that are no UTF-8, such as a character cut short, are left out."""
        return b"".join(self.pieces[token] for token in tokens).decode("utf-8", "ignore")

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens that end a generation."""
        return frozenset(t for t in range(self.size) if self._llama.llama_vocab_is_eog(self._vocabulary, t))
