"""Asking again finer happens where finer was measured better, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from finllm.agents.roles import AGENTS
from finllm.desk import escalating as subject
from finllm.desk.escalating import escalating
from finllm.scheduler.backends import Offer
from finllm.settings import Settings
from finllm.testing import ScriptedBackend

EVERY = {agent.role for agent in AGENTS}
PAIR = [ScriptedBackend([], name="edge"), ScriptedBackend([], name="deep", tier="deep", precision="F16")]


@dataclass(frozen=True)
class Score:
    score: float


@dataclass(frozen=True)
class Taken:
    quality: dict[str, Score]


def test_without_a_measured_gap_nothing_is_asked_again() -> None:
    assert escalating(Settings(), PAIR) == frozenset()
    assert escalating(Settings(escalate="always"), PAIR) == EVERY
    assert escalating(Settings(escalate="never"), PAIR) == frozenset()


def test_an_agent_that_the_finer_rung_serves_better_is(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"edge": {"narrative": 0.7, "validator": 0.8}, "deep": {"narrative": 0.76, "validator": 0.82}}

    def taken(_settings: Settings, offer: Offer) -> Taken:
        return Taken({role: Score(score) for role, score in scores[offer.tier].items()})

    monkeypatch.setattr(subject, "_calibration", taken)
    assert escalating(Settings(), PAIR) == {"narrative"}
