"""Bands around a stressed P&L, made of all parts: factors that nobody sets, the positions' own, errors of loads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import get_args

import numpy as np

from finllm.tools.pnl.kernel import Sensitivities, totals
from finllm.tools.pnl.outcome import BandPart, Interval, usd
from finllm.tools.pnl.own_risk import OwnRisk

DRAWS = 4000
PARTS: tuple[BandPart, ...] = get_args(BandPart)
TESTED = (15, 25)
"""Trading days of the horizons whose 90 % bands were tested, on past months and dated episodes (docs/numbers.md)."""
TESTED_LEVEL, TESTED_SHARE = 0.9, 0.95
"""The level tested, and the share of a book that has to be of the kind that it was tested on."""


@dataclass(frozen=True)
class Spread:
    """What is drawn around the shocks over `horizon` trading days.

    `factors`: by part, draws (n, K) of what it adds to the factors' moves, in their units, one after the other; `least`
    (K,): how far down each can go. `untested`: why the level of the band was not tested, empty where it was.
    """

    factors: Mapping[BandPart, np.ndarray]
    own: OwnRisk
    least: np.ndarray
    horizon: int
    draws: int
    words: str
    untested: str = ""

    @property
    def empty(self) -> bool:
        """Whether nothing is left open."""
        return not self.own.known and not any(one.any() for one in self.factors.values())

    def scaled(self, scale: np.ndarray, days: int, every: int) -> Spread:
        """The same over `days`, each factor's moves times `scale` (K,), by every so many of the draws."""
        factors: dict[BandPart, np.ndarray] = {part: one[::every] * scale for part, one in self.factors.items()}
        return replace(self, factors=factors, horizon=days, draws=len(range(0, self.draws, every)))


def gaussian_draws(covariance: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Draws (n, k) from N(0, Σ); Σ may be singular. Antithetic pairs make their mean exactly zero."""
    values, vectors = np.linalg.eigh(covariance) if covariance.size else (np.zeros(0), np.zeros((0, 0)))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    half = np.random.default_rng(seed).standard_normal((draws // 2, len(covariance))) @ root.T
    return np.concatenate([half, -half])


def gains_by_part(
    arrays: Sensitivities, moves: np.ndarray, spread: Spread, seed: int, *, together: bool = False
) -> dict[BandPart, np.ndarray]:  # fmt: skip
    """What each part adds to the P&L of `moves` (K,) in each draw, (n,), in money; `together`: all factors as one."""
    found: dict[BandPart, np.ndarray] = {}
    before = totals(arrays, moves[None, :])[0]
    at = np.broadcast_to(moves, (spread.draws, len(moves)))
    parts: list[tuple[BandPart, np.ndarray]] = [(part, draws) for part, draws in spread.factors.items() if draws.any()]
    for number, (part, draws) in enumerate(parts):
        at = np.maximum(at + draws, np.minimum(spread.least, moves))
        if together and number + 1 < len(parts):
            continue
        after = totals(arrays, at)
        found[part] = after - before
        before = after
    columns = {name: column for column, name in enumerate(arrays.factors)}
    own, loads = spread.own.draws(spread.horizon, at, columns, seed)
    if spread.own.known:
        found["positions' own"] = own
        found["errors of loads"] = loads
    return found


def simulate(
    arrays: Sensitivities, moves: np.ndarray, spread: Spread, total: Decimal, *, level: float, seed: int
) -> Interval:
    """The interval that holds the P&L with probability `level`, in money, and each part's share of its width.

    Each draw adds up the parts, the book revalued in full under the factors' moves; the ends are quantiles of the
    differences from the point, which always lies inside. A part's share is its covariance with the whole over the
    variance of the whole: shares add to one, and one that makes up for others is below zero.
    """
    parts = gains_by_part(arrays, moves, spread, seed)
    gains = np.sum(list(parts.values()), axis=0) if parts else np.zeros(spread.draws)
    low, high = _ends(gains, level)
    variance = float(gains.var())
    shares: dict[str, float] = {
        part: float(np.mean((one - one.mean()) * (gains - gains.mean()))) / variance
        for part, one in parts.items() if variance > 0
    }  # fmt: skip
    return Interval(
        lower=total + usd(low), upper=total + usd(high), level=level, parts=shares, untested=spread.untested,
        method=f"{level:.0%} of {spread.draws} draws, seed {seed}: {spread.words}; {spread.own.words}",
    )  # fmt: skip


def ends(
    arrays: Sensitivities, moves: np.ndarray, spread: Spread, *, level: float, seed: int
) -> tuple[float, float]:  # fmt: skip
    """The ends of the interval about the P&L of `moves`, in money."""
    parts = gains_by_part(arrays, moves, spread, seed, together=True)
    return _ends(np.sum(list(parts.values()), axis=0), level) if parts else (0.0, 0.0)


def _ends(gains: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(gains, [(1 - level) / 2, (1 + level) / 2])
    return min(float(low), 0.0), max(float(high), 0.0)


def why_untested(level: float, days: int, share: float, *, plain: bool, aged: bool = False) -> str:
    """Why the level of a band was not tested; empty where it was. `share`: of the book that it was tested on the likes
    of; `plain`: the covariance and the completion that were tested; `aged`: time passes."""
    if not math.isclose(level, TESTED_LEVEL):
        return f"tested at {TESTED_LEVEL:.0%} alone"
    if not TESTED[0] <= days <= TESTED[1]:
        return f"tested over {TESTED[0]} to {TESTED[1]} days, not {days}"
    if share < TESTED_SHARE:
        return f"tested on books of shares with a history, which {share:.0%} of this one is"
    if aged:
        return "tested without time passing"
    return "" if plain else "tested with the other factors completed, by Gaussian draws"
