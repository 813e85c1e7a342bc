"""The mean of a figure over seeds, with its confidence interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of a figure over seeds, and its 95 % interval by Student's t; the mean alone of a single one."""
    found = np.array(values, dtype=np.float64)
    mean = float(found.mean())
    if len(found) < 2:
        return mean, mean, mean
    from scipy.stats import t

    half = float(t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))
    return mean, mean - half, mean + half
