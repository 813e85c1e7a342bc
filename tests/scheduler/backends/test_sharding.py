"""Sharding advice: sizes that fit, heads that divide, tensor parallelism inside NVLink and pipelines across."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.errors import InputError
from finllm.scheduler.backends.sharding import (
    GIB,
    USABLE,
    WORKSPACE,
    Gpu,
    Link,
    ModelShape,
    Sharding,
    advise,
    nvlink_domains,
)

LLAMA_8B = ModelShape(32, 32, 8, 128, 4096, 128_256, 8_030_000_000, 2)
LLAMA_70B = ModelShape(80, 64, 8, 128, 8192, 128_256, 70_600_000_000, 2)
QWEN_05B = ModelShape(24, 14, 2, 64, 896, 151_936, 494_000_000, 2)
LLAMA_405B = ModelShape(126, 128, 8, 128, 16_384, 128_256, 405_900_000_000, 2)


def node(name: str, count: int, gib: int) -> list[Gpu]:
    return [Gpu(f"{name}{number}", name, gib * GIB) for number in range(count)]


def joined(gpus: list[Gpu]) -> list[Link]:
    return [Link(one.id, other.id) for one, other in combinations(gpus, 2)]


def test_a_model_that_fits_on_one_gpu_is_not_spread_however_many_there_are() -> None:
    gpus = node("a", 8, 80)
    advice = advise(LLAMA_8B, gpus, joined(gpus), kv_tokens=100_000)
    assert (advice.tensor, advice.pipeline, advice.copies) == (1, 1, 8)
    assert "holds both" in advice.why[-1]


def test_seventy_billion_parameters_go_over_four_nvlinked_gpus() -> None:
    gpus = node("a", 8, 80)
    advice = advise(LLAMA_70B, gpus, joined(gpus), kv_tokens=100_000)
    assert (advice.tensor, advice.pipeline, advice.copies) == (4, 1, 2)
    assert advice.flags == "--tensor-parallel-size 4 --pipeline-parallel-size 1"
    assert any("NVLink" in reason for reason in advice.why)


def test_without_nvlink_the_layers_are_split_and_not_the_heads() -> None:
    gpus = node("a", 4, 48)
    advice = advise(LLAMA_70B, gpus, [Link("a0", "a1", "pcie")], kv_tokens=8_000)
    assert (advice.tensor, advice.pipeline) == (1, 4)
    assert any("inside one node" in reason for reason in advice.why)


def test_between_nodes_runs_the_pipeline_and_inside_each_the_tensors() -> None:
    gpus = [*node("a", 8, 80), *node("b", 8, 80)]
    advice = advise(LLAMA_405B, gpus, [*joined(gpus[:8]), *joined(gpus[8:])], kv_tokens=30_000)
    assert (advice.tensor, advice.pipeline) == (8, 2)
    assert [{id[0] for id in stage} for stage in advice.stages] == [{"a"}, {"b"}]
    assert any("across 2 nodes" in reason for reason in advice.why)


def test_heads_that_four_does_not_divide_are_split_in_two() -> None:
    gpus = node("a", 4, 4)
    advice = advise(QWEN_05B, gpus, joined(gpus), kv_tokens=150_000)
    assert (advice.tensor, advice.pipeline) == (2, 1)


def test_more_gpus_than_key_heads_repeat_these_and_the_advice_says_so() -> None:
    shape = ModelShape(32, 32, 2, 128, 4096, 32_000, 28_000_000_000, 2)
    gpus = node("a", 4, 24)
    advice = advise(shape, gpus, joined(gpus), kv_tokens=1_000)
    assert advice.tensor == 4
    assert any("kept 2 times" in reason for reason in advice.why)


def test_a_pair_bridge_bounds_the_tensor_size() -> None:
    gpus = node("a", 4, 48)
    advice = advise(LLAMA_70B, gpus, [Link("a0", "a1"), Link("a2", "a3")], kv_tokens=8_000)
    assert (advice.tensor, advice.pipeline) == (2, 2)
    assert [set(stage) for stage in advice.stages] == [{"a0", "a1"}, {"a2", "a3"}]


def test_what_fits_nowhere_says_how_far_off_it_is_and_what_would_mend_it() -> None:
    gpus = node("a", 2, 24)
    with pytest.raises(InputError, match=r"over 2 GPUs each needs \d+\.\d GiB, and the largest offers 20\.1 GiB; add"):
        advise(LLAMA_70B, gpus, joined(gpus), kv_tokens=8_000)


@pytest.mark.parametrize(
    ("gpus", "links", "complaint"),
    [
        ([], [], "no GPU"),
        (node("a", 1, 80) * 2, [], "same id"),
        (node("a", 1, 80), [Link("a0", "a7")], "'a7'"),
        ([*node("a", 1, 80), *node("b", 1, 80)], [Link("a0", "b0")], "one node"),
    ],
)
def test_a_description_that_cannot_be_is_refused(gpus: list[Gpu], links: list[Link], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        advise(LLAMA_8B, gpus, links, kv_tokens=1)


SHAPES = st.builds(
    lambda layers, groups, kv_heads, head_dim, vocabulary, size, width: ModelShape(
        layers, kv_heads * groups, kv_heads, head_dim, kv_heads * groups * head_dim, vocabulary,
        vocabulary * kv_heads * groups * head_dim + layers * size, width,
    ),
    st.integers(1, 126), st.integers(1, 8), st.integers(1, 16), st.sampled_from([64, 128]),
    st.integers(1000, 150_000), st.integers(10_000_000, 3_000_000_000), st.sampled_from([0.5, 1.0, 2.0]),
)  # fmt: skip


@st.composite
def clusters(draw: st.DrawFn) -> tuple[list[Gpu], list[Link]]:
    gpus: list[Gpu] = []
    for name in draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True)):
        sizes = draw(st.lists(st.sampled_from([16, 24, 48, 80, 141]), min_size=1, max_size=8))
        gpus += [Gpu(f"{name}{at}", name, gib * GIB) for at, gib in enumerate(sizes)]
    pairs = [(one, other) for one, other in combinations(gpus, 2) if one.node == other.node]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=12)) if pairs else []
    return gpus, [Link(one.id, other.id, draw(st.sampled_from(["nvlink", "pcie"]))) for one, other in chosen]


@given(SHAPES, clusters(), st.integers(0, 500_000))
def test_every_advice_divides_the_heads_fits_and_keeps_tensors_inside_nvlink(
    model: ModelShape, cluster: tuple[list[Gpu], list[Link]], kv_tokens: int
) -> None:
    gpus, links = cluster
    try:
        advice = advise(model, gpus, links, kv_tokens=kv_tokens)
    except InputError:
        return
    by_id = {gpu.id: gpu for gpu in gpus}
    used = [id for stage in advice.stages for id in stage]
    domains = [{gpu.id for gpu in domain} for domain in nvlink_domains(gpus, links)]
    assert model.heads % advice.tensor == 0
    assert model.kv_heads % advice.tensor == 0 or advice.tensor % model.kv_heads == 0
    assert len(advice.stages) == advice.pipeline <= model.layers
    assert len(used) == len(set(used)) == advice.tensor * advice.pipeline <= len(gpus)
    assert all(
        len(stage) == advice.tensor and any(set(stage) <= domain for domain in domains) for stage in advice.stages
    )
    assert advice.kv_tokens >= kv_tokens
    assert advice.copies * len(used) <= len(gpus)
    assert sum(_held(advice, model, by_id[id]) for id in used) >= 0
    assert advice.weight_bytes * len(used) >= model.parameters * model.bytes_per_parameter * 0.999
    assert advice.why


def _held(advice: Sharding, model: ModelShape, gpu: Gpu) -> float:
    """Bytes left on a GPU beside its weights; a failed assertion where there are none."""
    left = gpu.memory * USABLE - WORKSPACE - advice.weight_bytes
    assert left >= -1, (model, gpu)
    return left


@given(SHAPES, clusters(), st.integers(0, 100_000), st.randoms(use_true_random=False))
def test_the_order_in_which_gpus_are_named_changes_no_size(
    model: ModelShape, cluster: tuple[list[Gpu], list[Link]], kv_tokens: int, shuffle: Random
) -> None:
    gpus, links = cluster
    try:
        before = advise(model, gpus, links, kv_tokens=kv_tokens)
    except InputError:
        return
    shuffle.shuffle(gpus)
    after = advise(model, gpus, links, kv_tokens=kv_tokens)
    assert (after.tensor, after.pipeline, after.copies) == (before.tensor, before.pipeline, before.copies)
