"""How to spread a model over GPUs: tensor and pipeline parallel sizes for `vllm serve`, and why.

Tensor parallelism exchanges activations twice a layer, so it stays inside a group of GPUs joined by NVLink. Pipeline
parallelism passes them on once a stage, so it goes where the links are slower: PCIe, and the network between nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from typing import Literal

from finllm.errors import InputError

GIB = 1 << 30
USABLE = 0.9
"""Share of a GPU's memory that vLLM takes by default (`--gpu-memory-utilization`)."""
WORKSPACE = 3 * GIB // 2
"""Set aside on each GPU for activations, CUDA graphs and communication buffers, bytes: a rule of thumb."""


@dataclass(frozen=True)
class ModelShape:
    """A decoder. `parameters` counts all, embeddings included; `bytes_per_parameter` is 2 for BF16, 0.5 for 4 bits."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    parameters: int
    bytes_per_parameter: float
    kv_bytes: float = 2.0

    @property
    def kv_per_token(self) -> float:
        """Bytes of KV cache that one token takes in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.kv_bytes


@dataclass(frozen=True)
class Gpu:
    """`memory` in bytes; `node` is the machine that it is in."""

    id: str
    node: str
    memory: int


@dataclass(frozen=True)
class Link:
    """What joins two GPUs of one node. Pairs without a link are joined by PCIe, those of two nodes by the network."""

    one: str
    other: str
    kind: Literal["nvlink", "pcie"] = "nvlink"


@dataclass(frozen=True)
class Sharding:
    """The advice. `stages` holds the GPU ids of each pipeline stage, all of one length; byte counts are per GPU.

    `kv_tokens`: tokens of KV cache that fit beside the weights. `copies`: how often the same could be served side by
    side on the GPUs given, this one included. `why` holds one sentence per decision.
    """

    tensor: int
    pipeline: int
    stages: tuple[tuple[str, ...], ...]
    weight_bytes: int
    kv_tokens: int
    copies: int
    why: tuple[str, ...]

    @property
    def flags(self) -> str:
        """As `vllm serve` takes it."""
        return f"--tensor-parallel-size {self.tensor} --pipeline-parallel-size {self.pipeline}"


