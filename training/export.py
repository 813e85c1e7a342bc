"""Write a trained adapter as a GGUF LoRA file in half precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from finllm.models.lora import LAYERS_KEY, layers_of, open_gguf, read_changes
from finllm.models.peft import permuted_rows
from training.model import GROUPS, Shape, halved


def pairs(
    changes: dict[str, Tensor], shape: Shape
) -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """A and B by the GGUF name of the tensor that they change, q and k rows in llama.cpp's order."""
    found = {}
    for i in range(shape.layers):
        for name in (name for group in GROUPS.values() for name in group):
            a, b = (changes[f"{half}.{i}_{name}"].float().numpy() for half in "ab")
            if name in ("attn_q", "attn_k"):
                b = permuted_rows(b, shape.heads if name == "attn_q" else shape.kv_heads)
            found[f"blk.{i}.{name}.weight"] = (a, b)
    return found


def changes_in(path: Path, shape: Shape, layers: Sequence[int]) -> dict[str, Tensor]:
    """The changes of these layers only, numbered anew, of an adapter that has them: the inverse of `export`.

    Errors: ValueError for an adapter of fewer layers that lacks one of these.
    """
    found, kept = read_changes(path), layers_of(open_gguf(path))
    changes: dict[str, Tensor] = {}
    for new, layer in enumerate(layers):
        old = layer if kept is None else kept.index(layer)
        for name in (name for group in GROUPS.values() for name in group):
            change = found[f"blk.{old}.{name}.weight"]
            b = change.b
            if name in ("attn_q", "attn_k"):
                b = halved(b, shape.heads if name == "attn_q" else shape.kv_heads)
            changes[f"a.{new}_{name}"], changes[f"b.{new}_{name}"] = torch.tensor(change.a), torch.tensor(b)
    return changes


def export(
    changes: dict[str, Tensor], shape: Shape, alpha: float, name: str, out: Path, layers: Sequence[int] = ()
) -> Path:
    """Write the file; returns `out`, which appears whole or not at all. `layers`: those of the base that are kept."""
    import gguf

    partial = out.with_name(f".{out.name}.partial")
    writer = gguf.GGUFWriter(partial, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("general.name", name)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    if layers:
        writer.add_array(LAYERS_KEY, list(layers))
    for tensor, (a, b) in pairs(changes, shape).items():
        writer.add_tensor(f"{tensor}.lora_a", a.astype(np.float16))
        writer.add_tensor(f"{tensor}.lora_b", b.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(out)
    return out
