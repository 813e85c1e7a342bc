"""The trainer's model: its token trees are separate passes, and its merged weights are what the engine runs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finllm.agents.agent import prompt_version
from finllm.agents.roles import judgement_fields
from finllm.files import sha256_of_file
from finllm.models.cards import SHIPPED, AdapterCard, adapter_for
from finllm.models.ladder import PRUNED, ensure_rung
from finllm.models.lora import layers_of, open_gguf
from finllm.models.source import embedded_source
from finllm.settings import Settings
from training import forward
from training.corpus.build import Corpus
from training.data import Data
from training.items import TRAINED, Question, question
from training.model import Adapted, Shape, halved, rounded_q4_0, tensors_of
from training.packing import Branch, Tree, pack, pooled
from training.score import answers
from training.vocabulary import vocabulary_of

SHAPE = Shape(2, 64, 4, 2, 16, 10000.0, 1e-5)
WORDS = 97


def random_weights(seed: int = 0, shape: Shape = SHAPE) -> dict[str, Any]:
    """Tensors of a small Llama as `read_weights` gives them."""
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Any:
        return (rng.standard_normal((rows, columns)) / columns**0.5).astype(np.float32)

    kv, inner = shape.kv_heads * shape.head, 96
    found = {
        "token_embd.weight": matrix(WORDS, shape.width) * 8,
        "output_norm.weight": np.ones(shape.width, np.float32),
    }
    for i in range(shape.layers):
        for name, rows, columns in (
            ("attn_q", shape.width, shape.width), ("attn_k", kv, shape.width), ("attn_v", kv, shape.width),
            ("attn_output", shape.width, shape.width), ("ffn_gate", inner, shape.width),
            ("ffn_up", inner, shape.width), ("ffn_down", shape.width, inner),
        ):  # fmt: skip
            found[f"blk.{i}.{name}.weight"] = matrix(rows, columns)
        for name in ("attn_norm", "ffn_norm"):
            found[f"blk.{i}.{name}.weight"] = np.ones(shape.width, np.float32)
    return found


def random_tree(rng: random.Random, item: str, shared: tuple[int, ...] = (3, 5, 7)) -> Tree:
    def some(least: int, most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(WORDS) for _ in range(rng.randint(least, most)))

    branches = []
    for at in range(rng.randint(1, 3)):
        candidates = tuple(rng.sample(range(WORDS), 3))
        branches.append(Branch(f"field{at}", some(1, 4), candidates, (True, False, False), 1.0))
    return Tree("role", item, shared + some(2, 9), tuple(branches))


@torch.no_grad()
def logits_by_branch(
    model: Adapted, trees: list[Tree], tokens: int = 4096
) -> dict[tuple[str, str], np.ndarray[Any, Any]]:
    found = {}
    for batch in pack(trees, tokens, None):
        inputs = tensors_of(batch, torch.device("cpu"))
        rows = model.logits(model(inputs), inputs["candidates"]).numpy()
        for (tree, branch), row in zip(batch.key, rows, strict=True):
            found[trees[tree].item, trees[tree].branches[branch].field] = row[
                : len(trees[tree].branches[branch].candidates)
            ]
    return found


def alone(trees: list[Tree]) -> list[Tree]:
    """Every stem as a tree of its own, so that nothing but its own text and stem is before it."""
    return [Tree(tree.role, tree.item, tree.tokens, (branch,)) for tree in trees for branch in tree.branches]


def assert_stems_do_not_see_one_another(model: Adapted, trees: list[Tree], tolerance: float) -> None:
    together = logits_by_branch(model, trees)
    for tree in alone(trees):
        apart = logits_by_branch(model, [tree])
        for key, row in apart.items():
            np.testing.assert_allclose(together[key], row, atol=tolerance)


def small_model(seed: int = 0) -> Adapted:
    model = Adapted(SHAPE, random_weights(), 4, 8.0, torch.float32, seed)
    model.merge()
    return model


def test_a_tree_of_stems_is_as_many_separate_passes() -> None:
    rng = random.Random(5)
    assert_stems_do_not_see_one_another(small_model(), [random_tree(rng, str(at)) for at in range(7)], 1e-4)


def test_gradients_reach_every_change_and_are_those_of_the_plain_product() -> None:
    rng = random.Random(6)
    model = small_model()
    with torch.no_grad():
        for b in model.b.values():
            b.copy_(torch.randn(b.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    (batch,) = pack([random_tree(rng, str(at)) for at in range(4)], 4096, None)
    inputs = tensors_of(batch, torch.device("cpu"))

    def loss() -> torch.Tensor:
        model.merge()
        return model.logits(model(inputs), inputs["candidates"]).square().mean()

    loss().backward()
    for key, at in (("0_attn_q", (1, 3)), ("1_attn_v", (2, 5)), ("1_ffn_down", (0, 7)), ("0_ffn_up", (3, 1))):
        for half in (model.a, model.b):
            place = at if half is model.a else at[::-1]
            with torch.no_grad():
                half[key][place] += 1e-2
                above = loss()
                half[key][place] -= 2e-2
                below = loss()
                half[key][place] += 1e-2
            grad = half[key].grad
            assert grad is not None
            assert float(grad[place]) == pytest.approx(float(above - below) / 2e-2, rel=0.05, abs=2e-4), key


def test_rounding_is_llama_cpps_own() -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    weight = np.random.default_rng(2).standard_normal((8, 64)).astype(np.float32)
    theirs = dequantize(quantize(weight, GGMLQuantizationType.Q4_0), GGMLQuantizationType.Q4_0)
    np.testing.assert_allclose(rounded_q4_0(torch.from_numpy(weight)).numpy(), theirs, atol=1e-6)


def test_rows_of_q_and_k_go_to_halves_and_back() -> None:
    from finllm.models.peft import permuted_rows

    rows = np.arange(48, dtype=np.float32).reshape(16, 3)
    np.testing.assert_array_equal(permuted_rows(halved(rows, 2), 2), rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return Data(Settings(home=tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module", params=["F16", PRUNED])
def adapted_rung(shared_home: Settings, request: pytest.FixtureRequest) -> Path:
    settings = shared_home
    source = embedded_source(settings)
    adapter, card = adapter_for(source, settings, request.param)
    assert adapter is not None
    assert card is not None
    assert (adapter.layers is None) == (request.param != PRUNED)
    return ensure_rung(source, request.param, settings, adapter=adapter).path


@pytest.fixture(scope="module")
def adapted_model(adapted_rung: Path) -> Adapted:
    return forward.model_of(adapted_rung, torch.device("cpu"))


def few(corpus: Corpus) -> list[Question]:
    """A short one of each task."""
    found: dict[str, Question] = {}
    for item in corpus.items["validation"]:
        q = question(item)
        if item.task not in found or len(q.prompt.user) < len(found[item.task].prompt.user):
            found[item.task] = q
    return list(found.values())


@pytest.mark.parametrize("adapted_rung", [PRUNED], indirect=True)
def test_stems_do_not_see_one_another_on_the_real_weights(adapted_model: Adapted, corpus: Corpus, data: Data) -> None:
    several = [question(i) for i in corpus.items["validation"] if i.task == "reading" and len(question(i).labels) >= 4]
    trees = data.trees(sorted(several, key=lambda q: len(q.prompt.user))[:2])
    assert_stems_do_not_see_one_another(adapted_model, trees, 0.02)


def test_the_engine_answers_as_the_trainer_does(
    adapted_rung: Path, adapted_model: Adapted, corpus: Corpus, data: Data
) -> None:
    asked = few(corpus)
    within = 0.1 if adapted_rung.stem == PRUNED else 0.04  # at Q4_0 llama.cpp rounds activations to eight bits
    ours = {(a.item, a.field): a for a in forward.answers_of(asked, forward.logits_of(adapted_model, data, asked))}
    theirs = answers(adapted_rung, asked)
    assert theirs is not None
    assert len(theirs) == len(ours)
    for answer in theirs:
        other = ours[answer.item, answer.field]
        for value, score in answer.scores.items():
            assert np.exp(score) == pytest.approx(np.exp(other.scores[value]), abs=within), (answer.name, value)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.json")), ids=lambda path: path.stem)
def test_a_shipped_card_is_of_its_file_and_of_the_prompts_as_they_are(path: Path, data: Data) -> None:
    card, weights = AdapterCard.model_validate_json(path.read_text(encoding="utf-8")), path.with_suffix(".gguf")
    assert card.adapter_sha256 == sha256_of_file(weights)
    assert card.layers == layers_of(open_gguf(weights))
    assert card.base_sha256 == data.source.sha256
    assert weights.stat().st_size <= 10_000_000
    assert card.prompts == {agent.role: prompt_version(agent) for agent in TRAINED}
    for name, of in card.calibration.items():
        assert set(of.bias) <= set(judgement_fields()[name]), name
        assert (max(of.bias.values()) - min(of.bias.values())) * of.temperature < 3.92, name


def test_labels_are_values_of_the_templates_and_begin_differently(corpus: Corpus, data: Data) -> None:
    """The trainer scores a value by its first token."""
    cut = vocabulary_of(data.weights).tokenize
    seen = set()
    for split in ("train", "validation", "test"):
        for item in corpus.items[split]:  # type: ignore[index]
            q = question(item)
            for asked in q.asked():
                assert set(asked.right) <= set(asked.values), (q.item, asked.field)
                seen.add((f"{q.agent.role}.{pooled(asked.field)}", asked.values))
    for name, values in seen:
        assert len({cut(value)[0] for value in values}) == len(values), name