def advise(model: ModelShape, gpus: Sequence[Gpu], links: Sequence[Link], *, kv_tokens: int) -> Sharding:
    """Propose how to hold the weights and `kv_tokens` tokens of KV cache (context times sequences).

    Of the spreads that fit on at most twice the fewest GPUs that would do: the one with the fewest stages, since each
    adds latency and idles while it waits; then the one on the fewest GPUs. Errors: InputError where no spread fits,
    saying how far off the nearest is.
    """
    domains = nvlink_domains(gpus, links)
    sizes = _sizes(model, gpus, domains)
    groups = {(t, p): _groups(domains, t, _need(model, t, p, kv_tokens)) for t, p in sizes}
    fitting = [(tensor, pipeline) for tensor, pipeline in sizes if len(groups[tensor, pipeline]) >= pipeline]
    if not fitting:
        raise _too_small(model, gpus, sizes, kv_tokens)
    fewest = min(tensor * pipeline for tensor, pipeline in fitting)
    frugal = [(tensor, pipeline) for tensor, pipeline in fitting if tensor * pipeline <= 2 * fewest]
    tensor, pipeline = min(frugal, key=lambda pair: (pair[1], pair[0]))
    stages = _together(groups[tensor, pipeline], pipeline)
    weights = _weights(model, tensor, pipeline)
    room = min(_usable(gpu) for stage in stages for gpu in stage) - weights
    return Sharding(
        tensor=tensor,
        pipeline=pipeline,
        stages=tuple(tuple(gpu.id for gpu in stage) for stage in stages),
        weight_bytes=weights,
        kv_tokens=int(room // _kv_per_token(model, tensor, pipeline)),
        copies=len(groups[tensor, pipeline]) // pipeline,
        why=_why(model, tensor, pipeline, stages, domains, kv_tokens),
    )


def nvlink_domains(gpus: Sequence[Gpu], links: Sequence[Link]) -> tuple[tuple[Gpu, ...], ...]:
    """GPUs of one node that NVLink joins, largest memory first; one without such a link stands alone.

    Errors: InputError for a GPU named twice, or a link to one that is not there or in another node.
    """
    by_id = {gpu.id: gpu for gpu in gpus}
    if len(by_id) != len(gpus):
        raise InputError("two GPUs have the same id", fix="give each GPU an id of its own")
    root = {id: id for id in by_id}

    def find(id: str) -> str:
        while root[id] != id:
            id = root[id]
        return id

    for link in links:
        if link.one not in by_id or link.other not in by_id or by_id[link.one].node != by_id[link.other].node:
            raise InputError(
                f"a link joins {link.one!r} and {link.other!r}, which are not two GPUs of one node", fix="correct it"
            )
        if link.kind == "nvlink":
            root[find(link.one)] = find(link.other)
    members: dict[str, list[Gpu]] = {}
    for gpu in gpus:
        members.setdefault(find(gpu.id), []).append(gpu)
    return tuple(tuple(sorted(domain, key=lambda gpu: (-gpu.memory, gpu.id))) for domain in members.values())


def _sizes(model: ModelShape, gpus: Sequence[Gpu], domains: Sequence[Sequence[Gpu]]) -> list[tuple[int, int]]:
    """Tensor and pipeline sizes worth trying."""
    widest = max((len(domain) for domain in domains), default=0)
    tensors = [size for size in range(1, widest + 1) if _divides(model, size)]
    return [(t, p) for t in tensors for p in range(1, min(model.layers, len(gpus) // t) + 1)]


def _divides(model: ModelShape, tensor: int) -> bool:
    """vLLM splits by heads; key and value heads fewer than GPUs are repeated on them."""
    shared = model.kv_heads % tensor == 0 or tensor % model.kv_heads == 0
    return model.heads % tensor == 0 and shared


def _weights(model: ModelShape, tensor: int, pipeline: int) -> int:
    """Bytes of weights on a GPU of the fullest stage, which holds the embeddings beside its layers."""
    embeddings = min(model.vocabulary * model.hidden, model.parameters)
    per_layer = (model.parameters - embeddings) / model.layers
    return ceil((per_layer * ceil(model.layers / pipeline) + embeddings) * model.bytes_per_parameter / tensor)


def _kv_per_token(model: ModelShape, tensor: int, pipeline: int) -> float:
    """Bytes of KV cache that a token takes on a GPU of the longest stage."""
    return model.kv_per_token * (ceil(model.layers / pipeline) / model.layers) / min(tensor, model.kv_heads)


def _need(model: ModelShape, tensor: int, pipeline: int, kv_tokens: int) -> int:
    return _weights(model, tensor, pipeline) + ceil(_kv_per_token(model, tensor, pipeline) * kv_tokens)


def _usable(gpu: Gpu) -> int:
    return int(gpu.memory * USABLE) - WORKSPACE


def _groups(domains: Sequence[Sequence[Gpu]], tensor: int, need: int) -> list[tuple[Gpu, ...]]:
    """Disjoint groups of `tensor` GPUs, each inside one domain, that have the memory."""
    groups: list[tuple[Gpu, ...]] = []
    for domain in domains:
        fitting = [gpu for gpu in domain if _usable(gpu) >= need]
        groups += [tuple(fitting[at : at + tensor]) for at in range(0, len(fitting) - tensor + 1, tensor)]
    return groups


def _together(groups: Sequence[tuple[Gpu, ...]], count: int) -> list[tuple[Gpu, ...]]:
    """`count` of the groups, on as few nodes as possible and node by node."""
    nodes = [list(members) for _, members in groupby(sorted(groups, key=_node), key=_node)]
    enough = [node for node in nodes if len(node) >= count]
    if enough:
        return min(enough, key=len)[:count]
    nodes.sort(key=len, reverse=True)
    return [group for node in nodes for group in node][:count]


def _node(group: Sequence[Gpu]) -> str:
    return group[0].node


def _why(
    model: ModelShape,
    tensor: int,
    pipeline: int,
    stages: Sequence[Sequence[Gpu]],
    domains: Sequence[Sequence[Gpu]],
    kv_tokens: int,
) -> tuple[str, ...]:
    whole = model.parameters * model.bytes_per_parameter
    cache = model.kv_per_token * kv_tokens
    why = [f"the weights take {_gib(whole)} and {kv_tokens} tokens of KV cache {_gib(cache)}"]
    if tensor * pipeline == 1:
        return (*why, f"GPU {stages[0][0].id!r} holds both: nothing has to be exchanged")
    if tensor > 1:
        domain = next(len(domain) for domain in domains if stages[0][0] in domain)
        why.append(
            f"tensor parallel {tensor}: it divides the {model.heads} heads and stays inside NVLink, "
            f"which joins {domain} GPUs there"
        )
        if tensor > model.kv_heads:
            why.append(f"each of the {model.kv_heads} key and value heads is kept {tensor // model.kv_heads} times")
    else:
        why.append("tensor parallel 1: no group inside NVLink whose size divides the heads would do better")
    if pipeline > 1:
        nodes = len({_node(stage) for stage in stages})
        where = f"across {nodes} nodes" if nodes > 1 else "inside one node"
        why.append(f"pipeline parallel {pipeline} {where}: with fewer stages it does not fit, and a stage sends little")
    return tuple(why)


def _too_small(model: ModelShape, gpus: Sequence[Gpu], sizes: Sequence[tuple[int, int]], kv_tokens: int) -> InputError:
    if not gpus:
        return InputError("there is no GPU to spread the model over", fix="name at least one GPU")
    tensor, pipeline = min(sizes, key=lambda pair: _need(model, *pair, kv_tokens))
    need, best = _need(model, tensor, pipeline, kv_tokens), max(_usable(gpu) for gpu in gpus)
    return InputError(
        f"the model does not fit: spread over {tensor * pipeline} GPUs each needs {_gib(need)}, "
        f"and the largest offers {_gib(best)}",
        fix="add GPUs, quantise the weights, or ask for fewer tokens of KV cache",
    )


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
