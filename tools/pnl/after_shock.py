"""Past P&L at the volatility that a shock leaves behind: a filtered historical simulation."""

from __future__ import annotations

import math

import numpy as np

DECAY = 0.94
"""Weight of a day's square to that of the next in the volatility of daily P&L (RiskMetrics 1996, for a day)."""
FREEDOM = 8.0
"""Degrees of freedom of Student's t of the index's moves over 5 to 40 days in σ of the day before (1990 to 2022)."""


def filtered(before: np.ndarray, after: np.ndarray, gain: float, days: int) -> np.ndarray:
    """Past P&L (n,) of the book after a shock, each day at the volatility that the shock leaves instead of its own.

    Filtered historical simulation (Barone-Adesi, Giannopoulos and Vosper 1999), by exponential averages. The shock, z =
    gain over σ·√days of the book before, tells of the variance as it does of one with `FREEDOM` degrees of freedom: it
    is (FREEDOM + z²)/(FREEDOM + 1) times what it was, and no less than that.
    """
    if not before.any() or not after.any():
        return after
    past, now = _volatility(before)
    own, last = _volatility(after)
    if now <= 0 or (own <= 0).any():
        return after
    z = gain / (now * math.sqrt(days))
    grown = math.sqrt(max(1.0, (FREEDOM + z**2) / (FREEDOM + 1.0)))
    return after / own * last * grown if past.all() else after


def _volatility(gains: np.ndarray) -> tuple[np.ndarray, float]:
    """σ of P&L about zero on each day, (n,), as known the day before, and after the last; the mean square starts it."""
    found = np.empty(len(gains) + 1)
    found[0] = float(np.mean(gains**2))
    for at, gain in enumerate(gains):
        found[at + 1] = DECAY * found[at] + (1.0 - DECAY) * gain**2
    sigma = np.sqrt(found)
    return sigma[:-1], float(sigma[-1])
