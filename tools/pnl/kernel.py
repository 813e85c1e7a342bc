"""The arithmetic of P&L: many positions under many scenarios at once, by total, factor, sector and tail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from finllm.tools.pnl.contracts import Contracts

CHUNK_BYTES = 2 << 20
"""Size of one block of positions × scenarios: it stays in the cache of a core, and the full tensor is never made."""


@dataclass(frozen=True)
class Sensitivities:
    """What P positions gain, USD, when K factors move by m: max(L·m + ½·κ·(D·m)², −value where `floored`).

    `linear` (P, K) USD per unit of the factor; `direction` (P, K) and `curvature` (P,) give the second order, where
    D·m is the move of a stock or of what greeks are to; `value` (P,) USD; `floored` (P,): a stock's price stops at
    zero, and so does an option's premium. `contracts` are revalued instead, and their rows of L, D and κ are zero.
    `sector` (P,) indexes `sectors`. No NaN anywhere.
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
    contracts: Contracts | None = None

    @property
    def curved(self) -> np.ndarray:
        """Indices of the positions with a second order."""
        return np.flatnonzero(self.curvature)

    def rows(self, at: Sequence[int] | np.ndarray) -> Sensitivities:
        """Those of the positions `at`."""
        return replace(
            self, positions=tuple(self.positions[row] for row in at), sector=self.sector[at], value=self.value[at],
            linear=self.linear[at], direction=self.direction[at], curvature=self.curvature[at],
            floored=self.floored[at], contracts=self.contracts and self.contracts.within(np.asarray(at, dtype=int)),
        )  # fmt: skip

    def loaded(self) -> list[str]:
        """Factors that move the value of some position, in the order of `factors`."""
        second = (self.direction != 0) & (self.curvature[:, None] != 0)
        used = ((self.linear != 0) | second).any(axis=0)
        if self.contracts:
            used = used | self.contracts.used
        return [name for name, one in zip(self.factors, used, strict=True) if one]

    def gradient(self, moves: np.ndarray | None = None) -> np.ndarray:
        """USD per unit of each factor for the whole book, (K,), after `moves` (K,) or now, where no floor holds."""
        at = np.zeros(len(self.factors)) if moves is None else moves
        slope = self.linear + (self.curvature * (self.direction @ at))[:, None] * self.direction
        dead = np.zeros(len(self.floored), dtype=bool)
        if moves is not None:
            gains = self.linear @ at + 0.5 * self.curvature * (self.direction @ at) ** 2
            dead = self.floored & (np.sign(self.value) * gains <= -np.abs(self.value))
        own = self.contracts.slopes(at)[0].sum(axis=0) if self.contracts else 0.0
        return slope[~dead].sum(axis=0) + own

    def hessian(self, moves: np.ndarray | None = None) -> np.ndarray:
        """USD per product of units for the whole book, (K, K): Σ κ·D·Dᵀ, a contract's by its first channel alone."""
        at = self.curved
        found = self.direction[at].T @ (self.curvature[at, None] * self.direction[at])
        if self.contracts:
            curves = self.contracts.slopes(np.zeros(len(self.factors)) if moves is None else moves)[1]
            found += self.contracts.loads[0].T @ (curves[:, None] * self.contracts.loads[0])
        return found


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
    if book.contracts:
        gains[book.contracts.rows] = book.contracts.gains(moves)
    return gains


def own_terms(book: Sensitivities, moves: np.ndarray) -> np.ndarray:
    """What each factor explains alone of each position, USD, (P, K) for one scenario (K,).

    L·m + ½·κ·D²·m², and of a contract its full revaluation under that factor's move and no other.
    """
    own = book.linear * moves + 0.5 * book.curvature[:, None] * (book.direction * moves) ** 2
    if book.contracts:
        own[book.contracts.rows] = book.contracts.alone(moves)
    return own


def totals(book: Sensitivities, moves: np.ndarray) -> np.ndarray:
    """P&L of the book, USD: (S,) for `moves` (S, K), without cuts."""
    return _by_sector(book, moves).sum(axis=1)


