"""Calibrates an adapter's probabilities: a temperature and a bias per value for each field, and a threshold."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from training.packing import pooled
from training.score import Answer

PULL, PULL_BIAS = 1.0, 20.0
"""Weight of the square of log T, and of the biases' squares, in answers: thin data leave both near what they were.

Of what was tried over the events of validation, left out by quarters: weaker biases score better than free ones.
"""
LEAST = 3.9
"""How far apart temperature · bias may lie, in nat: filling stops priors at `LEAST_PRIOR` of the largest, 3.91 nat."""
BINS = 15
ERROR = 0.1


@dataclass(frozen=True)
class Scaling:
    """probability = softmax(score / temperature - bias); scores are logits or log-probabilities."""

    temperature: float
    bias: Mapping[str, float]

    def probabilities(self, scores: Mapping[str, float]) -> dict[str, float]:
        raw = np.array([s / self.temperature - self.bias.get(v, 0.0) for v, s in scores.items()])
        weights = np.exp(raw - raw.max())
        return dict(zip(scores, (weights / weights.sum()).tolist(), strict=True))


AS_SCORED = Scaling(1.0, {})


def kind(answer: Answer) -> str:
    return f"{answer.role}.{pooled(answer.field)}"


def asked(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """The answers that were scored, not settled by a sibling, by kind of field."""
    found: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if len(answer.scores) > 1 and any(value in answer.scores for value in answer.right):
            found[kind(answer)].append(answer)
    return dict(sorted(found.items()))


def fit(of: Sequence[Answer]) -> Scaling:
    """The scaling with the least negative log-likelihood of the right answers, pulled towards none."""
    values = list(of[0].scores)
    scores = np.array([[a.scores[v] for v in values] for a in of])
    right = np.array([[v in a.right for v in values] for a in of])

    def cost(x: npt.NDArray[np.float64]) -> float:
        raw = scores / np.exp(x[0]) - x[1:]
        all_of = _logsumexp(raw)
        good = _logsumexp(np.where(right, raw, -np.inf))
        return float((all_of - good).sum() + PULL * x[0] ** 2 + PULL_BIAS * (x[1:] ** 2).sum())

    found = minimize(cost, np.zeros(len(values) + 1), method="L-BFGS-B").x
    temperature = float(np.exp(found[0]))
    bias = np.maximum(found[1:], found[1:].max() - LEAST / temperature)
    return Scaling(temperature, dict(zip(values, (bias - bias.mean()).tolist(), strict=True)))


def _logsumexp(raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    top = raw.max(1)
    return top + np.log(np.exp(raw - top[:, None]).sum(1))


def believed(of: Sequence[Answer], scaling: Scaling) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The probability of each answer's most probable value, and whether that is right."""
    top, good = [], []
    for a in of:
        found = scaling.probabilities(a.scores)
        chosen = max(found, key=lambda value, found=found: found[value])
        top.append(found[chosen])
        good.append(chosen in a.right)
    return np.array(top), np.array(good, dtype=np.bool_)


def calibration_error(of: Sequence[Answer], scaling: Scaling) -> float:
    """Expected calibration error of the chosen values over 15 bins of equal width (Guo et al. 2017, eq. 3).

    Answers of which more than one value is right have no one probability to hold against it, and are left out.
    """
    top, good = believed([a for a in of if len(a.right) == 1], scaling)
    bins = np.minimum((top * BINS).astype(int), BINS - 1)
    return float(sum(abs(top[bins == b].sum() - good[bins == b].sum()) for b in np.unique(bins)) / len(top))


def threshold(of: Sequence[Answer], scaling: Scaling, error: float = ERROR) -> float:
    """The least probability above which chosen values are wrong at most `error` of the time; 1.0 where there is none.

    Counted as if one more answer there were wrong, so that the bound holds for the next one (conformal risk control;
    Angelopoulos et al. 2024, eq. 5).
    """
    top, good = believed(of, scaling)
    for t in np.concatenate([[0.0], np.sort(top)]):
        kept = top >= t
        if ((~good[kept]).sum() + 1) / (kept.sum() + 1) <= error:
            return float(t)
    return 1.0


def calibrated(of: Sequence[Answer], tables: Mapping[str, Mapping[str, object]]) -> list[Answer]:
    """The answers with the log-probabilities that an agent will see."""
    found = []
    for a in of:
        scaling = tables.get(kind(a), {}).get("scaling", AS_SCORED)
        assert isinstance(scaling, Scaling)
        now = scaling.probabilities(a.scores)
        found.append(replace(a, scores={value: math.log(max(p, 1e-12)) for value, p in now.items()}))
    return found


def calibrate(validation: Sequence[Answer], test: Sequence[Answer]) -> dict[str, dict[str, object]]:
    """By kind of field: scaling and threshold from validation, error before and after on test."""
    held = asked(test)
    found: dict[str, dict[str, object]] = {}
    for name, of in asked(validation).items():
        scaling = fit(of)
        row: dict[str, object] = {"scaling": scaling, "threshold": threshold(of, scaling), "n": len(of)}
        if name in held:
            row["before"] = calibration_error(held[name], AS_SCORED)
            row["after"] = calibration_error(held[name], scaling)
            row["tested"] = sum(len(a.right) == 1 for a in held[name])
        found[name] = row
    return found
