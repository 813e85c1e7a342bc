"""Turns a PEFT adapter folder into a GGUF adapter: names mapped, q and k rows in llama.cpp's order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finllm.errors import InputError
from finllm.models.lora import open_gguf, text_of, value_of

_PERMUTED = {"llama"}
_AS_THEY_ARE = {"qwen2", "qwen3", "gemma", "gemma2", "gemma3"}
"""Architectures whose q and k rows GGUF keeps in Hugging Face's order."""
_UNSUPPORTED: dict[str, object] = {"use_dora": False, "fan_in_fan_out": False, "bias": "none", "modules_to_save": None}
_PREFIXES = ("base_model.model.", "base_model.")


@dataclass(frozen=True)
class _Config:
    rank: int
    alpha: float
    rslora: bool
    alphas: Mapping[str, float]


def convert_peft(folder: Path, weights: Path, out: Path) -> Path:
    """Convert `adapter_model.safetensors` and `adapter_config.json` for the model in `weights`; returns `out`.

    Errors: InputError for a folder that is no PEFT LoRA, a kind of it that has no GGUF form (DoRA, biases, whole
    modules), or an architecture whose row order is not known here.
    """
    import gguf

    config = _read_config(folder)
    reader = open_gguf(weights)
    architecture = text_of(reader, "general.architecture")
    if architecture not in _PERMUTED | _AS_THEY_ARE:
        raise InputError(
            f"the order of the rows of {architecture!r} models is not known here",
            fix="convert the adapter with llama.cpp's convert_lora_to_gguf.py",
        )
    kind = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, int(value_of(reader, f"{architecture}.block_count")))
    heads = int(value_of(reader, f"{architecture}.attention.head_count"))
    kv_heads = int(value_of(reader, f"{architecture}.attention.head_count_kv") or heads)
    writer = gguf.GGUFWriter(out, architecture)
    try:
        writer.add_string("general.type", "adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", config.alpha)
        for module, (a, b) in _read_pairs(folder).items():
            name = names.get_name(module)
            if name is None:
                raise InputError(
                    f"the adapter {str(folder)!r} changes {module!r}, which {architecture!r} has not",
                    fix="use the adapter with the model that it was trained for",
                )
            rows = b * np.float32(_extra_scale(module, a.shape[0], config))
            if architecture in _PERMUTED and name.endswith(("attn_q", "attn_k")):
                rows = permuted_rows(rows, heads if name.endswith("attn_q") else kv_heads)
            writer.add_tensor(f"{name}.weight.lora_a", a)
            writer.add_tensor(f"{name}.weight.lora_b", rows)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except BaseException:
        writer.close()
        out.unlink(missing_ok=True)
        raise
    writer.close()
    return out


def permuted_rows(rows: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows of a q or k projection from Hugging Face's order (halves) to llama.cpp's (pairs), head by head.

    ndarray of shape (n_out, …) in and out. Hugging Face rotates dimension i with i + d/2, llama.cpp 2i with 2i + 1.
    """
    size = rows.shape[0] // heads
    return np.ascontiguousarray(rows.reshape(heads, 2, size // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape))


def _extra_scale(module: str, rank: int, config: _Config) -> float:
    """What B is multiplied by, since the file has one alpha and llama.cpp divides it by each pair's own rank."""
    alpha = next((value for name, value in config.alphas.items() if module.endswith(name)), config.alpha)
    wanted = alpha / (rank**0.5 if config.rslora else rank)
    return wanted / (config.alpha / rank)


def _read_config(folder: Path) -> _Config:
    path = folder / "adapter_config.json"
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        config = _Config(int(raw["r"]), float(raw["lora_alpha"]), bool(raw.get("use_rslora")),
                         dict(raw.get("alpha_pattern") or {}))  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{str(folder)!r} is no PEFT LoRA adapter: {type(error).__name__}: {error}",
            fix="give the folder with adapter_config.json and adapter_model.safetensors",
        ) from error
    for key, plain in _UNSUPPORTED.items():
        if raw.get(key, plain) not in (plain, []):
            raise InputError(f"{str(path)!r}: {key}={raw[key]!r} has no GGUF form", fix=f"train with {key}={plain!r}")
    if raw.get("peft_type", "LORA") != "LORA" or config.alpha <= 0:
        raise InputError(f"{str(path)!r} describes no LoRA with an alpha above 0", fix="train a LoRA adapter")
    return config


def _read_pairs(folder: Path) -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """A and B by the name of the module that they change, without PEFT's prefixes."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "adapter_model.safetensors"
    try:
        tensors = {name: tensor.float().numpy() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}", fix="fetch or train the adapter again") from error
    found: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    for full, array in tensors.items():
        name = full
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        module, _, half = name.removesuffix(".weight").rpartition(".")
        if half not in ("lora_A", "lora_B"):
            raise InputError(
                f"{str(path)!r} holds {full!r}, which is no LoRA matrix", fix="train on the linear layers only"
            )
        found.setdefault(module, {})[half] = array
    if not found or any(len(pair) != 2 for pair in found.values()):
        raise InputError(f"{str(path)!r} is not made of pairs lora_A and lora_B", fix="train the adapter again")
    return {module: (pair["lora_A"], pair["lora_B"]) for module, pair in sorted(found.items())}
