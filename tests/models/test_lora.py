"""A LoRA in Hugging Face's layout acts alike in three places: transformers, llama.cpp's hot swap, and our merge."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from finllm.errors import InputError
from finllm.models import llama_log, peft
from finllm.models.ladder import derived_rungs, ensure_rung
from finllm.models.lora import ADAPTER_KEY, Adapter, open_adapter, open_gguf, read_changes, value_of
from finllm.models.peft import convert_peft, permuted_rows
from finllm.models.registry import ModelSource
from finllm.settings import Settings

RANK, ALPHA = 4, 8.0
TOKENS = [1, 4093, 198, 5736, 28, 1343, 260, 11723, 282, 905, 13, 2, 1, 520, 9531, 198]
SHAPES = {
    "self_attn.q_proj": (576, 576),
    "self_attn.k_proj": (192, 576),
    "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576),
    "mlp.gate_proj": (1536, 576),
    "mlp.up_proj": (1536, 576),
    "mlp.down_proj": (576, 1536),
}
LAYERS = (0, 14, 29)
Logits = npt.NDArray[np.float32]


def pairs() -> dict[str, tuple[Logits, Logits]]:
    """Random A and B by module in Hugging Face's layout, large enough to change every logit."""
    draw = np.random.default_rng(7)
    made: dict[str, tuple[Logits, Logits]] = {}
    for layer in LAYERS:
        for name, (rows, columns) in SHAPES.items():
            a = draw.normal(0, 0.15, (RANK, columns)).astype(np.float32)
            b = draw.normal(0, 0.15, (rows, RANK)).astype(np.float32)
            made[f"model.layers.{layer}.{name}"] = (a, b)
    return made


