"""Reads which transmission channels a text opens, in what state and where, and its kind, region, stance and severity.

An encoder's upper layers were adapted and heads fitted on texts labelled with the table's channels. Two sets of weights
are shipped: for all-mpnet-base-v2 where its packages are installed, and for the smaller MiniLM otherwise.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finllm.errors import BackendError
from finllm.files import sha256_of_file
from finllm.models import channel_heads
from finllm.models.embedding import EMBEDDING_NAME, Embedder
from finllm.models.encoder import ENCODER_NAME, Encoder, checked, ensure_encoder, installed
from finllm.models.second_opinion import HEADS, load_encoder
from finllm.tools.channels import STATES, Opened, channel_table

NAMES: Mapping[str, str] = {ENCODER_NAME: "channels", EMBEDDING_NAME: "channels-small"}
"""The file of the weights for each encoder."""
WINDOW = 254
"""Tokens that are read together, cut between sentences."""
WINDOWS = (6, 2)
"""How many windows are read from the beginning of a text, and from its end."""
SHORTEST = 4
"""Tokens of a sentence that is also read by itself."""
LEAST_SHARE = 0.1
"""How much a piece that names no channel counts for the fields, beside one that surely names one."""
_BATCH = 16
_LONGEST = 100_000
"""Characters of a text that are looked at."""
_SENTENCE = re.compile(r"(?<=[.!?。！？])[\"'”’)\]]*\s+|\n+")
_FIX = "run 'pip install --force-reinstall finllm'"

Floats = npt.NDArray[np.float64]


class ChannelCard(BaseModel):
    """What the weights are. `channels` and `fields` name the heads' outputs in their order.

    `floor`: the least probability of a channel that is told; `threshold`: from which on a text counts as opening one,
    fitted so that off-topic notices that were not trained on seldom do. `temperatures`: what logits are divided by, of
    each field and of `named` and `states`; `shift` is taken from those of `named` first. `encoder_sha256`,
    `table_sha256` and `corpus_sha256`: what the weights were made from, and `frozen` all that a score depends on, as it
    was when the second author's texts were scored. `scores`: figures by name, as training measured them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    encoder: str
    encoder_sha256: str
    sha256: str
    table_sha256: str
    corpus_sha256: str
    frozen: str
    seed: int
    layers: tuple[int, ...]
    channels: tuple[str, ...]
    fields: dict[str, tuple[str, ...]]
    floor: float = Field(ge=0, le=1)
    threshold: float = Field(ge=0, le=1)
    shift: float
    temperatures: dict[str, float]
    scores: dict[str, float]
    data: str
    limits: tuple[str, ...]


@dataclass(frozen=True)
class ChannelReading:
    """What one text opens, likeliest first, and the odds of each value by field; those of a field sum to 1."""

    opened: tuple[Opened, ...]
    fields: dict[str, dict[str, float]]


