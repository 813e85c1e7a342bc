"""The export for vLLM: the same tokens, the same answers, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finllm.errors import InputError
from finllm.models.hf_export import MANIFEST, Exported, export_hf
from finllm.models.ladder import ensure_rung
from finllm.models.registry import ModelSource
from finllm.scheduler.engine.native import Native, Run
from finllm.settings import Settings

TEXTS = (
    "The Strait of Hormuz is closed to tankers, and the oil price",
    "In 2008 the bank failed, and its depositors",
    "Gold, the dollar and Treasuries: in a crisis, investors",
)
SPELLINGS = (
    *TEXTS,
    "1,234.5 % — naïve café",
    "  two  spaces\n\n\tand tabs",
    "日本 🛢️ <data> [[E7]] don't",
    "<|im_end|>x",
)


@pytest.fixture(scope="module")
def exported(embedded: ModelSource, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_hf(embedded, tmp_path_factory.mktemp("export") / "hf")


@pytest.fixture(scope="module")
def engine(embedded: ModelSource, ladder_home: Settings) -> Iterator[Native]:
    loaded = Native(ensure_rung(embedded, "F16", ladder_home).path, threads=1, cells=512, sequences=1)
    yield loaded
    loaded.close()


def test_the_folder_is_what_its_manifest_says(exported: Exported, embedded: ModelSource) -> None:
    manifest = json.loads((exported.folder / MANIFEST).read_text())
    config = json.loads((exported.folder / "config.json").read_text())
    assert manifest["source_sha256"] == exported.source_sha256 == embedded.sha256
    assert manifest["weights_sha256"] == exported.weights_sha256
    assert (config["architectures"], config["dtype"]) == (["LlamaForCausalLM"], "bfloat16")
    assert "quantization_config" not in config
    assert exported.parameters == 134_515_008
    assert exported.bytes == pytest.approx(2 * exported.parameters, rel=0.02)
    assert not [path for path in exported.folder.parent.iterdir() if path != exported.folder]


def test_text_becomes_the_same_tokens_as_in_llama_cpp(exported: Exported, engine: Native) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(exported.folder), local_files_only=True)
    for text in SPELLINGS:
        theirs = engine.vocabulary.tokenize(text, special=True)
        assert list(tokenizer.encode(text, add_special_tokens=False)) == theirs, text
    messages = [{"role": "system", "content": "say"}, {"role": "user", "content": "hello"}]
    chat = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert chat == "<|im_start|>system\nsay<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_the_answers_are_those_of_llama_cpp_at_f16(exported: Exported, engine: Native) -> None:
    """Log-probabilities at every position of the text, and the greedy token where it is no near tie."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(str(exported.folder), dtype=torch.float32, local_files_only=True)
    gaps: list[float] = []
    for text in TEXTS:
        tokens = engine.vocabulary.tokenize(text, special=False)
        with torch.no_grad():
            theirs = torch.log_softmax(model(torch.tensor([tokens])).logits[0].double(), -1).numpy()
        engine.clear()
        for at, token in enumerate(tokens):
            (row,) = engine.decode([Run(0, at, [token], scored=True)])
            logits = engine.logits(row).astype(np.float64)
            ours = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
            top = np.argsort(ours)[-20:]
            gaps.append(float(np.abs(ours[top] - theirs[at][top]).max()))
            lead = ours[top[-1]] - ours[top[-2]]
            assert top[-1] == theirs[at].argmax() or lead < 0.1, (text, at, lead)
    print(f"largest difference in log-probability over the top 20: {max(gaps):.3f}, mean {np.mean(gaps):.3f}")
    assert max(gaps) < 0.5
    assert np.mean(gaps) < 0.1


def test_an_earlier_export_is_replaced_and_anything_else_is_left_alone(
    exported: Exported, embedded: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is no earlier export"):
        export_hf(embedded, mine)
    assert (mine / "thesis.txt").read_text() == "years of work"

    def write(source: ModelSource, folder: Path) -> tuple[str, int]:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        return "LlamaForCausalLM", 1

    monkeypatch.setattr("finllm.models.hf_export._write", write)
    first = export_hf(embedded, tmp_path / "out")
    (first.folder / "stale").write_text("old")
    assert export_hf(embedded, tmp_path / "out").weights_sha256 == first.weights_sha256
    assert sorted(path.name for path in first.folder.iterdir()) == ["config.json", MANIFEST]
    assert sorted(path.name for path in tmp_path.iterdir() if "home" not in path.name) == ["mine", "out"]


def test_a_file_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 100)
    source = ModelSource(name="broken", path=broken, licence="unknown", sha256="0" * 64)
    with pytest.raises(InputError, match=r"transformers cannot read .*broken\.gguf"):
        export_hf(source, tmp_path / "deep" / "out")
    assert not list((tmp_path / "deep").iterdir())
