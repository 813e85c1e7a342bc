"""Probe sets: every label can be given, the right answers score 1, and the real model's score is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finllm.agents import probing
from finllm.agents.agent import Agent
from finllm.agents.asking import Question
from finllm.agents.narrative import NARRATIVE
from finllm.agents.probing import asked_alone, measure_quality, probe_set, probes_digest
from finllm.agents.roles import AGENTS
from finllm.agents.stress_tester import STRESS_TESTER
from finllm.errors import BackendError
from finllm.scheduler.backends.llama_cpp import LlamaCppBackend
from finllm.scheduler.calibration.measured import wilson_lower
from finllm.scheduler.decoding.template import Choose, Pick
from finllm.testing import ScriptedBackend
from tests.conftest import bounded


def key_text(agent: Agent, at: int) -> str:
    """A piece of a probe's prompt that no other probe of the set has."""
    probe = probe_set(agent.role).items[at]
    return next(iter(probe.inputs.values()))


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.role)
def test_every_label_is_a_value_that_the_agent_may_give(agent: Agent) -> None:
    items = probe_set(agent.role).items
    assert probe_set(agent.role).agent == agent.role
    assert 8 <= len(items) <= 12
    for probe in items:
        steps = {step.field: step for step in asked_alone(agent, probe).template if isinstance(step, Choose | Pick)}
        for field, value in probe.expected.items():
            step = steps[field]
            assert value in (step.values if isinstance(step, Choose) else step.labels), (field, value)


def test_right_answers_score_one_and_wrong_ones_nothing() -> None:
    items = probe_set("narrative").items
    right: list[dict[str, Any]] = [{"when": key_text(NARRATIVE, at), "say": probe.expected}
                                   for at, probe in enumerate(items)]  # fmt: skip
    quality = bounded(measure_quality(ScriptedBackend(right), NARRATIVE))
    assert (quality.score, quality.items) == (1.0, len(items))
    assert quality.lower == pytest.approx(wilson_lower(1.0, len(items)))
    assert 0.1 < quality.chance < 0.3
    never = {"event": "routine", "region": "europe", "stance": "neutral", "factors.EQUITY_US.direction": "none"}
    wrong = bounded(measure_quality(ScriptedBackend([{"say": never}]), NARRATIVE))
    assert wrong.score < 0.1


def test_the_prompt_without_content_is_asked_once_and_its_scores_divide_the_others() -> None:
    backend = ScriptedBackend([{}])
    bounded(measure_quality(backend, NARRATIVE))
    neutral = [request for request in backend.requests if "N/A" in request.prompt.user]
    assert len(neutral) == 1
    assert len(backend.requests) == 1 + len(probe_set("narrative").items)
    assert all(request.priors for request in backend.requests if request is not neutral[0])


def test_only_the_labelled_fields_are_asked() -> None:
    probe = next(probe for probe in probe_set("narrative").items if "stance" in probe.expected)
    template = Question(NARRATIVE, probe.inputs, ("stance",)).template
    assert [step.field for step in template if isinstance(step, Choose)] == ["stance"]
    with pytest.raises(ValueError, match="the template has no field"):
        _ = Question(NARRATIVE, probe.inputs, ("mood",)).template


def test_a_backend_that_fails_has_no_quality() -> None:
    with pytest.raises(BackendError, match="out of memory"):
        bounded(measure_quality(ScriptedBackend([{"fail": "out of memory"}]), NARRATIVE))


def test_the_real_model_has_a_score_of_its_own(real_edge: LlamaCppBackend) -> None:
    quality = bounded(measure_quality(real_edge, STRESS_TESTER))
    assert 0.0 < quality.lower < quality.score < 1.0
    assert quality.items == len(probe_set("stress-tester").items)


def test_another_probe_or_prompt_is_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    before = probes_digest()
    folder = tmp_path / "probes"
    shutil.copytree(probing.PROBES, folder)
    monkeypatch.setattr(probing, "PROBES", folder)
    assert probes_digest() == before
    path = folder / "narrative.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("Troops", "Soldiers"), encoding="utf-8")
    changed = probes_digest()
    assert changed != before
    monkeypatch.setattr(probing, "prompt_version", lambda _agent: "another")
    assert probes_digest() not in (before, changed)
