"""What a file says, and files that must not get in: truncated, corrupt, without a chat template."""

from __future__ import annotations

from pathlib import Path

import pytest

from finllm.agents.roles import AGENTS, judgement_fields
from finllm.errors import BackendError, InputError
from finllm.models import inspection
from finllm.models.inspection import inspect_model, starting_alike
from finllm.models.registry import ModelSource

from .tiny import CHATML, CONTEXT, write_tiny_model


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf")


def test_the_embedded_model_s_tokenizer_starts_every_value_of_every_field_differently(embedded: ModelSource) -> None:
    fields = judgement_fields()
    assert {name.split(".")[0] for name in fields} == {agent.role for agent in AGENTS}
    assert fields["narrative.factors.OIL_WTI.direction"] == ("up", "down", "none")
    found = inspect_model(embedded.path, fields)
    assert found.scored_whole == ()
    assert (found.architecture, found.tokenizer, found.context) == ("llama", "gpt2/smollm", 8192)
    assert found.parameters == 134_515_008
    assert "<|im_start|>" in found.chat_template


def test_a_tokenizer_of_bytes_starts_values_alike_and_the_fields_are_named(tiny: Path) -> None:
    found = inspect_model(tiny, {"a.size": ("small", "severe"), "a.way": ("up", "down")})
    assert found.scored_whole == ("a.size",)
    assert (found.context, found.chat_template, found.licence) == (CONTEXT, CHATML, "mit")


def test_only_values_of_one_field_are_compared() -> None:
    assert starting_alike({"a": {"up": 1, "down": 2}, "b": {"up": 1, "un": 1}}) == ("b",)


@pytest.mark.parametrize("keep", [10, 400, 9_000, -1])
def test_a_truncated_file_is_refused(tiny: Path, keep: int) -> None:
    tiny.write_bytes(tiny.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"tiny\.gguf' cannot be loaded: .*fetch the file again"):
        inspect_model(tiny, {})


def test_a_file_with_spoilt_weights_is_refused(tiny: Path) -> None:
    data = bytearray(tiny.read_bytes())
    data[-400:-200] = b"\xff" * 200  # not a number, as F32
    tiny.write_bytes(data)
    with pytest.raises(InputError, match="cannot be loaded"):
        inspect_model(tiny, {})


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no chat template"):
        inspect_model(write_tiny_model(tmp_path / "base.gguf", chat_template=None), {})


def test_a_file_that_kills_llama_cpp_does_not_kill_us(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_CHILD", "import os; os.kill(os.getpid(), 6)")
    with pytest.raises(InputError, match=r"corrupt: llama\.cpp died of signal 6"):
        inspect_model(tiny, {})


def test_a_build_that_does_not_import_is_no_fault_of_the_file(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_CHILD", "raise ImportError('libllama.so: not found')")
    with pytest.raises(BackendError, match=r"libllama\.so: not found; run 'finllm doctor'"):
        inspect_model(tiny, {})
