"""A lean Llama in torch with low-rank changes merged into its weights at every step, read from a GGUF file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  its customary name

if TYPE_CHECKING:
    from training.packing import Batch

GROUPS: dict[str, tuple[str, ...]] = {
    "qkv": ("attn_q", "attn_k", "attn_v"), "out": ("attn_output",), "gate_up": ("ffn_gate", "ffn_up"),
    "down": ("ffn_down",),
}  # fmt: skip
"""Linear layers that read the same input are multiplied as one."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama. `base`: that of the rotation's frequencies; `epsilon`: that of the norms."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    base: float
    epsilon: float


def read_weights(path: Path) -> tuple[Shape, dict[str, np.ndarray[Any, Any]]]:
    """Shape and dequantised tensors (float32) of a Llama-like GGUF file; q and k rows in Hugging Face's order."""
    from gguf.quants import dequantize

    from finllm.models.lora import open_gguf, value_of

    reader = open_gguf(path)

    def value(key: str) -> Any:
        return value_of(reader, f"llama.{key}")

    heads = int(value("attention.head_count"))
    width = int(value("embedding_length"))
    shape = Shape(
        int(value("block_count")), width, heads, int(value("attention.head_count_kv")), width // heads,
        float(value("rope.freq_base")), float(value("attention.layer_norm_rms_epsilon")),
    )  # fmt: skip
    tensors = {t.name: np.asarray(dequantize(t.data, t.tensor_type), np.float32) for t in reader.tensors}
    for name, rows in tensors.items():
        if "attn_q." in name or "attn_k." in name:
            tensors[name] = halved(rows, shape.heads if "attn_q." in name else shape.kv_heads)
    return shape, tensors


def shallower(
    shape: Shape, tensors: Mapping[str, np.ndarray[Any, Any]], layers: Sequence[int]
) -> tuple[Shape, dict[str, np.ndarray[Any, Any]]]:
    """Shape and tensors of the model that has only these layers of the other, numbered anew in their order."""
    at = {f"blk.{old}": f"blk.{new}" for new, old in enumerate(layers)}
    found = {}
    for name, rows in tensors.items():
        head, dot, rest = name.partition(".weight")[0].rpartition(".")
        if not head.startswith("blk."):
            found[name] = rows
        elif head in at:
            found[f"{at[head]}{dot}{rest}.weight"] = rows
    return replace(shape, layers=len(layers)), found


