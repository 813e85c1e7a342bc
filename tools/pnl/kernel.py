"""The arithmetic of P&L: many positions under many scenarios at once, by total, factor, sector and tail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from finllm.tools.pnl.contracts import Contracts
from finllm.tools.pnl.damping import damped, damped_bend, damped_slope
from finllm.tools.pnl.translation import Translation

CHUNK_BYTES = 2 << 20
"""Size of one block of positions × scenarios: it stays in the cache of a core, and the full tensor is never made."""


@dataclass(frozen=True)
class Sensitivities:
    """What P positions gain when K factors move by m: max(L·w + ½·κ·(D·w)², −value where `floored`), then by `fx`.

    w (W,) is m and, after it, the damped moves of the factors at the places `felt`: W = K without any. All money is in
    the book's currency at the rates of today. `linear` (P, W) per unit of w; `direction` (P, W) and `curvature` (P,)
    give the second order, where D·w is the move of a stock or of what greeks are to; `value` (P,); `floored` (P,): a
    stock's price stops at zero, and so does an option's premium. `contracts` are revalued instead, with loads on w, and
    their rows of L, D and κ are zero. `fx` is None where book and positions are all in USD, and no rate is in `felt`.
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
    fx: Translation | None = None
    felt: tuple[int, ...] = ()

    def wide(self, moves: np.ndarray) -> np.ndarray:
        """Moves (…, K) with what is felt of the damped ones after them, (…, W)."""
        at = list(self.felt)
        return np.concatenate([moves, damped(moves[..., at])], axis=-1) if at else moves

    def folded(self, parts: np.ndarray) -> np.ndarray:
        """What w explains, (…, W), with the damped parts put to their factors, (…, K)."""
        if not self.felt:
            return parts
        found = parts[..., : len(self.factors)].copy()
        found[..., list(self.felt)] += parts[..., len(self.factors) :]
        return found

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
            fx=self.fx and self.fx.rows(at),
        )  # fmt: skip

    def loaded(self) -> list[str]:
        """Factors that move the value of some position, in the order of `factors`."""
        second = (self.direction != 0) & (self.curvature[:, None] != 0)
        used = self.folded(((self.linear != 0) | second).any(axis=0))
        if self.contracts:
            used = used | self.folded(self.contracts.used)
        if self.fx is not None:
            used[self.fx.columns()] = True
        return [name for name, one in zip(self.factors, used, strict=True) if one]

    def gradient(self, moves: np.ndarray | None = None) -> np.ndarray:
        """Money per unit of each factor for the whole book, (K,), after `moves` (K,) or now, where no floor holds."""
        at = np.zeros(len(self.factors)) if moves is None else moves
        slope = self._slopes(at, floors=moves is not None)
        if self.fx is None:
            return slope.sum(axis=0)
        gains, rates = local_gains(self, at[None, :])[:, 0], self.fx.returns(at[None, :])
        return ((1.0 + rates) * slope + (self.fx.exposed + gains)[:, None] * self.fx.slopes(at)).sum(axis=0)

    def hessian(self, moves: np.ndarray | None = None) -> np.ndarray:
        """Money per product of units for the whole book, (K, K): Σ κ·D·Dᵀ, a contract's by its first channel alone.

        What exchange rates add is that where nothing has moved.
        """
        at, still = self.curved, np.zeros(len(self.factors))
        here = still if moves is None else moves
        found = self.direction[at].T @ (self.curvature[at, None] * self.direction[at])
        if self.contracts:
            curves = self.contracts.slopes(self.wide(here))[1]
            found += self.contracts.loads[0].T @ (curves[:, None] * self.contracts.loads[0])
        if self.felt:
            turn = np.vstack([np.eye(len(still)), np.diag(damped_slope(here))[list(self.felt)]])  # ∂w/∂m, (W, K)
            found = turn.T @ found @ turn
            found[self.felt, self.felt] += self.bends(here)
        if self.fx is None:
            return found
        cross = self._slopes(still, floors=False).T @ self.fx.slopes(still)
        return found + cross + cross.T + self.fx.curve(len(self.factors))

    def bends(self, moves: np.ndarray) -> np.ndarray:
        """What damping adds to the hessian's diagonal at the moves (K,), by factor of `felt`; floors are left out."""
        slope = self._wide_slopes(moves, floors=False)[:, len(self.factors) :].sum(axis=0)
        return slope * damped_bend(moves[list(self.felt)])

    def _slopes(self, moves: np.ndarray, *, floors: bool) -> np.ndarray:
        """Each position's own gradient at the moves (K,) and the rates of today, (P, K); none at a floor that holds."""
        slope = self._wide_slopes(moves, floors=floors)
        slope[:, len(self.factors) :] *= damped_slope(moves[list(self.felt)])
        return self.folded(slope)

    def _wide_slopes(self, moves: np.ndarray, *, floors: bool) -> np.ndarray:
        """The same per unit of w, (P, W)."""
        wide = self.wide(moves)
        slope = self.linear + (self.curvature * (self.direction @ wide))[:, None] * self.direction
        if floors:
            gains = self.linear @ wide + 0.5 * self.curvature * (self.direction @ wide) ** 2
            slope[self.floored & (np.sign(self.value) * gains <= -np.abs(self.value))] = 0.0
        if self.contracts:
            slope[self.contracts.rows] = self.contracts.slopes(wide)[0]
        return slope


