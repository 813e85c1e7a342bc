"""The heads of the channel reader: one attention per channel and field over token states, then linear maps.

Each channel looks for its own words in the text, so that what opens it is found in one sentence among many, and the
place that it looks at is the span. A channel's state is read from the same place. Training and reading share this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STATE_WIDTH = 96
"""Width of the hidden layer that the four states are read through."""
LORA_SCALE = 2.0


@dataclass(frozen=True)
class Read:
    """What the heads say of a batch of n texts, T tokens each, as tensors; c channels.

    `named`: logits that the text speaks of a channel in whatever state, (n, c); `states`: logits of each state where it
    does, (n, c, 4); `fields`: by field the logits of its values, (n, values); `looked`: where each channel looked, the
    weights of the tokens, (n, T, c).
    """

    named: Any
    states: Any
    fields: dict[str, Any]
    looked: Any


def shapes(width: int, channels: int, fields: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, ...]]:
    """The heads' tensors by name, with their shapes, for an encoder of `width`."""
    found: dict[str, tuple[int, ...]] = {
        "query": (channels + len(fields), width),
        "named.weight": (channels, width),
        "named.bias": (channels,),
        "state.down": (STATE_WIDTH, width),
        "state.own": (channels, STATE_WIDTH),
        "state.up": (4, STATE_WIDTH),
        "state.bias": (channels, 4),
    }
    for field, values in fields.items():
        found |= {f"{field}.weight": (len(values), width), f"{field}.bias": (len(values),)}
    return found


def read(hidden: Any, mask: Any, heads: Mapping[str, Any], fields: Sequence[str], dropout: Any = None) -> Read:
    """Tensors (n, T, d) and (n, T) of an encoder, and the heads by `shapes`; `dropout` is applied in training alone."""
    import torch

    channels = heads["named.bias"].shape[0]
    scores = hidden @ heads["query"].T  # (n, T, c + fields)
    weights = scores.masked_fill(mask[..., None] == 0, torch.finfo(scores.dtype).min).softmax(1)
    found = torch.nn.functional.layer_norm(weights.transpose(1, 2) @ hidden, hidden.shape[-1:])  # (n, c + fields, d)
    found = found if dropout is None else dropout(found)
    of_channels = found[:, :channels]
    named = (of_channels * heads["named.weight"]).sum(-1) + heads["named.bias"]
    inner = torch.nn.functional.gelu(of_channels @ heads["state.down"].T + heads["state.own"])
    states = inner @ heads["state.up"].T + heads["state.bias"]
    told = {
        field: found[:, channels + at] @ heads[f"{field}.weight"].T + heads[f"{field}.bias"]
        for at, field in enumerate(fields)
    }
    return Read(named, states, told, weights[..., :channels])


def linears(layer: Any, at: int) -> dict[str, tuple[Any, str]]:
    """The linear maps of an encoder's layer that are adapted: by the name of their tensors, the module that holds each
    and its name there. Of BERT's layers and of MPNet's.
    """
    attention = layer.attention
    if hasattr(attention, "attn"):
        own = attention.attn
        inner = {"query": (own, "q"), "key": (own, "k"), "value": (own, "v"), "attention": (own, "o")}
    else:
        own = attention.self
        inner = {"query": (own, "query"), "key": (own, "key"), "value": (own, "value"),
                 "attention": (attention.output, "dense")}  # fmt: skip
    inner |= {"up": (layer.intermediate, "dense"), "down": (layer.output, "dense")}
    return {f"{at}.{name}": place for name, place in inner.items()}


def bias_of(encoder: Any, hidden: Any) -> tuple[Any, ...]:
    """What MPNet's layers ask for beside states and mask: the bias of relative positions; BERT's ask for nothing."""
    compute = getattr(encoder.encoder, "compute_position_bias", None)
    return () if compute is None else (compute(hidden),)


def through(layers: Sequence[Any], hidden: Any, mask: Any, bias: tuple[Any, ...]) -> Any:
    """States (n, T, d) after some of an encoder's layers; `mask` is 1 where a token is."""
    import torch

    unseen = (1.0 - mask.to(hidden.dtype))[:, None, None, :] * torch.finfo(torch.bfloat16).min
    for layer in layers:
        out = layer(hidden, unseen, *bias)
        hidden = out[0] if isinstance(out, tuple) else out
    return hidden