def write_peft(folder: Path, made: dict[str, tuple[Logits, Logits]], **config: Any) -> Path:
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for module, (a, b) in made.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.from_numpy(a)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.from_numpy(b)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none"} | config
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def by_transformers(source: Path, made: dict[str, tuple[Logits, Logits]]) -> tuple[Logits, Logits]:
    """Logits after the last token without and with the adapter, from weights put back into Hugging Face's layout."""
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.initialization import no_init_weights

    reader = GGUFReader(source)

    def meta(key: str) -> Any:
        return value_of(reader, f"llama.{key}")

    heads, kv_heads = meta("attention.head_count"), meta("attention.head_count_kv")
    config = LlamaConfig(
        hidden_size=meta("embedding_length"), intermediate_size=meta("feed_forward_length"),
        num_hidden_layers=meta("block_count"), num_attention_heads=heads, num_key_value_heads=kv_heads,
        rms_norm_eps=meta("attention.layer_norm_rms_epsilon"), vocab_size=49152, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": meta("rope.freq_base")},
    )  # fmt: skip
    theirs = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
              "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
              "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
              "ffn_norm": "post_attention_layernorm"}  # fmt: skip
    state: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        array = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if tensor.name.startswith("blk."):
            _, layer, kind, _ = tensor.name.split(".")
            if kind in ("attn_q", "attn_k"):  # pairs of rows back into halves, head by head
                count = heads if kind == "attn_q" else kv_heads
                array = array.reshape(count, -1, 2, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
            name = f"model.layers.{layer}.{theirs[kind]}.weight"
        else:
            name = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[
                tensor.name
            ]
        state[name] = torch.from_numpy(array.copy())
    with no_init_weights():
        model = LlamaForCausalLM(config).eval()
    model.load_state_dict(state, strict=False)
    model.tie_weights()

    def logits() -> Logits:
        with torch.no_grad():
            return model(torch.tensor([TOKENS])).logits[0, -1].numpy().copy()

    plain = logits()
    with torch.no_grad():
        for module, (a, b) in made.items():
            weight: Any = model.get_submodule(module).weight
            weight += (ALPHA / RANK) * torch.from_numpy(b) @ torch.from_numpy(a)
    return plain, logits()


def by_llama(path: Path, adapter: Path | None = None) -> Logits:
    """Logits after the last token, with an adapter put on the context if one is given."""
    import llama_cpp

    llama: Any = llama_cpp
    llama_log.silence()
    params = llama.llama_model_default_params()
    params.use_extra_bufts = False
    model = llama.llama_model_load_from_file(str(path).encode(), params)
    assert model
    context_params = llama.llama_context_default_params()
    context_params.n_ctx = 256
    context = llama.llama_init_from_model(model, context_params)
    assert context
    try:
        if adapter is not None:
            loaded = llama.llama_adapter_lora_init(model, str(adapter).encode())
            assert loaded, "llama.cpp refuses the adapter"
            one = (llama.llama_adapter_lora_p_ctypes * 1)(loaded)
            assert llama.llama_set_adapters_lora(context, one, 1, (ctypes.c_float * 1)(1.0)) == 0
        array = (llama.llama_token * len(TOKENS))(*TOKENS)
        assert llama.llama_decode(context, llama.llama_batch_get_one(array, len(TOKENS))) == 0
        pointer = llama.llama_get_logits_ith(context, -1)
        return np.ctypeslib.as_array(pointer, (49152,)).copy()
    finally:
        llama.llama_free(context)
        llama.llama_model_free(model)


def apart(one: Logits, other: Logits) -> float:
    """Root mean square of the difference of two rows of logits."""
    return float(np.sqrt(np.mean((one - other) ** 2)))


@pytest.fixture(scope="module")
def peft_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_peft(tmp_path_factory.mktemp("peft"), pairs())


@pytest.fixture(scope="module")
def adapter(peft_folder: Path, embedded: ModelSource, ladder_home: Settings) -> Adapter:
    return open_adapter(convert_peft(peft_folder, embedded.path, peft_folder / "adapter.gguf"), ladder_home)


def test_transformers_hot_swap_and_merge_agree(adapter: Adapter, embedded: ModelSource, ladder_home: Settings) -> None:
    plain_rung = ensure_rung(embedded, "F16", ladder_home)
    merged_rung = ensure_rung(embedded, "F16", ladder_home, adapter=adapter)
    plain, changed = by_transformers(plain_rung.path, pairs())
    swapped, merged = by_llama(plain_rung.path, adapter.path), by_llama(merged_rung.path)
    effect = apart(plain, changed)
    assert effect > 5
    noise = 0.005 * effect
    assert apart(plain, by_llama(plain_rung.path)) < noise
    assert apart(changed, swapped) < noise
    assert apart(changed, merged) < noise
    assert apart(swapped, merged) < noise


def test_without_the_permutation_of_q_and_k_the_hot_swap_would_be_another_model(
    adapter: Adapter,
    peft_folder: Path,
    embedded: ModelSource,
    ladder_home: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peft, "permuted_rows", lambda rows, _heads: rows)
    unpermuted = convert_peft(peft_folder, embedded.path, tmp_path / "unpermuted.gguf")
    path = ensure_rung(embedded, "F16", ladder_home).path
    plain, right, wrong = by_llama(path), by_llama(path, adapter.path), by_llama(path, unpermuted)
    assert apart(right, wrong) > 0.1 * apart(plain, right)


def test_a_merged_rung_keeps_its_own_place_and_says_which_adapter_is_in_it(
    adapter: Adapter, embedded: ModelSource, ladder_home: Settings
) -> None:
    plain, merged = (ensure_rung(embedded, "F16", ladder_home, adapter=one) for one in (None, adapter))
    assert merged.path.parent == plain.path.parent / f"adapter-{adapter.sha256[:16]}"
    assert (plain.adapter_sha256, merged.adapter_sha256) == (None, adapter.sha256)
    assert merged.sha256 != plain.sha256
    assert merged.tensor_mix == plain.tensor_mix
    assert value_of(open_gguf(merged.path), ADAPTER_KEY) == adapter.sha256
    there = derived_rungs(embedded.sha256, ladder_home)
    assert plain in there
    assert merged in there
    assert not [path for path in merged.path.parent.iterdir() if path.name.endswith((".merged", ".partial"))]


def test_permuting_moves_rows_and_loses_none() -> None:
    rows = np.arange(24, dtype=np.float32).reshape(12, 2)
    assert permuted_rows(rows, 2)[:, 0].tolist() == [0, 6, 2, 8, 4, 10, 12, 18, 14, 20, 16, 22]


def test_a_rank_s_own_alpha_and_rslora_are_folded_into_b(embedded: ModelSource, tmp_path: Path) -> None:
    small = {name: pair for name, pair in pairs().items() if name.endswith(("0.mlp.up_proj", "0.mlp.down_proj"))}
    folder = write_peft(tmp_path / "p", small, use_rslora=True, alpha_pattern={"mlp.up_proj": 2.0})
    changes = read_changes(convert_peft(folder, embedded.path, tmp_path / "a.gguf"))
    for module, name, alpha in (("up", "blk.0.ffn_up.weight", 2.0), ("down", "blk.0.ffn_down.weight", ALPHA)):
        a, b = small[f"model.layers.0.mlp.{module}_proj"]
        np.testing.assert_allclose(changes[name].delta(), alpha / RANK**0.5 * b @ a, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "says"),
    [({"use_dora": True}, "use_dora=True has no GGUF form"), ({"bias": "all"}, "bias='all' has no GGUF form"),
     ({"modules_to_save": ["lm_head"]}, "modules_to_save"), ({"peft_type": "IA3"}, "describes no LoRA"),
     ({"r": "many"}, "is no PEFT LoRA adapter")],
)  # fmt: skip
def test_a_peft_adapter_that_has_no_gguf_form_is_refused(
    config: dict[str, Any], says: str, embedded: ModelSource, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        convert_peft(write_peft(tmp_path / "p", {}, **config), embedded.path, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


@pytest.mark.parametrize("module", ["model.layers.99.mlp.up_proj", "model.vision.0.fc"])
def test_a_peft_adapter_of_another_model_is_refused(module: str, embedded: ModelSource, tmp_path: Path) -> None:
    pair = next(iter(pairs().values()))
    with pytest.raises(InputError, match=f"changes '{module}'"):
        convert_peft(write_peft(tmp_path / "p", {module: pair}), embedded.path, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def gguf_adapter(path: Path, tensors: dict[str, Logits], kind: str = "adapter") -> Path:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", kind)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


A, B = np.ones((2, 8), np.float32), np.ones((8, 2), np.float32)


@pytest.mark.parametrize(
    ("tensors", "kind", "says"),
    [({"x.lora_a": A}, "adapter", "not made of pairs"), ({}, "adapter", "not made of pairs"),
     ({"x.lora_a": A, "x.lora_b": A}, "adapter", "pair has shapes"),
     ({"x.lora_a": A, "x.lora_b": B}, "model", "is no LoRA adapter")],
)  # fmt: skip
def test_a_file_that_is_no_adapter_is_refused(
    tensors: dict[str, Logits], kind: str, says: str, home: Settings, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        open_adapter(gguf_adapter(tmp_path / "a.gguf", tensors, kind), home)


def test_a_truncated_adapter_is_refused(adapter: Adapter, home: Settings, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(adapter.path.read_bytes()[:20_000])
    with pytest.raises(InputError, match="cannot be read"):
        open_adapter(cut, home)


@pytest.mark.parametrize(
    ("name", "says"),
    [("blk.0.ffn_up.weight", "changes 'blk.0.ffn_up.weight' of shape"), ("blk.0.nowhere.weight", "is not there"),
     ("token_embd.weight", "changes the embedding")],
)  # fmt: skip
def test_an_adapter_of_another_model_is_not_merged(
    name: str, says: str, home: Settings, embedded: ModelSource, tmp_path: Path
) -> None:
    path = gguf_adapter(tmp_path / "a.gguf", {f"{name}.lora_a": A, f"{name}.lora_b": B})
    with pytest.raises(InputError, match=says):
        ensure_rung(embedded, "Q4_0", home, adapter=open_adapter(path, home))
    assert not list(home.models_dir.rglob("*Q4_0.gguf"))
