"""Other readings of an event, weighed by their probability, and what factors do about the move they are read as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finllm.errors import InputError
from finllm.tools.data.factors import Direction, Size
from finllm.tools.forecasts.conditioned import KEPT_SPREAD
from finllm.tools.pnl.joint import Joint
from finllm.tools.pnl.propagate import Covariance
from finllm.tools.pnl.shocks import BOUNDS, JudgedShock, judged_shock
from finllm.tools.pnl.sizes import FactorView

Call = tuple[Direction, Size | None]
"""A direction with its size; none of the latter where nothing moves."""
LEAST_CHANCE = 1e-6
HEEDED = 0.10
"""How often the market does as it is read beyond chance: of 67 dated episodes whose index was read to move, it went
that way over the next 20 days in 37 (2·38/69 − 1; docs/numbers.md). Else the market goes as if nothing was read."""
SIZES: dict[Size, float] = {"small": 0.65, "medium": 0.225, "large": 0.095, "extreme": 0.03}
"""Chances of sizes where none was asked for, as nothing was read to move: the share of a factor's moves of a sign that
lie nearest to each size's quantile (`shocks.QUANTILE`)."""


@dataclass(frozen=True)
class ReadFactor:
    """How likely each call of a factor is, as the reading has it; they add to one."""

    factor: str
    chances: Mapping[Call, float]


def read_factor(
    factor: str, directions: Mapping[str, float], sizes: Mapping[str, float] | None, *, heeded: float = HEEDED
) -> ReadFactor:
    """The chance of each direction with each size that the market follows; `sizes` None where no size was asked for.

    The model's probabilities are of what the text says. What it says is `heeded` so often; else nothing is read.
    """
    known: dict[Size, float] = {size: (sizes or SIZES).get(size, 0.0) for size in SIZES}
    whole = sum(known.values())
    shares: dict[Size, float] = {size: one / whole for size, one in known.items()} if whole > 0 else SIZES
    chances: dict[Call, float] = {("none", None): heeded * directions.get("none", 0.0) + 1.0 - heeded}
    ways: tuple[Direction, ...] = ("up", "down")
    moving: dict[Call, float] = {
        (way, size): heeded * directions.get(way, 0.0) * one for way in ways for size, one in shares.items()
    }
    return ReadFactor(factor, chances | moving)


@dataclass(frozen=True)
class Drawn:
    """Moves of all factors of a view, (n, K), each step about the one before: the calls, sizes, and all else.

    `factors` are those that were drawn.
    """

    called: np.ndarray
    sized: np.ndarray
    whole: np.ndarray
    factors: tuple[str, ...]


def draw_readings(
    view: FactorView, joint: Joint, near: Covariance, given: Mapping[str, float], reads: Sequence[ReadFactor], *,
    draws: int, seed: int, held: frozenset[str] = frozenset(),
) -> Drawn:  # fmt: skip
    """Draw what was read of each factor, how far it then goes, and the factors that nobody read, given these.

    Calls of different factors are drawn together, from the lowest to the highest, by the correlation of the factors:
    where one is misread, so are those that move with it. A factor that is read to move does so with `KEPT_SPREAD` of
    its σ about the size; one read not to is left to the others, as one of which nothing was read. `given` moves are a
    person's, and stay; those of `held` move in the draws alone in which they are read to. No move leaves the bounds of
    its unit.
    """
    rng = np.random.default_rng(seed + 2)
    ids = tuple(view.factors.drivers)
    reads = [one for one in reads if one.factor not in given]
    names = [*given, *(one.factor for one in reads)]
    called = np.zeros((draws, len(ids)))
    moved = np.zeros((draws, len(names)), dtype=bool)
    for at, name in enumerate(given):
        called[:, ids.index(name)], moved[:, at] = given[name], True
    share = _uniform(rng, _correlation([one.factor for one in reads], joint.covariance), draws)
    for at, one in enumerate(reads):
        moves, chances, still = _calls(one, view, joint.horizon)
        which = np.searchsorted(np.cumsum(chances)[:-1], share[:, at], side="right")
        called[:, ids.index(one.factor)] = moves[which]
        moved[:, len(given) + at] = ~still[which]
    spread = _noise(rng, [one.factor for one in reads], view, joint, near, draws)
    sized = called.copy()
    for at, one in enumerate(reads):
        sized[:, ids.index(one.factor)] += np.where(moved[:, len(given) + at], KEPT_SPREAD * spread[:, at], 0.0)
    sized = _bounded(sized, view, ids)
    whole = sized.copy()
    _others(called, sized, whole, moved, names, ids, near, rng, held)
    _alone(whole, moved, names, ids, view, joint, rng, held)
    others = [name for name in near.names if name not in names and name not in held]
    return Drawn(called, sized, _bounded(whole, view, ids), (*(one.factor for one in reads), *others))


