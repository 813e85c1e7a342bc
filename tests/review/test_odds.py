"""A trace and a comparison give the probabilities that the report gives: calibrated by the run's own card."""

from __future__ import annotations

import pytest

from finllm.graphs.basis import Standing
from finllm.memory.entries import RecordedCall
from finllm.models.cards import AdapterCard, FieldCalibration
from finllm.models.ladder import PRUNED
from finllm.review.odds import calibrated
from finllm.scheduler.placement.task import Prompt


def card(temperature: float, version: str = "v1") -> AdapterCard:
    field = FieldCalibration(temperature=temperature, bias={})
    return AdapterCard(name="a", base_sha256="0", adapter_sha256="0", prompts={"narrative": version},
                       calibration={"narrative.event": field})  # fmt: skip


def begun(**cards: AdapterCard) -> Standing:
    return Standing(version="1", request="0", files={}, prompts={}, data={}, weights=(), precision="F16").model_copy(
        update=cards
    )


def call(precision: str = "Q4_0") -> RecordedCall:
    odds = {"event": {"war": 0.8, "run": 0.2}, "region": {"us": 0.6, "asia": 0.4}}
    return RecordedCall(key="k", agent="narrative", prompt=Prompt("s", "u"), prompt_version="v1", template=[],
                        priors={}, seed=0, weights_sha256="0", precision=precision, text="{}", choices=odds,
                        prompt_tokens=1, output_tokens=1, seconds=0.1)  # fmt: skip


def test_a_field_with_a_temperature_is_tempered_and_another_is_not() -> None:
    found = calibrated(call(), begun(card=card(2.0)))
    assert found["event"]["war"] == pytest.approx(2 / 3)  # √0.8 to √0.2 is 2 to 1
    assert found["region"] == {"us": 0.6, "asia": 0.4}


def test_the_pruned_rung_has_its_own_card_and_another_prompt_none() -> None:
    both = begun(card=card(2.0), pruned=card(1.0))
    assert calibrated(call(PRUNED), both)["event"]["war"] == pytest.approx(0.8)
    assert calibrated(call(), begun(card=card(2.0, version="v2")))["event"]["war"] == 0.8
    assert calibrated(call(), None)["event"]["war"] == 0.8
