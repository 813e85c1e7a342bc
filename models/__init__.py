"""Model files: where the weights come from, the precisions derived from them, and the embedding model."""

from __future__ import annotations

from finllm.models.embedding import EMBEDDING_DIM, EMBEDDING_NAME, Embedder
from finllm.models.ladder import PRECISIONS, Rung, ensure_rung
from finllm.models.registry import ModelSource, default_source

__all__ = [
    "EMBEDDING_DIM",
    "EMBEDDING_NAME",
    "PRECISIONS",
    "Embedder",
    "ModelSource",
    "Rung",
    "default_source",
    "ensure_rung",
]
