"""Fitted scalings mean what they say, agents apply them as fitted, and thresholds hold their rates."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from finllm.agents.priors import prior_of, tempered
from finllm.models.cards import FieldCalibration
from finllm.scheduler.decoding.filling import LEAST_PRIOR
from training import attacks
from training.calibrate import AS_SCORED, LEAST, Scaling, calibrated, calibration_error, fit, threshold
from training.score import Answer, macro_f1

VALUES: tuple[str, ...] = ("hawkish", "dovish", "neutral")


def drawn(count: int, sharp: float, tilt: float, seed: int = 0) -> list[Answer]:
    """Answers whose right values follow known probabilities, scored too sharply and with a tilt to the first value."""
    rng = np.random.default_rng(seed)
    found = []
    for at in range(count):
        true = rng.normal(0, 1.5, 3)
        weights = np.exp(true - true.max())
        right = rng.choice(3, p=weights / weights.sum())
        scores = dict(zip(VALUES, (true * sharp + np.array([tilt, 0, 0])).tolist(), strict=True))
        found.append(Answer("narrative", "stance", "stance", None, False, str(at), scores, (VALUES[right],)))
    return found


def test_a_fit_undoes_sharpness_and_tilt() -> None:
    of = drawn(2000, 3.0, 2.0)
    scaling = fit(of)
    assert scaling.temperature == pytest.approx(3.0, rel=0.15)
    assert scaling.bias["hawkish"] - scaling.bias["dovish"] == pytest.approx(2.0 / 3.0, abs=0.15)
    held = drawn(2000, 3.0, 2.0, seed=1)
    assert calibration_error(held, scaling) < 0.04 < calibration_error(held, AS_SCORED)
    tables = {"narrative.stance": {"scaling": scaling}}
    assert macro_f1(calibrated(held, tables)) > macro_f1(held)


def test_agents_apply_a_scaling_as_it_was_fitted() -> None:
    scaling = fit(drawn(300, 2.0, 3.0))
    scores = {"hawkish": 1.0, "dovish": -0.5, "neutral": 0.2}
    prior = prior_of(FieldCalibration(temperature=scaling.temperature, bias=dict(scaling.bias)))
    divided = {v: math.exp(s - math.log(max(prior[v], LEAST_PRIOR))) for v, s in scores.items()}
    total = sum(divided.values())
    theirs = tempered({v: w / total for v, w in divided.items()}, scaling.temperature)
    assert theirs == pytest.approx(scaling.probabilities(scores))


def test_biases_stay_where_filling_does_not_stop_them() -> None:
    scaling = fit(drawn(4000, 1.0, 40.0))
    assert (max(scaling.bias.values()) - min(scaling.bias.values())) * scaling.temperature <= LEAST + 1e-9
    assert -math.log(LEAST_PRIOR) > LEAST


def test_above_the_threshold_one_in_ten_is_wrong_at_most() -> None:
    of = drawn(1000, 1.0, 0.0)
    at = threshold(of, AS_SCORED)
    held = [a for a in drawn(1000, 1.0, 0.0, seed=2) if max(AS_SCORED.probabilities(a.scores).values()) >= at]
    assert len(held) > 50
    assert sum(not a.correct for a in held) / len(held) < 0.15


def test_an_alarm_threshold_holds_its_rate_and_counts_what_is_found() -> None:
    def source(at: int, score: float, right: tuple[str, ...]) -> Answer:
        scores = {"credible": 0.0, "injected": score}
        return Answer("sanity-checker", "verdict", "injection", None, False, str(at), scores, right)

    clean = [source(at, -5 + at / 100, ("credible",)) for at in range(500)]
    steering = [source(1000 + at, -3 + at / 10, ("injected",)) for at in range(100)]
    at = attacks.threshold(clean, AS_SCORED)
    questions = [q for name, of in (("c", clean), ("a", steering)) for q in attacks.asked_about(
        name, [f"{name} {a.item}" for a in of], attack=name == "a")]  # fmt: skip
    renamed = dict(zip([a.item for a in [*clean, *steering]], questions, strict=True))
    rows = attacks.found(
        [*clean, *steering], [replace(q, item=item) for item, q in renamed.items()], Scaling(1.0, {}), at
    )
    assert rows["model"]["false_alarms"] <= 0.01
    assert 0.6 < rows["model"]["found"] < 0.8
    assert rows["either"]["found"] >= rows["model"]["found"]
