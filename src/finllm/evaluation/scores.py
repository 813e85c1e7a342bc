"""Metrics of labelled judgements: accuracy, macro and weighted F1, and the expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

BINS = 10


class Scores(BaseModel):
    """Figures of `n` judgements, each in [0, 1].

    F1 is of the classes that were expected or said; a class that was never said has an F1 of 0.
    """

    model_config = ConfigDict(frozen=True)

    n: int
    accuracy: float
    macro_f1: float
    weighted_f1: float


def score(expected: Sequence[str], said: Sequence[str]) -> Scores:
    """Score judgements; an abstention is any value that is nobody's label. Errors: ValueError without judgements."""
    from sklearn.metrics import f1_score

    never: Any = 0.0  # its own type hints forget that numbers are allowed
    if not expected or len(expected) != len(said):
        raise ValueError(f"{len(expected)} labels and {len(said)} judgements cannot be compared")
    right = sum(one == other for one, other in zip(expected, said, strict=True))
    labels = sorted(set(expected))
    f1 = {kind: float(f1_score(expected, said, labels=labels, average=kind, zero_division=never))
          for kind in ("macro", "weighted")}  # fmt: skip
    return Scores(n=len(expected), accuracy=right / len(expected), macro_f1=f1["macro"], weighted_f1=f1["weighted"])


def calibration_error(sure: Sequence[float], right: Sequence[bool], bins: int = BINS) -> float:
    """Expected calibration error over equal bins (Guo et al. 2017, eq. 3): `sure` the probability of what was said.

    Errors: ValueError without judgements.
    """
    if not sure or len(sure) != len(right):
        raise ValueError(f"{len(sure)} probabilities and {len(right)} judgements cannot be compared")
    p, hit = np.asarray(sure, dtype=float), np.asarray(right, dtype=float)
    at = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [abs(p[at == b].mean() - hit[at == b].mean()) * (at == b).sum() for b in range(bins) if (at == b).any()]
    return float(sum(gaps) / len(p))