def compute_for(device: torch.device) -> torch.dtype:
    """What products run in: half width where the hardware has it, which a CPU without it is several times slower at."""
    quick = device.type == "cuda" or (
        torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    return torch.bfloat16 if quick else torch.float32


def halved(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of q or k from llama.cpp's order (pairs) to Hugging Face's (halves): the inverse of `peft.permuted`."""
    size = rows.shape[0] // heads
    return np.ascontiguousarray(rows.reshape(heads, size // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape))


class _Merged(torch.autograd.Function):
    """x·Wᵀ with W = W₀ + scale·B·A merged beforehand; gradients go to x, A and B through narrow products only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, merged: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, merged, a, b)
        ctx.scale = scale
        return x @ merged.t()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (dy,) = grads
        x, merged, a, b = ctx.saved_tensors
        flat_x, flat_dy = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        low = flat_x @ a.t()
        low_dy = flat_dy @ b
        da = (low_dy.t() @ flat_x).float() * ctx.scale
        db = (flat_dy.t() @ low).float() * ctx.scale
        return dy @ merged, None, da, db, None


class Adapted(nn.Module):
    """The model: frozen weights, and a pair A, B per linear layer, in float32.

    `compute`: what products run in. `quantised`: merged weights are rounded to Q4_0 on the way (gradients pass
    straight through), so that what is trained is what the coarsest rung will hold.
    """

    def __init__(self, shape: Shape, tensors: Mapping[str, np.ndarray[Any, Any]], rank: int, alpha: float,
                 compute: torch.dtype, seed: int) -> None:  # fmt: skip
        super().__init__()
        self.shape, self.rank, self.scale, self.compute = shape, rank, alpha / rank, compute
        self.quantised = False
        self.embedding = _frozen(tensors["token_embd.weight"])
        self.last_norm = _frozen(tensors["output_norm.weight"])
        self.norms = _frozen(
            np.stack([[tensors[f"blk.{i}.{k}.weight"] for k in ("attn_norm", "ffn_norm")] for i in range(shape.layers)])
        )
        self.a, self.b, self.base = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        made = torch.Generator().manual_seed(seed)
        for i in range(shape.layers):
            for group in GROUPS.values():
                for name in group:
                    weight = torch.from_numpy(np.array(tensors[f"blk.{i}.{name}.weight"]))
                    key = f"{i}_{name}"
                    self.base[key] = nn.Parameter(weight, requires_grad=False)
                    bound = math.sqrt(3.0 / weight.shape[1])
                    a = (torch.rand(rank, weight.shape[1], generator=made) * 2 - 1) * bound
                    self.a[key] = nn.Parameter(a)
                    self.b[key] = nn.Parameter(torch.zeros(weight.shape[0], rank))
        self._merged: dict[str, tuple[Tensor, ...]] = {}

    def changes(self) -> list[nn.Parameter]:
        return [*self.a.values(), *self.b.values()]

    @torch.no_grad()
    def merge(self) -> None:
        """Compute the effective weights; to be called whenever A, B or `quantised` changed."""
        for group, names in GROUPS.items():
            whole = []
            for name in names:
                change = torch.bmm(self._stacked(self.b, name), self._stacked(self.a, name))
                weight = torch.add(self._stacked(self.base, name), change, alpha=self.scale)
                whole.append(rounded_q4_0(weight) if self.quantised else weight)
            self._merged[group] = torch.cat(whole, 1).to(self.compute).unbind()

    def _stacked(self, of: nn.ParameterDict, name: str) -> Tensor:
        """What all layers have under a name: many small kernels would take longer than their arithmetic."""
        return torch.stack([of[f"{i}_{name}"] for i in range(self.shape.layers)])

    def _pairs(self, group: str) -> list[tuple[Tensor, Tensor]]:
        """By layer A stacked and B block by block, so that one product serves all layers of a group."""
        names = GROUPS[group]
        a = torch.cat([self._stacked(self.a, name) for name in names], 1)
        blocks = [
            F.pad(self._stacked(self.b, name), (self.rank * at, self.rank * (len(names) - 1 - at)))
            for at, name in enumerate(names)
        ]
        b = torch.cat(blocks, 1)
        return list(zip(a.to(self.compute).unbind(), b.to(self.compute).unbind(), strict=True))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Hidden states behind the last norm at the ends of the stems; float32, of shape (n_branches, width).

        All tokens go through the linear layers as one list, the prefix first; attention sees the trees side by side.
        """
        s = self.shape
        prefix, trees = inputs["prefix"], inputs["tokens"]
        before, (rows, length) = len(prefix), trees.shape
        x = F.embedding(torch.cat([prefix, trees.reshape(-1)]), self.embedding).to(self.compute)  # (n_tokens, width)
        position = torch.cat([torch.arange(before, device=prefix.device), inputs["position"].reshape(-1)])
        cos, sin = rotation(position, s, self.compute)
        mask = tree_mask(inputs["branch"], before).to(self.compute)
        pairs = {group: self._pairs(group) for group in GROUPS}

        def linear(x: Tensor, i: int, group: str) -> Tensor:
            return _Merged.apply(x, self._merged[group][i], *pairs[group][i], self.scale)  # type: ignore[no-any-return]

        for i in range(s.layers):
            qkv = linear(normed(x, self.norms[i, 0], s.epsilon), i, "qkv")
            seen = attended(turned(qkv, cos, sin, s.heads, s.kv_heads, s.head), before, rows, length, mask, s)
            x = x + linear(seen, i, "out")
            both = linear(normed(x, self.norms[i, 1], s.epsilon), i, "gate_up")
            x = x + linear(gated(both), i, "down")
        ends = inputs["ends"]
        return normed(x[before + ends[:, 0] * length + ends[:, 1]].float(), self.last_norm, s.epsilon)

    def logits(self, hidden: Tensor, candidates: Tensor) -> Tensor:
        """Logits of the candidate tokens, -inf where padded; float32, of shape (n_branches, most values)."""
        rows = self.embedding[candidates.clamp(min=0)]  # (n_branches, values, width)
        found = torch.einsum("nw,nvw->nv", hidden, rows)
        return found.masked_fill(candidates < 0, float("-inf"))


def _frozen(array: np.ndarray[Any, Any]) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.array(array)), requires_grad=False)


def normed(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon) * weight).to(x.dtype)


def gated(both: Tensor) -> Tensor:
    gate, up = both.chunk(2, dim=-1)
    return F.silu(gate.float()).to(both.dtype) * up


def rotation(position: Tensor, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines of shape (n_tokens, 1, head/2)."""
    half = torch.arange(0, shape.head, 2, device=position.device, dtype=torch.float32) / shape.head
    angle = position.float()[:, None, None] * shape.base**-half
    return angle.cos().to(dtype), angle.sin().to(dtype)


def turned(qkv: Tensor, cos: Tensor, sin: Tensor, heads: int, kv_heads: int, head: int) -> Tensor:
    """q, k and v of shape (n_tokens, heads + 2·kv_heads, head), of which q and k are rotated."""
    apart = qkv.view(-1, heads + 2 * kv_heads, head)
    turning, still = apart[:, : heads + kv_heads], apart[:, heads + kv_heads :]
    one, two = turning.chunk(2, dim=-1)
    return torch.cat([torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1), still], dim=1)


