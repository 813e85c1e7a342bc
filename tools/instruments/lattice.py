"""American prices of many options of which few share an expiry: boundaries read from polynomials in three terms."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from finllm.tools.instruments.american import NODES, ROWS, Puts, boundary, premium, quadrature
from finllm.tools.instruments.families import BENT, LEAST, TOLERANCE, UNTHREADED, groups, weights

FAMILIES, SCENARIOS = 400, 200
"""So many expiries, in so many scenarios, are read from a lattice: below, polynomials of their own cost less."""
SPREAD, TERM = 1.0, 1.0
"""Width of a cell in ln(σ√T), and in the logarithm of the term that stays as scenarios change: r·T or q·T."""
RATIO = 1.0
"""Width of a cell in the ratio of the two beyond its bends."""
WIDTH = 0.1
"""Within this share of each other the ratio counts evenly; further away, its logarithm."""
SIZES = np.array([10, 10, 7]), np.array([14, 20, 9])
"""Nodes of a cell's polynomial along the three, and of a second try."""
COARSE = np.array([4, 4, 3])
"""Nodes of the one that it starts from."""
ASKED = 600
"""Boundaries of a cell that are each solved for before its polynomial is made."""
PROBES = 32
"""Boundaries on which a polynomial is held against the one solved for, so that prices differ by `TOLERANCE`."""
_NUMBERED = np.array([1 << 36, 1 << 24, 1 << 12, 1])
"""Makes one number of a cell's four: each of the last three is far below 2,000 in size."""
CARRY, INTEREST, NOTHING = 0, 1, 2
"""What stays: q·T of a put, r·T of a call taken as a put; and no carry at all, where there is but r·T."""


def worth(families: int, scenarios: int) -> bool:
    return families >= FAMILIES and scenarios >= SCENARIOS


class Lattice:
    """Cells of (σ√T, the ratio of r·T and q·T, the one that stays), whose polynomials are made as they are needed.

    One lattice serves one question, so that an answer does not depend on what was asked before.
    """

    def __init__(self) -> None:
        self._cells: dict[tuple[int, ...], _Cell | None] = {}
        self._asked: Counter[tuple[int, ...]] = Counter()

    def gaps(self, puts: Puts, alone: np.ndarray, family: np.ndarray) -> np.ndarray:
        """Boundaries (N, n), as `boundary` gives them; those `alone` (N,) are each solved for."""
        gap = np.empty((len(puts), NODES))
        kind = _kinds(puts, family)
        places = _places(puts, kind)
        cells = _cells(places, kind)
        some = np.flatnonzero(~alone)
        labels, first, place = np.unique(_NUMBERED @ cells[:, some], return_index=True, return_inverse=True)
        keys = [tuple(int(one) for one in cells[:, some[at]]) for at in first]
        for key, count in zip(keys, np.bincount(place, minlength=len(keys)), strict=True):
            self._ask(key, int(count))
        rest = [np.flatnonzero(alone)]
        for part in groups(some, family[some] * len(labels) + place):
            cell = self._cells.get(tuple(int(one) for one in cells[:, part[0]]))
            if cell is None:
                rest.append(part)
            else:
                gap[part] = cell.gaps(puts.take(part), places[:, part])
        left = np.concatenate(rest)
        gap[left] = boundary(puts.take(left))
        return gap

    def _ask(self, key: tuple[int, ...], count: int) -> None:
        if key in self._cells:
            return
        self._asked[key] += count
        if self._asked[key] >= ASKED:
            self._cells[key] = _made(key)


def _kinds(puts: Puts, family: np.ndarray) -> np.ndarray:
    """What stays in the scenarios of each one's family, (N,)."""
    found = np.empty(len(puts), dtype=int)
    for part in groups(np.arange(len(puts)), family):
        carry = puts.carry[part]
        found[part] = INTEREST if np.ptp(carry) else NOTHING if carry[0] == 0 else CARRY if carry[0] > 0 else INTEREST
    return found


def _places(puts: Puts, kind: np.ndarray) -> np.ndarray:
    """Coordinates in which the boundary is smooth, (3, N); the last stays within a family."""
    rate = np.log(puts.interest)
    carry = np.log(np.where(kind == CARRY, puts.carry, 1.0))
    ratio = np.where(kind == CARRY, rate - carry, puts.carry / puts.interest - 1.0)
    ratio = np.where(kind == NOTHING, rate, np.arcsinh(ratio / WIDTH))
    return np.stack([np.log(puts.spread), ratio, np.where(kind == CARRY, carry, np.where(kind == NOTHING, 0.0, rate))])


def _puts(kind: int, places: np.ndarray) -> Puts:
    spread, ratio, stays = np.exp(places[0]), places[1], np.exp(places[2])
    if kind == NOTHING:
        return Puts(spread, np.exp(ratio), np.zeros_like(spread))
    if kind == CARRY:
        return Puts(spread, stays * np.exp(WIDTH * np.sinh(ratio)), stays)
    return Puts(spread, stays, stays * (1.0 + WIDTH * np.sinh(ratio)))


