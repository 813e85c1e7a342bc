"""Conditional propagation: shocked factors move the others by Σ₂₁Σ₁₁⁻¹, and how plausible the shocks are together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finllm.errors import InputError

SINGULAR = 1e-8
"""Smallest eigenvalue of a correlation matrix below which it counts as singular."""
NEGATIVE = -1e-10
"""Eigenvalue of the correlation below which a covariance is not positive semi-definite, beyond rounding."""
CONTRADICTORY = 4.0
"""σ of a shock about what the other shocks imply, beyond which the two contradict each other."""


@dataclass(frozen=True)
class Covariance:
    """Covariance of factor moves over the horizon: (k, k), in the products of the factors' units.

    `repaired`: how far a matrix that was not positive semi-definite was moved, as a share of its Frobenius norm.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    repaired: float = 0.0

    def at(self, names: Sequence[str]) -> list[int]:
        return [self.names.index(name) for name in names]

    def sub(self, names: Sequence[str]) -> np.ndarray:
        """The block of `names`, in their order."""
        at = self.at(names)
        return self.matrix[np.ix_(at, at)]

    def sigma(self, name: str) -> float:
        """Standard deviation of a factor's move over the horizon, in its own unit."""
        return math.sqrt(self.matrix[self.at([name])[0], self.at([name])[0]])


@dataclass(frozen=True)
class Propagated:
    """The factors that were not shocked, given those that were.

    `means` (n,) and `residual` (n, n) in the factors' units; `mahalanobis` of the shocks; `given_others` their σ about
    their means given the other shocks, and `implied` these means, where there are others.
    """

    shocked: tuple[str, ...]
    others: tuple[str, ...]
    means: np.ndarray
    residual: np.ndarray
    mahalanobis: float
    given_others: dict[str, float]
    implied: dict[str, float]


def checked(names: Sequence[str], matrix: np.ndarray, *, repair: bool = False) -> Covariance:
    """A covariance given from outside, tested: square, finite, symmetric, positive variances, positive semi-definite.

    With `repair` a matrix that is not positive semi-definite is moved to the nearest correlation that is (Higham 2002,
    by skfolio), with the variances kept; `repaired` says how far. Errors: InputError that names what is wrong.
    """
    values = np.asarray(matrix, dtype="float64")
    if values.shape != (len(names), len(names)):
        raise InputError(
            f"a covariance of {len(names)} factors has shape {values.shape}", fix="give one row per factor"
        )
    if not np.isfinite(values).all():
        raise InputError("the covariance has entries that are not finite", fix="remove NaN and infinities")
    if not np.allclose(values, values.T, rtol=1e-9, atol=1e-12 * float(np.abs(values).max(initial=0))):
        raise InputError("the covariance is not symmetric", fix="give the same entry for (a, b) and (b, a)")
    variance = np.diag(values)
    if wrong := [name for name, one in zip(names, variance, strict=True) if one <= 0]:
        raise InputError(f"the variance of {', '.join(wrong)} is not positive", fix="correct the diagonal")
    scale = np.sqrt(variance)
    least = float(np.linalg.eigvalsh(values / np.outer(scale, scale)).min()) if len(names) else 0.0
    if least >= NEGATIVE:
        return Covariance(tuple(names), (values + values.T) / 2)
    if not repair:
        raise InputError(f"the covariance is not positive semi-definite (least correlation eigenvalue {least:.3g})",
                         fix="correct it, or ask for its repair")  # fmt: skip
    from skfolio.utils.stats import cov_nearest

    nearest = np.asarray(cov_nearest(values, higham=True))
    return Covariance(tuple(names), nearest, float(np.linalg.norm(nearest - values) / np.linalg.norm(values)))


def mahalanobis(shocks: Mapping[str, float], covariance: Covariance) -> float:
    """√(xᵀΣ⁻¹x) of the shocks, about zero. Errors: InputError where the shocked factors' covariance is singular."""
    names = tuple(shocks)
    if not names:
        return 0.0
    block = _regular(names, covariance)
    moves = np.array([shocks[name] for name in names])
    return math.sqrt(float(moves @ np.linalg.solve(block, moves)))


def propagate(shocks: Mapping[str, float], covariance: Covariance) -> Propagated:
    """Mean and covariance of the other factors given the shocks, all about zero mean.

    μ₂ = Σ₂₁Σ₁₁⁻¹x₁ and Σ₂₂ − Σ₂₁Σ₁₁⁻¹Σ₁₂ (e.g. Eaton 1983, Proposition 3.13; for stress tests Kupiec 1998). Errors:
    InputError for a factor without a row in the covariance, a move that is not finite, or a singular Σ₁₁.
    """
    shocked = tuple(shocks)
    if unknown := [name for name in shocked if name not in covariance.names]:
        raise InputError(f"{', '.join(unknown)} has no row in the covariance", fix="shock it directly")
    moves = np.array([shocks[name] for name in shocked], dtype="float64")
    if not np.isfinite(moves).all():
        raise InputError("a shock is not finite", fix="correct the move")
    others = tuple(name for name in covariance.names if name not in shocks)
    second = covariance.sub(others)
    if not shocked:
        return Propagated((), others, np.zeros(len(others)), second, 0.0, {}, {})
    first = _regular(shocked, covariance)
    cross = covariance.matrix[np.ix_(covariance.at(others), covariance.at(shocked))]  # Σ₂₁ (n_others, n_shocked)
    scale = np.sqrt(np.diag(first))  # solved as a correlation, so that bp and returns do not spoil the digits
    correlation = first / np.outer(scale, scale)
    inverse = np.linalg.solve(correlation, moves / scale)
    means = (cross / scale) @ inverse
    residual = second - (cross / scale) @ np.linalg.solve(correlation, (cross / scale).T)
    precision = np.diag(np.linalg.inv(correlation))
    given = {name: float(one) for name, one in zip(shocked, inverse / np.sqrt(precision), strict=True)}
    centres = moves - scale * inverse / precision
    implied = dict(zip(shocked, centres.tolist(), strict=True)) if len(shocked) > 1 else {}
    distance = math.sqrt(max(0.0, float((moves / scale) @ inverse)))
    return Propagated(shocked, others, means, (residual + residual.T) / 2, distance, given, implied)


def contradictions(shocks: Mapping[str, float], given: Propagated, covariance: Covariance) -> dict[str, str]:
    """Shocks that the other shocks make far less likely than they are alone, with what those imply, in words."""
    found: dict[str, str] = {}
    for name, distance in given.given_others.items():
        alone = abs(shocks[name]) / covariance.sigma(name)
        if len(given.shocked) > 1 and abs(distance) > CONTRADICTORY and abs(distance) > 1.5 * alone:
            found[name] = f"contradictory: {abs(distance):.1f} σ from what the other shocks imply"
    return found


def _regular(names: Sequence[str], covariance: Covariance) -> np.ndarray:
    """Σ₁₁ of `names`. Errors: InputError that names the factors which are collinear in the window."""
    block = covariance.sub(names)
    scale = np.sqrt(np.diag(block))
    values, vectors = np.linalg.eigh(block / np.outer(scale, scale))
    if values[0] > SINGULAR:
        return block
    heavy = np.abs(vectors[:, 0])
    tied = [name for name, weight in zip(names, heavy, strict=True) if weight > 0.1 * heavy.max()]
    raise InputError(f"the shocks of {', '.join(tied)} cannot be told apart: their covariance is singular",
                     fix=f"shock one of them and leave the others to propagation, not {len(tied)}")  # fmt: skip
