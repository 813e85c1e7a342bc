"""Damped moves: what a share feels of a large move of oil is ln(1 + |move|), with its sign, and not the move."""

from __future__ import annotations

from collections.abc import Container, Iterable

import numpy as np

DAMPED = ("OIL_WTI",)
"""Factors whose moves shares load on damped (docs/design/0032). What is worth oil itself moves by the plain move."""
_MARK = " (damped)"


def damped(moves: np.ndarray) -> np.ndarray:
    """sign(m)·ln(1 + |m|) of decimal returns, of any shape: −54 % is felt as −43 %, +54 % as +43 %. NaN stays NaN."""
    return np.sign(moves) * np.log1p(np.abs(moves))


def damped_slope(moves: np.ndarray) -> np.ndarray:
    """What is felt per unit of further move, 1 where nothing has moved."""
    return 1.0 / (1.0 + np.abs(moves))


def damped_bend(moves: np.ndarray) -> np.ndarray:
    """How `damped_slope` changes per unit of further move; 0 where nothing has moved, between its two sides."""
    return -np.sign(moves) / (1.0 + np.abs(moves)) ** 2


def load_name(factor: str) -> str:
    """The key of a share's load on a factor: the factor's id, marked where its move is damped before the load."""
    return factor + _MARK if factor in DAMPED else factor


def columns(factors: Iterable[str], felt: Iterable[int]) -> dict[str, int]:
    """The column of every load: of the factors in their order, and then of those among them whose move is `felt`."""
    plain = list(factors)
    return {name: at for at, name in enumerate([*plain, *(load_name(plain[one]) for one in felt)])}


def felt_by(factors: Iterable[str], loaded: Container[str]) -> tuple[int, ...]:
    """The places among `factors` of the damped ones that some share is `loaded` on."""
    return tuple(at for at, name in enumerate(factors) if name in DAMPED and name in loaded)
