"""Adapters and their cards: the shipped one is found for its model; a card that tells of something else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from finllm.errors import InputError
from finllm.files import sha256_of_file
from finllm.models import cards
from finllm.models.cards import FieldCalibration, adapter_for
from finllm.models.source import ModelSource
from finllm.settings import Settings

SOURCE = ModelSource(name="base", path=Path("base.gguf"), licence="Apache-2.0", sha256="ab" * 32)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    path = tmp_path / "analyst.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    for half, shape in (("a", (2, 8)), ("b", (8, 2))):
        writer.add_tensor(f"blk.0.ffn_up.weight.lora_{half}", np.ones(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_card(adapter: Path, **changes: object) -> None:
    card = {
        "name": "analyst",
        "base_sha256": SOURCE.sha256,
        "adapter_sha256": sha256_of_file(adapter),
        "prompts": {"narrative": "v1"},
        "calibration": {"narrative.stance": {"temperature": 1.5, "bias": {"hawkish": 0.2, "dovish": -0.1}}},
        "notes": "for people",
        **changes,
    }
    adapter.with_suffix(".json").write_text(json.dumps(card))


def settings(tmp_path: Path, adapter: str) -> Settings:
    return Settings(home=tmp_path / "home", adapter=adapter)


def test_none_means_none(tmp_path: Path) -> None:
    assert adapter_for(SOURCE, settings(tmp_path, "none"), "Q4_0") == (None, None)


def test_the_shipped_adapter_is_taken_for_its_own_model_only(
    tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "SHIPPED", adapter.parent)
    write_card(adapter)
    found, card = adapter_for(SOURCE, settings(tmp_path, "auto"), "Q4_0")
    assert found is not None
    assert found.path == adapter
    assert card is not None
    assert card.fields_of("narrative", "v1")["stance"].temperature == 1.5
    other = SOURCE.model_copy(update={"sha256": "cd" * 32})
    assert adapter_for(other, settings(tmp_path, "auto"), "Q4_0") == (None, None)


def test_a_changed_prompt_has_no_calibration(tmp_path: Path, adapter: Path) -> None:
    write_card(adapter)
    _, card = adapter_for(SOURCE, settings(tmp_path, str(adapter)), "Q4_0")
    assert card is not None
    assert card.fields_of("narrative", "v2") == {}
    assert card.fields_of("validator", "v1") == {}


def test_an_adapter_of_one_s_own_needs_no_card(tmp_path: Path, adapter: Path) -> None:
    found, card = adapter_for(SOURCE, settings(tmp_path, str(adapter)), "Q4_0")
    assert found is not None
    assert card is None


def test_another_calibration_is_another_digest_and_another_name_is_not(tmp_path: Path, adapter: Path) -> None:
    write_card(adapter)
    _, card = adapter_for(SOURCE, settings(tmp_path, str(adapter)), "Q4_0")
    assert card is not None
    named = card.model_copy(update={"name": "another"})
    moved = card.model_copy(update={"calibration": {"narrative.stance": FieldCalibration(temperature=9, bias={})}})
    assert named.calibration_sha256 == card.calibration_sha256 != moved.calibration_sha256


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"base_sha256": "cd" * 32}, "another model"),
        ({"adapter_sha256": "cd" * 32}, "another file"),
        ({"calibration": {"narrative.stance": {"temperature": 0, "bias": {}}}}, "cannot read the adapter's card"),
    ],
)
def test_a_card_that_tells_of_something_else_is_refused(
    tmp_path: Path, adapter: Path, changes: dict[str, object], why: str
) -> None:
    write_card(adapter, **changes)
    with pytest.raises(InputError, match=why) as refused:
        adapter_for(SOURCE, settings(tmp_path, str(adapter)), "Q4_0")
    assert "FINLLM_ADAPTER" in refused.value.fix


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no adapter at .*nothing\.gguf"):
        adapter_for(SOURCE, settings(tmp_path, str(tmp_path / "nothing.gguf")), "Q4_0")