def attended(qkv: Tensor, before: int, rows: int, length: int, mask: Tensor, s: Shape) -> Tensor:
    """Attention within the prefix, and of every tree to the prefix and to itself; shape (n_tokens, width)."""
    per = s.heads // s.kv_heads

    def apart(part: Tensor, many: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = part.view(many, tokens, -1, s.head).transpose(1, 2).split([s.heads, s.kv_heads, s.kv_heads], 1)
        return q, k, v

    q, k, v = apart(qkv[:before], 1, before)
    first = F.scaled_dot_product_attention(
        q, k.repeat_interleave(per, 1), v.repeat_interleave(per, 1), is_causal=True
    )  # fmt: skip
    tree_q, tree_k, tree_v = apart(qkv[before:], rows, length)
    all_k = torch.cat([k.expand(rows, -1, -1, -1), tree_k], 2).repeat_interleave(per, 1)
    all_v = torch.cat([v.expand(rows, -1, -1, -1), tree_v], 2).repeat_interleave(per, 1)
    rest = F.scaled_dot_product_attention(tree_q, all_k, all_v, attn_mask=mask)
    return torch.cat([part.transpose(1, 2).reshape(-1, s.width) for part in (first, rest)])


def tree_mask(branch: Tensor, before: int) -> Tensor:
    """0 where a token of a tree may look and -inf where not: the prefix, its own text, its own stem; never ahead.

    float32 of shape (n_trees, 1, length, before + length).
    """
    rows, length = branch.shape
    order = torch.arange(length, device=branch.device)
    same = branch[:, None, :] == branch[:, :, None]
    seen = (order[:, None] >= order[None, :]) & ((branch[:, None, :] == 0) | same) & (branch[:, None, :] >= 0)
    seen = torch.cat([torch.ones(rows, length, before, dtype=torch.bool, device=branch.device), seen], 2)
    return torch.zeros(seen.shape, device=branch.device).masked_fill(~seen, float("-inf"))[:, None]


def rounded_q4_0(weight: Tensor) -> Tensor:
    """Weights as llama.cpp's Q4_0 would hold them: blocks of 32, scale max/-8 in half precision."""
    blocks = weight.reshape(-1, 32)
    at = blocks.abs().argmax(1, keepdim=True)
    scale = blocks.gather(1, at) / -8
    inverse = torch.where(scale == 0, 0.0, 1 / scale)
    steps = (blocks * inverse + 8.5).floor().clamp(0, 15) - 8
    return (steps * scale.half().float()).reshape(weight.shape)


def loss_of(logits: Tensor, right: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of -log of the probability, among the candidates, that the answer is one of the right ones."""
    all_of = torch.logsumexp(logits, 1)
    right_ones = torch.logsumexp(logits.masked_fill(~right, float("-inf")), 1)
    return ((all_of - right_ones) * weight).sum() / weight.sum()


def tensors_of(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    names = ("prefix", "tokens", "position", "branch", "ends", "candidates", "right", "weight")
    return {name: torch.from_numpy(getattr(batch, name)).to(device) for name in names}
