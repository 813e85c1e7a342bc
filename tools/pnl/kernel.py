"""The arithmetic of P&L: many positions under many scenarios at once, by total, factor, sector and tail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

CHUNK_BYTES = 2 << 20
"""Size of one block of positions × scenarios: it stays in the cache of a core, and the full tensor is never made."""


@dataclass(frozen=True)
class Sensitivities:
    """What P positions gain, USD, when K factors move by m: max(L·m + ½·κ·(D·m)², −value where `floored`).

    `linear` (P, K) USD per unit of the factor; `direction` (P, K) and `curvature` (P,) give the second order, where
    D·m is the move of a bond's yield (bp), of a stock, or of an option's factor; `value` (P,) USD; `floored` (P,):
    a stock's price stops at zero. `sector` (P,) indexes `sectors`. No NaN anywhere.
    """

    positions: tuple[str, ...]
    factors: tuple[str, ...]
    sectors: tuple[str, ...]
    sector: np.ndarray
    value: np.ndarray
    linear: np.ndarray
    direction: np.ndarray
    curvature: np.ndarray
    floored: np.ndarray

    @property
    def curved(self) -> np.ndarray:
        """Indices of the positions with a second order."""
        return np.flatnonzero(self.curvature)

    def rows(self, at: Sequence[int] | np.ndarray) -> Sensitivities:
        """Those of the positions `at`."""
        return replace(
            self, positions=tuple(self.positions[row] for row in at), sector=self.sector[at], value=self.value[at],
            linear=self.linear[at], direction=self.direction[at], curvature=self.curvature[at],
            floored=self.floored[at],
        )  # fmt: skip

    def loaded(self) -> list[str]:
        """Factors that move the value of some position, in the order of `factors`."""
        second = (self.direction != 0) & (self.curvature[:, None] != 0)
        used = ((self.linear != 0) | second).any(axis=0)
        return [name for name, one in zip(self.factors, used, strict=True) if one]

    def gradient(self) -> np.ndarray:
        """USD per unit of each factor for the whole book, (K,)."""
        return self.linear.sum(axis=0)

    def hessian(self) -> np.ndarray:
        """USD per product of units for the whole book, (K, K): Σ κ·D·Dᵀ."""
        at = self.curved
        return self.direction[at].T @ (self.curvature[at, None] * self.direction[at])


@dataclass(frozen=True)
class Batch:
    """P&L in USD of S scenarios: `total` (S,), `by_factor` (S, K), `interaction` (S,), `by_sector` (S, n_sectors).

    Factors and interaction add to the total, and so do sectors, to rounding. `tail` (T,) are the worst scenarios, the
    worst first, and `by_position` (T, P) their P&L.
    """

    total: np.ndarray
    by_factor: np.ndarray
    interaction: np.ndarray
    by_sector: np.ndarray
    tail: np.ndarray
    by_position: np.ndarray


def position_gains(book: Sensitivities, moves: np.ndarray) -> np.ndarray:
    """P&L of every position, USD: (P, S) for `moves` of shape (S, K)."""
    gains = book.linear @ moves.T
    at = book.curved
    if at.size:
        gains[at] += 0.5 * book.curvature[at, None] * (book.direction[at] @ moves.T) ** 2
    held = np.flatnonzero(book.floored)
    if held.size:  # a short gains no more than the price, so its floor is a ceiling
        value = book.value[held, None]
        gains[held] = np.where(value > 0, np.maximum(gains[held], -value), np.minimum(gains[held], -value))
    return gains


def own_terms(book: Sensitivities, moves: np.ndarray) -> np.ndarray:
    """What each factor explains alone of each position, USD: L·m + ½·κ·D²·m², (P, K) for one scenario (K,)."""
    return book.linear * moves + 0.5 * book.curvature[:, None] * (book.direction * moves) ** 2


def totals(book: Sensitivities, moves: np.ndarray) -> np.ndarray:
    """P&L of the book, USD: (S,) for `moves` (S, K), without cuts."""
    return revalue(book, moves, tail=0.0).total


def revalue(book: Sensitivities, moves: np.ndarray, tail: float = 0.025) -> Batch:
    """Every scenario's total, its cuts by factor and by sector, and positions for the worst share `tail`.

    Cuts of the first and second order are made after adding positions up, which is exact; only floors need a pass over
    positions × scenarios, in blocks.
    """
    n = len(moves)
    second = 0.5 * (book.curvature[:, None] * book.direction**2).sum(axis=0)  # (K,)
    by_factor = moves * book.gradient() + moves**2 * second
    by_sector = np.zeros((n, len(book.sectors)))
    for at in range(len(book.sectors)):
        by_sector[:, at] = moves @ book.linear[book.sector == at].sum(axis=0)
    _add_curves(book, moves, by_sector)
    _add_floors(book, moves, by_sector)
    total = by_sector.sum(axis=1)
    worst = min(n, int(np.ceil(tail * n)))
    found = np.argpartition(total, worst - 1)[:worst] if worst else np.zeros(0, dtype=int)
    found = found[np.argsort(total[found], kind="stable")]
    return Batch(
        total=total, by_factor=by_factor, interaction=total - by_factor.sum(axis=1), by_sector=by_sector, tail=found,
        by_position=position_gains(book, moves[found]).T,
    )  # fmt: skip


def _add_curves(book: Sensitivities, moves: np.ndarray, by_sector: np.ndarray) -> None:
    """½·mᵀHm by sector, where H adds κ·D·Dᵀ over the sector's positions."""
    curved = book.curved
    for at in np.unique(book.sector[curved]):
        mine = curved[book.sector[curved] == at]
        hessian = book.direction[mine].T @ (book.curvature[mine, None] * book.direction[mine])
        by_sector[:, at] += 0.5 * np.einsum("sk,sk->s", moves @ hessian, moves)


def _add_floors(book: Sensitivities, moves: np.ndarray, by_sector: np.ndarray) -> None:
    """What the floor at a price of zero gives back, by sector. Only positions that can reach it are looked at."""
    held = np.flatnonzero(book.floored & (book.value != 0))
    if not held.size:
        return
    rate = book.linear[held] / book.value[held, None]  # return per unit of each factor
    low, high = np.minimum(moves.min(axis=0), 0.0), np.maximum(moves.max(axis=0), 0.0)
    deepest = np.where(rate > 0, rate * low, rate * high).sum(axis=1)
    near = np.flatnonzero(deepest < -1.0)
    held, rate = held[near], rate[near]
    step = max(1, CHUNK_BYTES // (8 * max(1, len(moves))))
    for start in range(0, len(held), step):
        block = slice(start, start + step)
        back = rate[block] @ moves.T  # (p, S) returns
        np.add(back, 1.0, out=back)
        np.minimum(back, 0.0, out=back)  # below zero by how much
        owners = np.zeros((len(back), len(book.sectors)))
        owners[np.arange(len(back)), book.sector[held[block]]] = -book.value[held[block]]
        by_sector += back.T @ owners
