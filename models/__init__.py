"""Model files: where the weights come from, the precisions derived from them, and the embedding model."""

from __future__ import annotations

from finllm.models.embedding import EMBEDDING_DIM, EMBEDDING_NAME, Embedder
from finllm.models.ladder import PRECISIONS, Rung, derived_rungs, ensure_rung
from finllm.models.lora import Adapter, open_adapter
from finllm.models.registry import ModelEntry, default_source, read_entries
from finllm.models.source import ModelSource

__all__ = [
    "EMBEDDING_DIM",
    "EMBEDDING_NAME",
    "PRECISIONS",
    "Adapter",
    "Embedder",
    "ModelEntry",
    "ModelSource",
    "Rung",
    "default_source",
    "derived_rungs",
    "ensure_rung",
    "open_adapter",
    "read_entries",
]
