"""Translation: what positions in other currencies gain in the base currency, by their own move and by the rate's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Translation:
    """The currencies of P positions. A gain g at the rate of today becomes g + (E + g)·r, r = (1 + mₒ)/(1 + mᵦ) − 1.

    mₒ and mᵦ are the moves of the position's currency and of the base currency against the dollar: `own` (P,) and
    `base` are the columns of their factors, −1 for the dollar, which does not move. `exposed` (P,) is E, the value held
    in the currency, in units of the base currency. Where `own` is the base, r is zero. No NaN.
    """

    own: np.ndarray
    base: int
    exposed: np.ndarray

    def rows(self, at: Sequence[int] | np.ndarray) -> Translation:
        """Those of the positions `at`."""
        return replace(self, own=self.own[at], exposed=self.exposed[at])

    def after(self, gains: np.ndarray, moves: np.ndarray) -> Translation:
        """The same positions after gains (P,) at the rates of today, and the moves (K,) of one scenario."""
        held = (self.exposed + gains) * (1.0 + self.returns(moves[None, :])[:, 0])
        return replace(self, exposed=np.where(self.exposed != 0, held, 0.0))

    @property
    def foreign(self) -> np.ndarray:
        """Which positions are in another currency than the base, (P,)."""
        return self.own != self.base

    def columns(self) -> list[int]:
        """The columns of the factors that translate some position."""
        used = {*self.own[self.foreign].tolist(), self.base} if self.foreign.any() else set[int]()
        return sorted(used - {-1})

    def by_currency(self, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """r of each currency, (C, S) for `moves` (S, K), and which of them each position is in, (P,)."""
        columns, at = np.unique(self.own, return_inverse=True)
        below = 1.0 + (moves[:, self.base] if self.base >= 0 else np.zeros(len(moves)))
        rates = np.zeros((len(columns), len(moves)))
        for row, column in enumerate(columns.tolist()):
            if column != self.base:
                rates[row] = (1.0 + (moves[:, column] if column >= 0 else 0.0)) / below - 1.0
        return rates, at

    def returns(self, moves: np.ndarray) -> np.ndarray:
        """r of every position, (P, S) for `moves` (S, K)."""
        rates, at = self.by_currency(moves)
        return rates[at]

    def translated(self, gains: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """Gains at the rates of today, (P, S), as they are after `moves` (S, K)."""
        return gains + (self.exposed[:, None] + gains) * self.returns(moves)

    def alone(self, own: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """What each factor explains alone of each position, (P, K), where `own` (P, K) is so at the rates of today."""
        found = own.copy()
        for column, rows, rate in self._by_factor(moves[None, :]):
            found[rows, column] += (self.exposed[rows] + own[rows, column]) * rate[0]
        return found

    def alone_summed(self, linear: np.ndarray, second: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """What `alone` adds to the local terms, summed over positions, (S, K) for `moves` (S, K).

        `linear` and `second` (P, K): the local terms per unit and per unit², which a currency's own factor may have.
        """
        found = np.zeros(moves.shape)
        for column, rows, rate in self._by_factor(moves):
            move = moves[:, column]
            local = linear[rows, column].sum() * move + second[rows, column].sum() * move**2
            found[:, column] = (self.exposed[rows].sum() + local) * rate
        return found

    def slopes(self, moves: np.ndarray) -> np.ndarray:
        """∂r/∂m of every position at the moves (K,) of one scenario, (P, K)."""
        below = 1.0 + (moves[self.base] if self.base >= 0 else 0.0)
        found = np.zeros((len(self.own), len(moves)))
        abroad = np.flatnonzero(self.foreign & (self.own >= 0))
        found[abroad, self.own[abroad]] = 1.0 / below
        if self.base >= 0:
            above = 1.0 + np.where(self.own >= 0, moves[self.own], 0.0)
            found[self.foreign, self.base] = -above[self.foreign] / below**2
        return found

    def curve(self, size: int) -> np.ndarray:
        """Σ E·∂²r/∂m² where nothing has moved, (K, K) for `size` K."""
        found = np.zeros((size, size))
        if self.base < 0:
            return found
        found[self.base, self.base] = 2.0 * self.exposed[self.foreign].sum()
        for column in self.columns():
            if column != self.base:
                held = self.exposed[self.own == column].sum()
                found[column, self.base] -= held
                found[self.base, column] -= held
        return found

    def _by_factor(self, moves: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """By factor that translates: its column, the positions it does so to, (P,), and their r were it alone, (S,)."""
        for column in self.columns():
            move = moves[:, column]
            if column == self.base:
                yield column, self.foreign, 1.0 / (1.0 + move) - 1.0
            else:
                yield column, self.own == column, move