@dataclass(frozen=True)
class Batch:
    """P&L of S scenarios: `total` (S,), `by_factor` (S, K), `interaction` (S,), `by_sector` (S, n_sectors).

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
    """P&L of every position: (P, S) for `moves` of shape (S, K)."""
    gains = local_gains(book, moves)
    return gains if book.fx is None else book.fx.translated(gains, moves)


def local_gains(book: Sensitivities, moves: np.ndarray) -> np.ndarray:
    """P&L of every position at the rates of today: (P, S) for `moves` of shape (S, K)."""
    wide = book.wide(moves)
    gains = book.linear @ wide.T
    at = book.curved
    if at.size:
        gains[at] += 0.5 * book.curvature[at, None] * (book.direction[at] @ wide.T) ** 2
    held = np.flatnonzero(book.floored)
    if held.size:  # a short gains no more than the price, so its floor is a ceiling
        value = book.value[held, None]
        gains[held] = np.where(value > 0, np.maximum(gains[held], -value), np.minimum(gains[held], -value))
    if book.contracts:
        gains[book.contracts.rows] = book.contracts.gains(wide)
    return gains


def own_terms(book: Sensitivities, moves: np.ndarray) -> np.ndarray:
    """What each factor explains alone of each position: (P, K) for one scenario (K,)."""
    own = local_terms(book, moves)
    return own if book.fx is None else book.fx.alone(own, moves)


def local_terms(book: Sensitivities, moves: np.ndarray) -> np.ndarray:
    """What each factor explains alone at the rates of today: (P, K) for one scenario (K,).

    L·w + ½·κ·D²·w², and of a contract its full revaluation under that factor's move and no other.
    """
    wide = book.wide(moves)
    own = book.folded(book.linear * wide + 0.5 * book.curvature[:, None] * (book.direction * wide) ** 2)
    if book.contracts:
        at = np.flatnonzero(book.folded(book.contracts.used) & (moves != 0))
        alone = np.zeros((len(book.contracts), len(moves)))
        alone[:, at] = book.contracts.gains(book.wide(np.diag(moves)[at]))
        own[book.contracts.rows] = alone
    return own


def totals(book: Sensitivities, moves: np.ndarray) -> np.ndarray:
    """P&L of the book: (S,) for `moves` (S, K), without cuts."""
    return _by_sector(book, moves).sum(axis=1)


def revalue(book: Sensitivities, moves: np.ndarray, tail: float = 0.025) -> Batch:
    """Every scenario's total, its cuts by factor and by sector, and positions for the worst share `tail`.

    Cuts of the first and second order are made after adding positions up, which is exact; only floors and contracts
    need a pass over positions × scenarios, in blocks.
    """
    n = len(moves)
    wide = book.wide(moves)
    second = 0.5 * book.curvature[:, None] * book.direction**2  # (P, W)
    by_factor = wide * book.linear.sum(axis=0) + wide**2 * second.sum(axis=0)
    if book.fx is not None:
        by_factor += book.fx.alone_summed(book.linear, second, wide)
    by_factor = book.folded(by_factor)
    if book.contracts:
        for at in np.flatnonzero(book.folded(book.contracts.used)):
            alone = np.zeros_like(moves)
            alone[:, at] = moves[:, at]
            for some, part in book.contracts.parts(book.wide(alone)):
                rates = 0.0 if book.fx is None else book.fx.rows(book.contracts.rows[some]).returns(alone)
                by_factor[:, at] += (part * (1.0 + rates)).sum(axis=0)
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
    """P&L by sector, (S, n_sectors). Positions of one sector and currency are translated together."""
    wide = book.wide(moves)
    if book.fx is None:
        return _by_cell(book, wide, book.sector, len(book.sectors))
    rates, currency = book.fx.by_currency(moves)  # (C, S) and (P,)
    cell, shape = book.sector * len(rates) + currency, (len(book.sectors), len(rates))
    gains = _by_cell(book, wide, cell, shape[0] * shape[1]).reshape(len(moves), *shape)
    exposed = np.bincount(cell, book.fx.exposed, shape[0] * shape[1]).reshape(shape)
    return (gains + (exposed + gains) * rates.T[:, None, :]).sum(axis=2)


def _by_cell(book: Sensitivities, moves: np.ndarray, cell: np.ndarray, cells: int) -> np.ndarray:
    """P&L at the rates of today by cell, (S, cells), for wide `moves` (S, W); `cell` (P,): which cell each is in."""
    found = np.zeros((len(moves), cells))
    for at in range(cells):
        found[:, at] = moves @ book.linear[cell == at].sum(axis=0)
    _add_curves(book, moves, cell, found)
    _add_floors(book, moves, cell, found)
    if book.contracts:
        found += book.contracts.summed(moves, cell[book.contracts.rows], cells)
    return found


def _add_rows(by_cell: np.ndarray, gains: np.ndarray, cell: np.ndarray) -> None:
    """Add `gains` (p, S) of positions in the cells `cell` (p,)."""
    owners = np.zeros((len(gains), by_cell.shape[1]))
    owners[np.arange(len(gains)), cell] = 1.0
    by_cell += gains.T @ owners


def _add_curves(book: Sensitivities, moves: np.ndarray, cell: np.ndarray, by_cell: np.ndarray) -> None:
    """½·mᵀHm by cell, where H adds κ·D·Dᵀ over the cell's positions."""
    curved = book.curved
    for at in np.unique(cell[curved]):
        mine = curved[cell[curved] == at]
        hessian = book.direction[mine].T @ (book.curvature[mine, None] * book.direction[mine])
        by_cell[:, at] += 0.5 * np.einsum("sk,sk->s", moves @ hessian, moves)


def _add_floors(book: Sensitivities, moves: np.ndarray, cell: np.ndarray, by_cell: np.ndarray) -> None:
    """What the floor at a price of zero gives back, by cell. Only positions that can reach it are looked at."""
    _add_curved_floors(book, moves, cell, by_cell)
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
        owners = np.zeros((len(back), by_cell.shape[1]))
        owners[np.arange(len(back)), cell[held[block]]] = -book.value[held[block]]
        by_cell += back.T @ owners


def _add_curved_floors(book: Sensitivities, moves: np.ndarray, cell: np.ndarray, by_cell: np.ndarray) -> None:
    """What the floor at a premium of zero gives back where there is curvature, by cell."""
    held = book.curved[book.floored[book.curved] & (book.value[book.curved] != 0)]
    step = max(1, CHUNK_BYTES // (8 * max(1, len(moves))))
    for start in range(0, len(held), step):
        block = held[start : start + step]
        back = book.linear[block] @ moves.T
        back += 0.5 * book.curvature[block, None] * (book.direction[block] @ moves.T) ** 2
        back = np.minimum(1.0 + back / book.value[block, None], 0.0)  # below zero by how much
        _add_rows(by_cell, back * -book.value[block, None], cell[block])
