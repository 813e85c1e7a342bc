"""LoRA adapters in llama.cpp's GGUF form: what one holds, and its changes merged into a model's weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from finllm.errors import InputError
from finllm.models.source import cached_digest, check_gguf
from finllm.settings import Settings

ADAPTER_KEY = "finllm.adapter.sha256"
"""Metadata of a merged file: the digest of the adapter that is in it."""
LAYERS_KEY = "finllm.adapter.layers"
"""Metadata of an adapter for a pruned model: which layers of the base it keeps, in order."""
_SUFFIXES = (".lora_a", ".lora_b")
_EMBEDDING = "token_embd.weight"
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_FIT = "use the adapter with the model that it was trained for"


@dataclass(frozen=True)
class Adapter:
    """A GGUF file of low-rank changes to the weights of one model.

    `layers`: those of the base that the adapted model keeps, where it is a pruned one; else None.
    """

    path: Path
    sha256: str
    layers: tuple[int, ...] | None = None


@dataclass(frozen=True)
class WeightChange:
    """W becomes W + scale·B·A. `a`: ndarray of shape (rank, n_in); `b`: (n_out, rank); both float32."""

    a: npt.NDArray[np.float32]
    b: npt.NDArray[np.float32]
    scale: float

    def delta(self) -> npt.NDArray[np.float32]:
        """ndarray of shape (n_out, n_in), float32."""
        return (self.b @ self.a) * np.float32(self.scale)


def open_adapter(path: Path, settings: Settings) -> Adapter:
    """The adapter in a file, which is read whole once. Errors: InputError where it is no LoRA adapter."""
    path = path.expanduser().absolute()
    check_gguf(path)
    stat = path.stat()
    return Adapter(path, cached_digest(path, settings), _read_whole(path, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=16)
def _read_whole(path: Path, size: int, mtime_ns: int) -> tuple[int, ...] | None:
    """The layers of an adapter that was read whole, once a process until it changes. Errors: as `read_changes`."""
    del size, mtime_ns
    reader = open_gguf(path)
    _changes(path, reader)
    return layers_of(reader)


def layers_of(reader: Any) -> tuple[int, ...] | None:
    """The layers that an adapter keeps of its base, as its metadata say; None where it keeps all."""
    kept = value_of(reader, LAYERS_KEY)
    return None if kept is None else tuple(int(layer) for layer in kept)


def read_changes(path: Path) -> dict[str, WeightChange]:
    """The changes by name of the tensor that they change. The scale is alpha/rank (Hu et al. 2021, section 4.1).

    Errors: InputError for a file that is corrupt, no LoRA adapter, or has half of a pair.
    """
    return _changes(path, open_gguf(path))


def _changes(path: Path, reader: Any) -> dict[str, WeightChange]:
    kind = (text_of(reader, "general.type"), text_of(reader, "adapter.type"))
    if kind != ("adapter", "lora"):
        raise InputError(
            f"{str(path)!r} is no LoRA adapter: general.type is {kind[0]!r}, adapter.type {kind[1]!r}",
            fix="give a GGUF adapter, or convert a PEFT folder with finllm.models.peft.convert_peft",
        )
    halves = {tensor.name: _dequantised(tensor) for tensor in reader.tensors}
    names = {name.removesuffix(suffix) for name in halves for suffix in _SUFFIXES if name.endswith(suffix)}
    whole = {name + suffix for name in names for suffix in _SUFFIXES}
    if not names or whole != set(halves):
        odd = sorted(whole ^ set(halves)) or ["no tensor at all"]
        raise InputError(
            f"the adapter {str(path)!r} is not made of pairs lora_a and lora_b: {odd[0]}", fix="convert it again"
        )
    alpha = float(value_of(reader, "adapter.lora.alpha") or 0.0)
    return {name: _change(halves[name + ".lora_a"], halves[name + ".lora_b"], alpha) for name in sorted(names)}


def merge_adapter(weights: Path, adapter: Adapter, out: Path) -> None:
    """Write `weights` with the adapter's changes to `out`: changed tensors become F32, all else is copied as it is.

    An adapter of a pruned model keeps its `layers` only, numbered anew in their order.
    Errors: InputError for a corrupt file, or an adapter that does not fit the weights.
    """
    import gguf

    changes = read_changes(adapter.path)
    reader = open_gguf(weights)
    kept = _kept(reader, adapter, weights)
    _check_fit(kept, changes, weights, adapter)
    writer = gguf.GGUFWriter(out, text_of(reader, "general.architecture"), endianess=reader.endianess)
    try:
        _copy_metadata(reader, writer, adapter.layers)
        writer.add_string(ADAPTER_KEY, adapter.sha256)
        for name, tensor in kept.items():
            if name in changes:
                shape = tuple(int(n) for n in reversed(tensor.shape.tolist()))
                writer.add_tensor_info(name, shape, np.dtype(np.float32), int(np.prod(shape)) * 4)
            else:
                data = tensor.data
                writer.add_tensor_info(name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in kept.items():
            change = changes.get(name)
            writer.write_tensor_data(tensor.data if change is None else _dequantised(tensor) + change.delta())
    finally:
        writer.close()


def _kept(reader: Any, adapter: Adapter, weights: Path) -> dict[str, Any]:
    """The tensors that stay, by the names that they then have."""
    if adapter.layers is None:
        return {tensor.name: tensor for tensor in reader.tensors}
    there = {int(match[1]) for tensor in reader.tensors if (match := _BLOCK.match(tensor.name))}
    if list(adapter.layers) != sorted(set(adapter.layers)) or not set(adapter.layers) <= there:
        raise InputError(
            f"the adapter {str(adapter.path)!r} does not fit {str(weights)!r}: it keeps layers {list(adapter.layers)}, "
            f"of which there are {len(there)}",
            fix=_FIT,
        )
    at = {old: new for new, old in enumerate(adapter.layers)}
    kept = {}
    for tensor in reader.tensors:
        match = _BLOCK.match(tensor.name)
        if match is None:
            kept[tensor.name] = tensor
        elif int(match[1]) in at:
            kept[f"blk.{at[int(match[1])]}.{match[2]}"] = tensor
    return kept


def _check_fit(kept: Mapping[str, Any], changes: Mapping[str, WeightChange], weights: Path, adapter: Adapter) -> None:
    shapes = {name: tuple(int(n) for n in reversed(tensor.shape.tolist())) for name, tensor in kept.items()}
    for name, change in changes.items():
        wanted = (change.b.shape[0], change.a.shape[1])
        if name == _EMBEDDING:
            raise InputError(
                f"the adapter {str(adapter.path)!r} changes the embedding, which finllm does not merge",
                fix="train the adapter on the linear layers only",
            )
        if shapes.get(name) != wanted:
            is_now = f"is {shapes[name]}" if name in shapes else "is not there"
            raise InputError(
                f"the adapter {str(adapter.path)!r} does not fit {str(weights)!r}: it changes {name!r} of shape "
                f"{wanted}, which {is_now}",
                fix=_FIT,
            )


def _change(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], alpha: float) -> WeightChange:
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        raise InputError(f"an adapter's pair has shapes {a.shape} and {b.shape}", fix="convert it again")
    rank = a.shape[0]
    return WeightChange(a, b, alpha / rank if alpha else 1.0)  # llama.cpp: without an alpha, the scale is 1


def _copy_metadata(reader: Any, writer: Any, layers: tuple[int, ...] | None) -> None:
    import gguf

    depth = gguf.Keys.LLM.BLOCK_COUNT.format(arch=text_of(reader, "general.architecture"))
    for field in reader.fields.values():
        if field.name == gguf.Keys.General.ARCHITECTURE or field.name.startswith("GGUF."):
            continue  # the writer writes these itself
        if layers is not None and field.name == depth:
            writer.add_uint32(depth, len(layers))
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)


def open_gguf(path: Path) -> Any:
    """Errors: InputError for whatever gguf's reader, which has no error of its own, makes of a spoilt file."""
    import gguf

    try:
        return gguf.GGUFReader(path)
    except Exception as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}", fix="fetch or convert the file again") from error


def _dequantised(tensor: Any) -> npt.NDArray[np.float32]:
    from gguf.quants import dequantize

    return np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)


def value_of(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def text_of(reader: Any, key: str) -> str:
    return str(value_of(reader, key) or "")
