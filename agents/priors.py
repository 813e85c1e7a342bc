"""A card's calibration as what scores are divided by, and probabilities at another temperature."""

from __future__ import annotations

import math
from collections.abc import Mapping

from finllm.models.cards import AdapterCard, FieldCalibration


def prior_of(calibration: FieldCalibration) -> dict[str, float]:
    """What a field's scores are divided by so that the calibrated values win: exp(temperature · bias), at most 1.

    With the scores tempered afterwards this is softmax(score / temperature − bias), but for biases that lie so far
    apart that `filling.LEAST_PRIOR` stops them.
    """
    top = max(calibration.bias.values(), default=0.0)
    return {value: math.exp(calibration.temperature * (bias - top)) for value, bias in calibration.bias.items()}


def priors_by(card: AdapterCard | None, role: str, version: str) -> dict[str, dict[str, float]]:
    """By field the prior of a card that calibrates a role's prompt of this version; none without one."""
    known = {} if card is None else card.fields_of(role, version)
    return {field: prior_of(calibrated) for field, calibrated in known.items()}


def tempered(probabilities: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Probabilities as a softmax at another temperature gives them; their order stays."""
    weights = {value: p ** (1 / temperature) for value, p in probabilities.items()}
    total = sum(weights.values())
    return {value: weight / total for value, weight in weights.items()}
