"""Asking outside a run gives what a run would: a card's calibration where there is one, else divided scores."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from finllm.agents.agent import prompt_version
from finllm.agents.asking import Question, ask_all
from finllm.agents.narrative import NARRATIVE
from finllm.agents.stress_tester import STRESS_TESTER
from finllm.models.cards import AdapterCard, FieldCalibration
from finllm.scheduler.decoding.template import Choose
from finllm.testing import ScriptedBackend
from tests.conftest import bounded

QUESTION = Question(NARRATIVE, {"narrative": "Rates rise.", "precedents": ""}, ("stance", "region"))
FLAT = {"hawkish": 0.0, "dovish": 0.0, "neutral": 0.0}


def card(temperature: float, bias: dict[str, float], version: str | None = None) -> AdapterCard:
    return AdapterCard(name="a", base_sha256="", adapter_sha256="",
                prompts={"narrative": version or prompt_version(NARRATIVE)},
                calibration={"narrative.stance": FieldCalibration(temperature=temperature, bias=bias)})  # fmt: skip


def test_a_calibrated_field_is_not_asked_without_content() -> None:
    backend = ScriptedBackend([{"say": {"stance": "hawkish"}}])
    (told,) = bounded(ask_all(backend, [QUESTION], card=card(2.0, FLAT)))
    blank, full = backend.requests
    assert {step.field for step in blank.template if isinstance(step, Choose)} == {"region"}
    assert full.priors is not None
    assert full.priors["stance"] == dict.fromkeys(FLAT, 1.0)
    assert told.choices["stance"]["hawkish"] < 0.9 < told.choices["region"]["us"] + 0.2
    assert sum(told.choices["stance"].values()) == pytest.approx(1.0)


def test_a_bias_is_divided_by_as_in_a_run() -> None:
    backend = ScriptedBackend([])
    bounded(ask_all(backend, [QUESTION], card=card(2.0, {**FLAT, "hawkish": 1.5})))
    priors = backend.requests[-1].priors
    assert priors is not None
    assert priors["stance"] == pytest.approx({"hawkish": 1.0, "dovish": math.exp(-3), "neutral": math.exp(-3)})


def test_a_card_of_other_prompts_says_nothing() -> None:
    backend = ScriptedBackend([{"say": {"stance": "hawkish"}}])
    bounded(ask_all(backend, [QUESTION], card=card(2.0, FLAT, "another")))
    assert {step.field for step in backend.requests[0].template if isinstance(step, Choose)} == {"stance", "region"}


def test_a_vote_sees_the_same_lines_with_their_letters_in_another_order() -> None:
    question = Question(
        STRESS_TESTER, {"reading": "oil up"}, (), {"closest": ("first", "second"), "refuse": ("third",)}
    )
    turned = replace(question, turn=1)
    lines = [line for line in turned.prompt.user.splitlines() if line[:3] in ("A: ", "B: ", "C: ")]
    assert lines == ["B: second", "C: third", "A: first"]
    assert turned.template == question.template
    assert turned.without_content(()) == question.without_content(())


def test_each_citing_field_is_offered_its_own_lines() -> None:
    fields = list(Question(STRESS_TESTER, {}, ()).labels)
    offered = {fields[0]: ("first", "second"), fields[1]: ("third",)}
    question = Question(STRESS_TESTER, {"reading": "oil up"}, (fields[1],), offered)
    assert [question.labels[name] for name in fields[:2]] == ["AB", "C"]
    assert "C: third" in question.prompt.user
    assert "third" not in question.without_content(fields).prompt.user
    assert question.without_content(fields).shape == question.shape