class ChannelReader:
    """Reads texts once each. Loaded on first use; safe to share between threads: calls take turns.

    Without an encoder it takes the larger one where it is installed, joined under `cache` on first use; where it
    cannot be joined the smaller one, and `note` then says why.
    """

    def __init__(self, cache: Path, embedder: Embedder, folder: Path = HEADS, encoder: str | None = None) -> None:
        self._cache = cache
        self._embedder = embedder
        self._folder = folder
        self._encoder = encoder
        self._lock = threading.Lock()
        self.note: str | None = None

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder that is read with. Errors: BackendError where it cannot be put together or is not installed."""
        if self._encoder == ENCODER_NAME:
            return ensure_encoder(self._cache)
        if self._encoder is None and (self._folder / f"{NAMES[ENCODER_NAME]}.json").is_file() and installed():
            try:
                return ensure_encoder(self._cache)
            except BackendError as error:
                self.note = f"texts are read with the smaller encoder: {error.message}; {error.fix}"
        return Encoder(EMBEDDING_NAME, self._embedder.folder, self._embedder.digest, "Apache-2.0")

    @cached_property
    def card(self) -> ChannelCard:
        """Errors: BackendError where card or weights are missing or spoilt, or are of another encoder or table."""
        try:
            card = ChannelCard.model_validate_json(self._place.with_suffix(".json").read_bytes())
            found = sha256_of_file(self.weights)
        except (OSError, ValidationError) as error:
            raise BackendError(
                f"the channel reader in {str(self._folder)!r} cannot be read: {error}", fix=_FIX
            ) from error
        if found != card.sha256:
            raise BackendError(f"the channel reader {str(self.weights)!r} is not the one of its card: its sha256 is "
                               f"{found[:12]}, the card says {card.sha256[:12]}", fix=_FIX)  # fmt: skip
        if self.encoder.digest != card.encoder_sha256:
            raise BackendError(f"the channel reader was made for another encoder: its card says "
                               f"{card.encoder_sha256[:12]}, here is {self.encoder.digest[:12]}", fix=_FIX)  # fmt: skip
        if unknown := set(card.channels) - set(channel_table()):
            raise BackendError(f"the channel reader knows channels that the table has not: {sorted(unknown)}", fix=_FIX)
        return card

    @property
    def _place(self) -> Path:
        return self._folder / NAMES[self.encoder.name]

    @property
    def weights(self) -> Path:
        return self._place.with_suffix(".safetensors")

    @property
    def digest(self) -> str:
        """Hex sha256 over the weights' and the card's bytes: what a reading follows from, with the table."""
        told = sha256_of_file(self._place.with_suffix(".json"))
        return hashlib.sha256(f"{self.card.sha256}{told}".encode()).hexdigest()

    def read(self, texts: Sequence[str]) -> list[ChannelReading]:
        """The channels of each text above the card's floor, and its fields.

        Of a long text the first six and the last two windows of 254 tokens are read, and each of their sentences once
        more by itself, since one sentence among many dull ones is lost on a reader of the whole. A text without a word
        opens nothing. Errors: BackendError where the encoder or the weights cannot be loaded.
        """
        return [reading(self.card, heard) for heard in self.hear(texts)]

    def hear(self, texts: Sequence[str]) -> list[list[Heard]]:
        """What the heads say of each piece of each text, before the card's temperatures. Errors: as `read`."""
        card = self.card
        with self._lock:
            loaded = _load(self.encoder.folder, self.encoder.digest, self.weights, card.sha256)
            cut = [_pieces(loaded.tokenizer, text) for text in texts]
            told = _run(loaded, list(card.fields), [piece for pieces in cut for piece in pieces])
        ends = np.cumsum([0, *map(len, cut)])
        return [told[start:end] for start, end in pairwise(map(int, ends))]


@dataclass(frozen=True)
class Heard:
    """Logits of one piece of a text: `named` (c,), `states` (c, 4), by field (values,); its tokens; and the sentence
    that each channel was looked for in, as (start, end) in the text."""

    named: Floats
    states: Floats
    fields: Mapping[str, Floats]
    tokens: int
    sentences: Sequence[tuple[int, int]]


def reading(card: ChannelCard, heard: Sequence[Heard]) -> ChannelReading:
    """Of a channel the piece that names it most; its states as the pieces that name it say, each by how much it names
    it and how long it is: a sentence by itself does not know that the next one denies it.
    """
    if not heard:
        return ChannelReading((), {field: dict.fromkeys(values, 1 / len(values))
                                   for field, values in card.fields.items()})  # fmt: skip
    heat = card.temperatures
    named = 1 / (1 + np.exp(-(np.stack([one.named for one in heard]) - card.shift) / heat.get("named", 1.0)))
    tokens = np.array([one.tokens for one in heard], dtype=np.float64)
    weight = (named[..., None] ** 2 + 1e-12) * tokens[:, None, None]  # (pieces, c, 1)
    states = (_odds(np.stack([one.states for one in heard]), heat.get("states", 1.0)) * weight).sum(0) / weight.sum(0)
    best = named.argmax(axis=0)
    opened: list[Opened] = []
    for at, channel in enumerate(card.channels):
        of = dict(zip(STATES, map(float, states[at]), strict=True))
        sure = float(named[best[at], at])
        probability = min(sure * (of["happens"] + of["feared"]), 1.0)
        if probability >= card.floor or sure >= card.threshold:
            start, end = heard[best[at]].sentences[at]
            opened.append(Opened(channel=channel, probability=probability, state=max(of, key=lambda s: of[s]),
                                 states=of, start=start, end=end))  # fmt: skip
    shares = tokens * (LEAST_SHARE + named.max(axis=1))
    shares /= shares.sum()
    fields: dict[str, dict[str, float]] = {}
    for field, values in card.fields.items():
        odds = shares @ _odds(np.stack([one.fields[field] for one in heard]), heat.get(field, 1.0))
        fields[field] = dict(zip(values, map(float, odds), strict=True))
    return ChannelReading(tuple(sorted(opened, key=lambda one: -one.probability)), fields)


def _odds(logits: Floats, heat: float) -> Floats:
    scaled = np.exp((logits - logits.max(axis=-1, keepdims=True)) / heat)
    return scaled / scaled.sum(axis=-1, keepdims=True)


