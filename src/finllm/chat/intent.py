"""Which kind of question a sentence is: a linear head over its embedding, its words and the names in it; calibrated.

The head is small (`intent.safetensors`, with its card `intent.json`); it is trained by `training/chat_intent.py` on the
catalogue's sentence forms and on development questions. No language model is asked, so an answer takes milliseconds.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finllm.chat.slots import SLOTS, Slots
from finllm.errors import BackendError
from finllm.files import sha256_of_file
from finllm.models.second_opinion import softmax

FOLDER = Path(__file__).parent
NAME = "intent"
WORDS = 2048
"""Width of the hashed words and pairs of words."""
_STANDS_FOR = {
    "row": "an evidence row", "run": "another run", "source": "a source", "position": "a company", "sector": "a sector",
    "episode": "a past crisis", "agent": "an agent", "move": "by some percent", "loss": "an amount of money",
    "factor": "a market factor", "when": "some day", "term": "a word",
}  # fmt: skip
_SLOT = re.compile(r"\[(\w+)\]")
_WORD = re.compile(r"\[?[a-z]+\]?|[?%&]")
_FIX = "run 'pip install --force-reinstall finllm'"

Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]


class IntentCard(BaseModel):
    """What the head is: its `kinds` in order, the `temperature` of its logits, from which probability on it answers
    (`answers`) and is sure (`sure`), its scores as training measured them, and what it was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    embedding_sha256: str
    kinds: tuple[str, ...]
    temperature: float = Field(gt=0)
    answers: float = Field(ge=0, le=1)
    sure: float = Field(ge=0, le=1)
    scores: dict[str, float]
    data: str


class Intent:
    """The trained head. Loaded on first use."""

    def __init__(self, embed: Embed, digest: str, folder: Path = FOLDER) -> None:
        self._embed, self._digest, self._folder = embed, digest, folder

    @cached_property
    def card(self) -> IntentCard:
        """Errors: BackendError where the card is missing, spoilt, or of other weights or another embedding model."""
        path = self._folder / f"{NAME}.json"
        try:
            card = IntentCard.model_validate_json(path.read_bytes())
            found = sha256_of_file(path.with_suffix(".safetensors"))
        except (OSError, ValidationError) as error:
            raise BackendError(f"the chat's intent head cannot be read: {error}", fix=_FIX) from error
        if found != card.sha256 or self._digest != card.embedding_sha256:
            raise BackendError("the chat's intent head is not the one of its card", fix=_FIX)
        return card

    @cached_property
    def _weights(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        from safetensors.numpy import load_file

        held: dict[str, Any] = load_file(self._folder / f"{NAME}.safetensors")
        return held["weight"].astype(np.float32), held["bias"].astype(np.float32)

    def kinds_of(self, text: str, slots: Slots) -> list[tuple[str, float]]:
        """Every kind with its probability, the likeliest first. Errors: BackendError."""
        card, (weight, bias) = self.card, self._weights
        logits = features([text], [slots], self._embed)[0] @ weight.T + bias
        odds = softmax(logits.astype(np.float64) / card.temperature)
        return sorted(zip(card.kinds, odds, strict=True), key=lambda one: -one[1])


def features(texts: Sequence[str], slots: Sequence[Slots], embed: Embed) -> npt.NDArray[np.float32]:
    """What the head sees of each question: ndarray of shape (n_texts, 2 × 384 + WORDS + 2 × n_slots + 1).

    The embedding of the sentence as it is and with its names replaced by what they are, its words, and which kinds of
    name it has. A sentence of no letters has an embedding all the same.
    """
    plain = [text.lower()[:400] for text in texts]
    told = [_SLOT.sub(lambda match: _STANDS_FOR[match[1]] if match[1] in _STANDS_FOR else match[1], one.masked.lower())
            [:400] for one in slots]  # fmt: skip
    vectors = embed([*plain, *told])
    n = len(texts)
    words = np.stack([_hashed(one.masked) for one in slots])
    flags = np.array([[*(float(bool(one.all(slot))) for slot in SLOTS),
                       *(float(len(one.masked.split()) <= 3 and bool(one.all(slot))) for slot in SLOTS),
                       min(len(text.split()), 12) / 12] for text, one in zip(texts, slots, strict=True)])  # fmt: skip
    parts = (SHARES[0] * vectors[:n], SHARES[1] * vectors[n:], SHARES[2] * words, SHARES[3] * flags)
    return np.concatenate(parts, axis=1).astype(np.float32)


SHARES = (6.0, 6.0, 3.0, 1.0)
"""Length of each part of what the head sees: embeddings, words, names; chosen by cross-validation."""


def _hashed(masked: str) -> npt.NDArray[np.float32]:
    found = np.zeros(WORDS, dtype=np.float32)
    words = ["^", *_WORD.findall(masked.lower()), "$"]
    for token in (*words[1:-1], *(f"{a} {b}" for a, b in pairwise(words))):
        found[zlib.crc32(token.encode()) % WORDS] += 1.0
    return found / max(float(np.linalg.norm(found)), 1.0)