def _edges(kind: int) -> np.ndarray:
    """Where the cells of the ratio end: at the boundary's bends, and then evenly."""
    bent = np.array(BENT)
    inner = np.arcsinh((bent if kind == CARRY else np.expm1(-bent)) / WIDTH)
    inner.sort()
    out = RATIO * np.arange(1, 16)
    return np.concatenate([inner[0] - out[::-1], inner, inner[-1] + out])


def _cells(places: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Kind and whole-numbered cell of each, (4, N)."""
    found = np.floor(places / np.array([[SPREAD], [1.4], [TERM]])).astype(int)
    found[2, kind == NOTHING] = 0
    for one in (CARRY, INTEREST):
        found[1, kind == one] = np.searchsorted(_edges(one), places[1, kind == one], side="right")
    return np.concatenate([kind[None, :], found])


def _bounds(key: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """The corners of a cell, (3,) each; None of one that has no end."""
    kind, spread, ratio, stays = key
    if kind == NOTHING:
        low, high = np.array([spread * SPREAD, ratio * 1.4, 0.0]), np.array([0.0, 0.0, 0.0])
        return low, np.array([low[0] + SPREAD, low[1] + 1.4, 0.0]) + high
    edges = _edges(kind)
    if not 0 < ratio < len(edges):
        return None
    return (
        np.array([spread * SPREAD, edges[ratio - 1], stays * TERM]),
        np.array([(spread + 1) * SPREAD, edges[ratio], (stays + 1) * TERM]),
    )


def _made(key: tuple[int, ...]) -> _Cell | None:
    """The polynomial of a cell; None where none meets the prices of the probes."""
    corners = _bounds(key)
    if corners is None:
        return None
    low, high = corners
    flat = high - low < 1e-9
    random = np.random.default_rng(0)
    probes = low[:, None] + (high - low)[:, None] * random.random((3, PROBES))
    cell: _Cell | None = None
    for sizes in (COARSE, *SIZES):
        cell = _Cell.through(key[0], low, high, np.where(flat, 1, sizes), cell)
        if sizes is not COARSE and cell.meets(probes):
            return cell
    return None


@dataclass(frozen=True)
class _Cell:
    """Logarithms of boundaries at Chebyshev's nodes between `low` and `high` (3,), `levels` (a, b, n, c)."""

    kind: int
    low: np.ndarray
    high: np.ndarray
    levels: np.ndarray

    @classmethod
    def through(cls, kind: int, low: np.ndarray, high: np.ndarray, sizes: np.ndarray, start: _Cell | None) -> _Cell:
        axes = [
            (low[at] + high[at]) / 2 + (high[at] - low[at]) / 2 * np.cos((np.arange(size) + 0.5) * np.pi / size)
            for at, size in enumerate(sizes)
        ]
        places = np.stack([one.ravel() for one in np.meshgrid(*axes, indexing="ij")])
        puts = _puts(kind, places)
        found = puts.top[:, None] - boundary(puts, start.each(puts, places) if start else None)
        return cls(kind, low, high, np.ascontiguousarray(np.moveaxis(found.reshape(*sizes, NODES), 2, 3)))

    def gaps(self, puts: Puts, places: np.ndarray) -> np.ndarray:
        """Boundaries (N, n) of one family, for which the last term is settled once."""
        flat = (self.levels @ self._weights(places[:, :1], 2)[0]).reshape(-1, NODES)
        found = np.empty((len(puts), NODES))
        step = min(10 * ROWS, max(1, UNTHREADED // (NODES * len(flat))))
        for start in range(0, len(puts), step):
            some = places[:, start : start + step]
            shares = self._weights(some, 0)[:, :, None] * self._weights(some, 1)[:, None, :]
            found[start : start + step] = shares.reshape(-1, len(flat)) @ flat
        return _below(puts, found)

    def each(self, puts: Puts, places: np.ndarray) -> np.ndarray:
        """Boundaries (N, n) of puts of any family."""
        first, second, last = (self._weights(places, axis) for axis in range(3))
        shares = (first[:, :, None] * second[:, None, :]).reshape(len(puts), -1).T  # (a · b, N)
        settled = (self.levels @ last.T).reshape(len(shares), NODES, -1)
        return _below(puts, (shares[:, None, :] * settled).sum(axis=0).T)

    def _weights(self, places: np.ndarray, axis: int) -> np.ndarray:
        return weights(places[axis], self.low[axis], self.high[axis], self.levels.shape[axis + axis // 2])

    def meets(self, places: np.ndarray) -> bool:
        puts = _puts(self.kind, places)
        read = self.each(puts, places)
        exact = boundary(puts, read)
        edge = np.exp(puts.top - exact[:, 0])
        return all(
            np.abs(premium(puts, spot, read) - premium(puts, spot, exact)).max() <= TOLERANCE
            for spot in (edge, edge * np.exp(0.5 * puts.spread))
        )


def _below(puts: Puts, level: np.ndarray) -> np.ndarray:
    """How far below its top each boundary is, from its logarithm (N, n)."""
    return np.maximum(puts.top[:, None] - level, LEAST * puts.spread[:, None] * quadrature().node)
