"""How probably a text is a rumour: a linear head over its embedding and the manner of its wording, in English.

Hearsay names what nobody can check; a rumour need not: it is told by how it is told. The verdict is a source check's:
only where no other source bears the text out does it count, and where it is not sure the sanity-checker is asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finllm.errors import BackendError
from finllm.guardrails.hearsay import ENOUGH, hearsay
from finllm.guardrails.provenance import Unchecked
from finllm.models.second_opinion import HEADS

CARD = HEADS / "rumours.json"
DIGITS = 3
"""Decimals of the probability that are kept: the rest differs from one machine to another."""
_WORDS = tuple(
    re.compile(rf"\b(?:{words})\b", re.IGNORECASE)
    for words in (
        "i|my|me|mine",
        "you|your|yours",
        "they|them|their",
        "nobody|no one|nothing|never|none|ever|forever|for ever",
        "all|every|everything|everyone|everywhere|whole|entire",
        r"secret\w*|hid(?:e|es|ing|den)|truth|true reason|real reason|lie[sd]?|fake|forg\w+|so-called|pretend\w*|cover|"
        r"silen\w+|bann?ed|deleted?|staged|proof|conspir\w*",
        r"officials?|said|says?|according to|spokes\w+|reported|announced|statement|notice|expects?|agency|committee",
        "bankrupt|insolvent|worthless|void|gone|dead|abolished|cancelled|suspended|collapse[sd]?|crash|wiped|finished",
        "now|today|tonight|tomorrow|hours? ago|this morning|by (?:monday|friday|midnight|the weekend)",
        "sell|buy|withdraw|get out|share|retweet|forward|copy|check|remember|watch|ask yourself|trust me",
    )
)
_SAID = re.compile(r"\bsaid\b|according", re.IGNORECASE)
_LEAST = 8
"""Words that a text counts as at least, so that a single one of a kind does not fill a short text."""


class RumourCard(BaseModel):
    """`weights` of the embedding's dimensions, then of `manner`; p = 1 / (1 + exp(−(weights · x + bias))).

    `open`: from here on a text that nobody bears out is doubtful, and the sanity-checker is asked; from `sure` on it is
    not asked. `open` is fitted on validation. `scores`: figures by name, as the training measured them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedding_sha256: str
    corpus_sha256: str
    weights: tuple[float, ...]
    bias: float
    open: float = Field(gt=0, lt=1)
    sure: float = Field(gt=0, lt=1)
    scores: dict[str, float]
    data: str
    limits: tuple[str, ...]


@cache
def card() -> RumourCard:
    """Errors: BackendError where it is missing or spoilt."""
    try:
        return RumourCard.model_validate_json(CARD.read_bytes())
    except (OSError, ValidationError) as error:
        raise BackendError(f"the head {str(CARD)!r} cannot be read: {error}",
                           fix="run 'pip install --force-reinstall finllm'") from error  # fmt: skip


def rumours(texts: Sequence[str], embeddings: npt.NDArray[np.float32]) -> list[float]:
    """The probability that each text is a rumour; `embeddings`: ndarray (n_texts, n_dimensions), unit norm.

    Errors: BackendError as `card`.
    """
    known = card()
    weights = np.array(known.weights)
    found = []
    for text, embedding in zip(texts, embeddings, strict=True):
        x = np.concatenate([embedding.astype(np.float64), manner(text)])
        found.append(round(1.0 / (1.0 + math.exp(-float(x @ weights) - known.bias)), DIGITS))
    return found


def unchecked(claims: Mapping[str, str], rumour: float) -> Unchecked:
    """Whether a text says what nobody can check, by its claims in the ways of hearsay and by how it is told."""
    if len(claims) >= ENOUGH or rumour >= card().sure:
        return "yes"
    return "open" if rumour >= card().open else "no"


def manner(text: str) -> npt.NDArray[np.float64]:
    """How a text is worded, shape (15,): kinds of words for every 20, shouting, ways of hearsay, whether nobody is
    quoted, and sentences for every 10 words.
    """
    count = max(len(text.split()), _LEAST)
    shouted = sum(len(word) > 2 and word.isupper() for word in re.findall(r"[A-Za-z]+", text))
    return np.array([
        *(min(len(words.findall(text)) / count * 20, 3.0) for words in _WORDS),
        min(text.count("!"), 3), min(shouted / count * 10, 2.0), len(hearsay(text)), float(not _SAID.search(text)),
        min(len(re.findall(r"[.!?]", text)) / count * 10, 2.0),
    ])  # fmt: skip
