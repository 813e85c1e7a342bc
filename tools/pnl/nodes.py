"""Functions of one variable read at many places from their values at few: Chebyshev interpolation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

DEGREE = 24
"""Of the Chebyshev polynomial through which bonds are read in many scenarios."""


def through_nodes(price: Callable[[np.ndarray], np.ndarray], moves: np.ndarray) -> np.ndarray:
    """`price` at `moves` (n, S), read from its Chebyshev interpolant on each row's range (Trefethen 2013, ch. 3). Of
    one row of moves, `price` may give several."""
    low, high = moves.min(axis=1, keepdims=True), moves.max(axis=1, keepdims=True)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-12)
    angles = (np.arange(DEGREE) + 0.5) * np.pi / DEGREE
    values = price(middle + half * np.cos(angles))  # (n, DEGREE)
    weights = values @ np.cos(np.outer(angles, np.arange(DEGREE))) * 2.0 / DEGREE
    place = (moves - middle) / half
    shape = (len(values), moves.shape[1])
    later, last, spare, twice = np.zeros(shape), np.zeros(shape), np.empty(shape), 2.0 * place
    for at in range(DEGREE - 1, 0, -1):  # Clenshaw's recurrence, in three arrays that stay in the cache
        np.multiply(twice, later, out=spare)
        spare -= last
        spare += weights[:, at, None]
        later, last, spare = spare, later, last
    return place * later - last + 0.5 * weights[:, 0, None]
