"""Reads what sharding advice is about: a model's shape from its config.json, GPUs and their links from a YAML file."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finllm.errors import InputError
from finllm.scheduler.backends.sharding import GIB, Gpu, Link, ModelShape


class _Config(BaseModel):
    """The fields of a decoder's config.json that its size follows from."""

    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int | None = Field(None, gt=0)
    head_dim: int | None = Field(None, gt=0)
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    tie_word_embeddings: bool = False
    num_local_experts: int = Field(1, gt=0)


class _Gpu(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    node: str = "local"
    memory_gib: float = Field(gt=0, allow_inf_nan=False)


class _Gpus(BaseModel):
    model_config = ConfigDict(extra="forbid")

    gpus: tuple[_Gpu, ...] = Field(min_length=1, max_length=4096)
    nvlink: tuple[tuple[str, ...], ...] = ()


def read_shape(path: Path, bytes_per_parameter: float) -> ModelShape:
    """The shape of a decoder with gated feed-forward layers, from its folder or its config.json.

    Parameters are counted from the sizes: attention, three matrices a feed-forward (of each expert), embeddings, once
    more where input and output do not share them. Errors: InputError for a file that cannot be read or lacks a size.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        config = _Config.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the sizes of a model from {str(file)!r}: {_first(error)}",
                         fix="give a Hugging Face folder or its config.json") from error  # fmt: skip
    heads, hidden = config.num_attention_heads, config.hidden_size
    kv_heads, head = config.num_key_value_heads or heads, config.head_dim or hidden // heads
    attention = hidden * head * (2 * heads + 2 * kv_heads)
    layer = attention + 3 * hidden * config.intermediate_size * config.num_local_experts
    embeddings = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    parameters = config.num_hidden_layers * layer + embeddings
    return ModelShape(config.num_hidden_layers, heads, kv_heads, head, hidden, config.vocab_size, parameters,
                      bytes_per_parameter)  # fmt: skip


def read_gpus(path: Path) -> tuple[tuple[Gpu, ...], tuple[Link, ...]]:
    """The GPUs of a YAML file, and a link for each pair that NVLink joins. Errors: InputError naming the field."""
    try:
        found = _Gpus.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        mend = "give 'gpus: [{id: g0, node: a, memory_gib: 80}]' and 'nvlink: [[g0, g1]]'"
        raise InputError(f"cannot read the GPUs of {str(path)!r}: {_first(error)}", fix=mend) from error
    gpus = tuple(Gpu(one.id, one.node, int(one.memory_gib * GIB)) for one in found.gpus)
    return gpus, tuple(Link(one, other) for group in found.nvlink for one, other in combinations(group, 2))


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    told = error.errors()[0]
    return f"{'.'.join(map(str, told['loc'])) or 'it'}: {told['msg']}"