def revalue(book: Sensitivities, moves: np.ndarray, tail: float = 0.025) -> Batch:
    """Every scenario's total, its cuts by factor and by sector, and positions for the worst share `tail`.

    Cuts of the first and second order are made after adding positions up, which is exact; only floors and contracts
    need a pass over positions × scenarios, in blocks.
    """
    n = len(moves)
    second = 0.5 * (book.curvature[:, None] * book.direction**2).sum(axis=0)  # (K,)
    by_factor = moves * book.linear.sum(axis=0) + moves**2 * second
    if book.contracts:
        for at in np.flatnonzero(book.contracts.used):
            alone = np.zeros_like(moves)
            alone[:, at] = moves[:, at]
            for _, part in book.contracts.parts(alone):
                by_factor[:, at] += part.sum(axis=0)
    by_sector = _by_sector(book, moves)
    total = by_sector.sum(axis=1)
    worst = min(n, int(np.ceil(tail * n)))
    found = np.argpartition(total, worst - 1)[:worst] if worst else np.zeros(0, dtype=int)
    found = found[np.argsort(total[found], kind="stable")]
    return Batch(
        total=total, by_factor=by_factor, interaction=total - by_factor.sum(axis=1), by_sector=by_sector, tail=found,
        by_position=position_gains(book, moves[found]).T,
    )  # fmt: skip


def _by_sector(book: Sensitivities, moves: np.ndarray) -> np.ndarray:
    """P&L in USD by sector, (S, n_sectors)."""
    by_sector = np.zeros((len(moves), len(book.sectors)))
    for at in range(len(book.sectors)):
        by_sector[:, at] = moves @ book.linear[book.sector == at].sum(axis=0)
    _add_curves(book, moves, by_sector)
    _add_floors(book, moves, by_sector)
    if book.contracts:
        for at, part in book.contracts.parts(moves):
            _add_rows(by_sector, part, book.sector[book.contracts.rows[at]])
    return by_sector


def _add_rows(by_sector: np.ndarray, gains: np.ndarray, sector: np.ndarray) -> None:
    """Add `gains` (p, S) of positions in `sector` (p,)."""
    owners = np.zeros((len(gains), by_sector.shape[1]))
    owners[np.arange(len(gains)), sector] = 1.0
    by_sector += gains.T @ owners


def _add_curves(book: Sensitivities, moves: np.ndarray, by_sector: np.ndarray) -> None:
    """½·mᵀHm by sector, where H adds κ·D·Dᵀ over the sector's positions."""
    curved = book.curved
    for at in np.unique(book.sector[curved]):
        mine = curved[book.sector[curved] == at]
        hessian = book.direction[mine].T @ (book.curvature[mine, None] * book.direction[mine])
        by_sector[:, at] += 0.5 * np.einsum("sk,sk->s", moves @ hessian, moves)


def _add_floors(book: Sensitivities, moves: np.ndarray, by_sector: np.ndarray) -> None:
    """What the floor at a price of zero gives back, by sector. Only positions that can reach it are looked at."""
    _add_curved_floors(book, moves, by_sector)
    held = np.flatnonzero(book.floored & (book.value != 0) & (book.curvature == 0))
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


def _add_curved_floors(book: Sensitivities, moves: np.ndarray, by_sector: np.ndarray) -> None:
    """What the floor at a premium of zero gives back where there is curvature, by sector."""
    held = book.curved[book.floored[book.curved] & (book.value[book.curved] != 0)]
    step = max(1, CHUNK_BYTES // (8 * max(1, len(moves))))
    for start in range(0, len(held), step):
        block = held[start : start + step]
        back = book.linear[block] @ moves.T
        back += 0.5 * book.curvature[block, None] * (book.direction[block] @ moves.T) ** 2
        back = np.minimum(1.0 + back / book.value[block, None], 0.0)  # below zero by how much
        _add_rows(by_sector, back * -book.value[block, None], book.sector[block])