def _calls(read: ReadFactor, view: FactorView, horizon: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moves from the lowest to the highest, their chances, and which of them is none."""
    rows: list[tuple[float, float, bool]] = []
    for (direction, size), chance in read.chances.items():
        if chance <= LEAST_CHANCE:
            continue
        if direction == "none" or size is None:
            rows.append((0.0, chance, True))
            continue
        try:
            move = judged_shock(JudgedShock(read.factor, direction, size), view, horizon).move
        except InputError:  # no size is known of it: it is left to the others
            rows.append((0.0, chance, True))
            continue
        rows.append((move, chance, False))
    rows.sort(key=lambda row: row[0])
    moves, chances, still = (np.array(column) for column in zip(*rows, strict=True))
    return moves, chances / chances.sum(), still.astype(bool)


def _uniform(rng: np.random.Generator, correlation: np.ndarray, draws: int) -> np.ndarray:
    from scipy.special import ndtr

    return ndtr(_normal(rng, correlation, draws))


def _normal(rng: np.random.Generator, covariance: np.ndarray, draws: int) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance) if covariance.size else (np.zeros(0), np.zeros((0, 0)))
    return rng.standard_normal((draws, len(covariance))) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T


def _correlation(names: Sequence[str], covariance: Covariance) -> np.ndarray:
    """That of the factors; none with one that has no history."""
    found = np.eye(len(names))
    at = [row for row, name in enumerate(names) if name in covariance.names]
    block = covariance.sub([names[row] for row in at])
    scale = np.sqrt(np.diag(block))
    found[np.ix_(at, at)] = block / np.outer(scale, scale)
    return found


def _noise(
    rng: np.random.Generator, names: Sequence[str], view: FactorView, joint: Joint, near: Covariance, draws: int
) -> np.ndarray:  # fmt: skip
    """Draws (n, k) of what the factors do together over the horizon, in their units, about zero."""
    sigma = np.array([sigma_of(view, name, joint.horizon) for name in names])
    return _normal(rng, _correlation(names, near), draws) * sigma


def sigma_of(view: FactorView, name: str, horizon: int) -> float:
    """σ over the horizon, in the factor's unit; 0 where none is known."""
    found = view.size(name, horizon).sigma
    return found.value if found else 0.0


def _others(
    called: np.ndarray, sized: np.ndarray, whole: np.ndarray, moved: np.ndarray, names: Sequence[str],
    ids: Sequence[str], near: Covariance, rng: np.random.Generator, held: frozenset[str],
) -> None:  # fmt: skip
    """Fill in the factors that are not read to move: their means given those that are, and about these what is left.

    Those of `held` are left where they are.
    """
    inside = [at for at, name in enumerate(names) if name in near.names]
    for pattern in np.unique(moved[:, inside], axis=0) if len(moved) else []:
        rows = np.flatnonzero((moved[:, inside] == pattern).all(axis=1))
        known = [names[at] for at, on in zip(inside, pattern, strict=True) if on]
        free = [name for name in near.names if name not in known and name not in held]
        if not free:
            continue
        slopes, left = _given(near, known, free)
        to, of = (np.array([ids.index(name) for name in some], dtype=int) for some in (free, known))
        called[np.ix_(rows, to)] = called[np.ix_(rows, of)] @ slopes.T
        sized[np.ix_(rows, to)] = sized[np.ix_(rows, of)] @ slopes.T
        whole[np.ix_(rows, to)] = sized[np.ix_(rows, to)] + _normal(rng, left, len(rows))


def _given(near: Covariance, known: Sequence[str], free: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of the free factors on the known ones, (n_free, n_known), and the covariance that these leave of them.

    Worked out in σ of each, so that bp and returns do not spoil the digits; collinear factors share a slope.
    """
    scale = np.sqrt(np.diag(near.matrix))
    correlation = near.matrix / np.outer(scale, scale)
    a, b = near.at(free), near.at(known)
    cross = correlation[np.ix_(a, b)]
    inside = cross @ np.linalg.pinv(correlation[np.ix_(b, b)], rcond=1e-10, hermitian=True)
    left = (correlation[np.ix_(a, a)] - inside @ cross.T) * np.outer(scale[a], scale[a])
    return inside * np.outer(scale[a], 1.0 / scale[b]), (left + left.T) / 2


def _alone(
    whole: np.ndarray, moved: np.ndarray, names: Sequence[str], ids: Sequence[str], view: FactorView, joint: Joint,
    rng: np.random.Generator, held: frozenset[str],
) -> None:  # fmt: skip
    """Factors without a history move by themselves, by their reviewed σ, where nobody reads that they move."""
    for name in (one for one in joint.missing if one not in held):
        still = ~moved[:, names.index(name)] if name in names else np.ones(len(whole), dtype=bool)
        whole[:, ids.index(name)] += np.where(
            still, sigma_of(view, name, joint.horizon) * rng.standard_normal(len(whole)), 0.0
        )


def _bounded(moves: np.ndarray, view: FactorView, ids: Sequence[str]) -> np.ndarray:
    """The moves within what their units allow and above the factors' floors."""
    return np.maximum(moves, least_moves(view, ids))


def least_moves(view: FactorView, ids: Sequence[str]) -> np.ndarray:
    """How far down each factor can go, (K,)."""
    return np.array([max(BOUNDS[view.factors[name].unit][0], view.least_move(name)[0]) for name in ids])
