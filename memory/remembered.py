"""The encoders of a desk, which read a text once and remember it by content; without torch where all is remembered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finllm.memory.vectors import Forgetful, Vectors
from finllm.models.embedding import EMBEDDING_DIM, Embedder
from finllm.models.second_opinion import NAME, SecondOpinion


class RememberedEmbedder(Embedder):
    """Vectors of texts, each read by itself, so that a text has one vector whatever stands beside it."""

    def __init__(self, vectors: Vectors) -> None:
        super().__init__()
        self._vectors = vectors
        self._digest: str | None = None

    def afresh(self) -> Embedder:
        return RememberedEmbedder(Forgetful())

    @property
    def digest(self) -> str:
        if self._digest is None:
            self._digest = self._vectors.digest(self.folder / "model.safetensors")
        return self._digest

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if not texts:
            return np.zeros((0, EMBEDDING_DIM), dtype=np.float32)
        read = super().embed
        rows = self._vectors.through(f"embedding {self.digest}", texts, lambda text: read([text])[0], np.float32)
        return np.stack(rows).astype(np.float32)


class RememberedSecond(SecondOpinion):
    """The second opinion, each text read by itself."""

    def __init__(self, embedder: Embedder, vectors: Vectors, name: str = NAME) -> None:
        super().__init__(embedder, name=name)
        self._vectors = vectors

    def afresh(self, embedder: Embedder) -> SecondOpinion:
        return RememberedSecond(embedder, Forgetful(), self.name)

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        if not texts:
            return super().logits(texts)
        read, by = super().logits, f"{self.name} {self.digest} {self.card.embedding_sha256}"
        return np.stack(self._vectors.through(by, texts, lambda text: read([text])[0], np.float64)).astype(np.float64)