@dataclass(frozen=True)
class _Window:
    """Tokens of a text that are read together, with each sentence's (start, end) in the text and first token."""

    ids: list[int]
    sentences: list[tuple[int, int]]
    firsts: list[int]


def _windows(tokenizer: Any, text: str) -> list[_Window]:
    text = text[:_LONGEST].encode("utf-8", "replace").decode()  # half a pair of surrogates becomes a sign
    told = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False,
                     split_special_tokens=True)  # fmt: skip
    ids, offsets = told["input_ids"], told["offset_mapping"]
    if not ids or not any(map(str.isalnum, text)):
        return []
    ends = [found.end() for found in _SENTENCE.finditer(text)] + [len(text)]
    pieces: list[tuple[int, int]] = []  # of the tokens, each one sentence or a part of a very long one
    at = 0
    for end in ends:
        start = at
        while at < len(ids) and offsets[at][0] < end:
            at += 1
        pieces += [(first, min(first + WINDOW, at)) for first in range(start, at, WINDOW)]
    groups: list[list[tuple[int, int]]] = []
    for piece in pieces:
        if groups and piece[1] - groups[-1][0][0] <= WINDOW:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    first, last = WINDOWS
    kept = groups if len(groups) <= first + last else groups[:first] + groups[-last:]
    found: list[_Window] = []
    for group in kept:
        start = group[0][0]
        spans = [(offsets[one][0], offsets[other - 1][1]) for one, other in group]
        inner = ids[start : group[-1][1]]
        found.append(_Window([tokenizer.cls_token_id, *inner, tokenizer.sep_token_id], spans,
                             [one - start + 1 for one, _ in group]))  # fmt: skip
    return found


def _pieces(tokenizer: Any, text: str) -> list[_Window]:
    """The windows of a text, and the sentences of those that have several."""
    found: list[_Window] = []
    for window in _windows(tokenizer, text):
        found.append(window)
        if len(window.firsts) > 1:
            ends = [*window.firsts[1:], len(window.ids) - 1]
            found += [
                _Window([window.ids[0], *window.ids[first:end], window.ids[-1]], [sentence], [1])
                for first, end, sentence in zip(window.firsts, ends, window.sentences, strict=True)
                if end - first >= SHORTEST
            ]  # fmt: skip
    return found


def _run(loaded: _Loaded, fields: Sequence[str], windows: Sequence[_Window]) -> list[Heard]:
    import torch

    found: dict[int, Heard] = {}
    order = sorted(range(len(windows)), key=lambda at: len(windows[at].ids))
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            batch = loaded.tokenizer.pad({"input_ids": [windows[at].ids for at in rows]}, return_tensors="pt")
            mask = torch.zeros(batch["input_ids"].shape)
            for row, at in enumerate(rows):
                mask[row, : len(windows[at].ids)] = 1.0
            hidden = loaded.encoder.embeddings(input_ids=batch["input_ids"])
            bias = channel_heads.bias_of(loaded.encoder, hidden)
            hidden = channel_heads.through(loaded.encoder.encoder.layer, hidden, mask, bias)
            read = channel_heads.read(hidden, mask, loaded.heads, fields)
            looked = read.looked.double().numpy()
            for row, at in enumerate(rows):
                window = windows[at]
                by_sentence = np.add.reduceat(looked[row, : len(window.ids) - 1], window.firsts, axis=0)
                found[at] = Heard(
                    read.named[row].double().numpy(),
                    read.states[row].double().numpy(),
                    {field: of[row].double().numpy() for field, of in read.fields.items()},
                    len(window.ids),
                    [window.sentences[best] for best in by_sentence.argmax(axis=0)],
                )
    return [found[at] for at in range(len(windows))]


@dataclass(frozen=True)
class _Loaded:
    tokenizer: Any
    encoder: Any
    heads: dict[str, Any]


@cache
def _load(folder: Path, digest: str, weights: Path, sha256: str) -> _Loaded:
    """The encoder with its low-rank changes added, and the heads."""
    import torch
    from safetensors.torch import load_file

    del sha256  # only keys the memory
    tokenizer, encoder = load_encoder(checked(folder, digest))
    tensors = {name: tensor.float() for name, tensor in load_file(weights).items()}
    adapted = sorted({int(name.split(".")[0]) for name in tensors if name[0].isdigit()})
    with torch.no_grad():
        for at in adapted:
            for name, (module, attribute) in channel_heads.linears(encoder.encoder.layer[at], at).items():
                linear = getattr(module, attribute)
                linear.weight += channel_heads.LORA_SCALE * tensors[f"{name}.b"] @ tensors[f"{name}.a"]
    return _Loaded(tokenizer, encoder, {name: one for name, one in tensors.items() if not name[0].isdigit()})
