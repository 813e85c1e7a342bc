"""American prices in many scenarios: each boundary by itself, or where there are many, through polynomials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from finllm.tools.instruments.american import (
    FAR,
    NODES,
    ROWS,
    Puts,
    boundary,
    premium,
    put_values,
    quadrature,
    still_value,
)

COARSE = 4, 3
"""Nodes in the volatility and in the rate of the polynomial that finer ones start from."""
LEAST_NODES, MORE_NODES = np.array([9.0, 6.0]), np.array([3.5, 3.5])
"""Of a finer one, and how many more for each unit of the logarithms' range."""
FINER = 1.0, 1.5, 2.2
"""What that is multiplied by, from one try to the next."""
WORTH = 2
"""A polynomial is tried where there are this many times its nodes to find."""
BENT = -0.6, -0.16, 0.0
"""ln(r/q) at which polynomials end: the boundary bends at 0, and sharply so just below."""
WIDE = 1.4
"""Range of ln(σ√T), and of ln(r·T), over which a polynomial reaches."""
PROBES = 8
"""Scenarios along each of the two on which a polynomial is held against the boundary itself."""
TOLERANCE = 3e-9
"""By how much of the strike the prices on them may differ."""
_WIDTH = 0.1
"""Within this share of the dividend around it the rate's nodes are spread evenly; further away, their logarithms."""
_TINY = 1e-9
"""Of σ√T, r·T or |q·T|: less does not count."""
LEAST = 1e-3
"""Of σ√τ: no interpolated boundary is nearer to its value at expiry."""
STILL = 300.0
"""Standard deviations by which the drift takes the spot to the boundary from where on there is no volatility left."""
UNTHREADED = 1 << 18
"""Multiplications up to which OpenBLAS keeps a product of matrices to one thread."""
FEW = 200
"""Puts that have their carry or interest in common and are fewer are each solved for."""


class Boundaries(Protocol):
    """Where boundaries (N, n) come from; those `alone` (N,) are each solved for, `family` as for `values`."""

    def gaps(self, puts: Puts, alone: np.ndarray, family: np.ndarray) -> np.ndarray: ...


def values(
    puts: Puts, spot: np.ndarray, european: np.ndarray, family: np.ndarray, source: Boundaries | None = None
) -> np.ndarray:
    """Prices of American puts at `spot`, (N,), given the European ones.

    `family` (N,) numbers from 0 those that have their carry in common, or their interest. However many are asked for
    together, a price is the one that is asked for alone, to 1e-8 of the strike.
    """
    carry = np.where(np.abs(puts.carry) < _TINY, 0.0, puts.carry)
    puts = Puts(np.maximum(puts.spread, _TINY), np.maximum(puts.interest, _TINY), carry)
    found = np.maximum(european, still_value(puts, spot))
    moving = np.flatnonzero(puts.drift > -STILL)
    if moving.size:
        whole = puts.take(moving)
        near = whole.lasting((FAR / np.maximum(whole.drift, FAR)) ** 2)
        found_by = source.gaps if source else _gaps
        gap = found_by(near, near.spread < whole.spread, family[moving])
        own = put_values(near, spot[moving], european[moving], gap)
        found[moving] = np.maximum(found[moving], own)
    return found


def _gaps(puts: Puts, alone: np.ndarray, family: np.ndarray) -> np.ndarray:
    """Boundaries, (N, n): by families, but those `alone` (N,) and those that have few by their side one by one."""
    gap = np.empty((len(puts), NODES))
    with np.errstate(divide="ignore"):
        bend = np.searchsorted(BENT, np.log(puts.interest / np.maximum(puts.carry, 0.0)))
    some = np.flatnonzero(~alone)
    few = [np.flatnonzero(alone)]
    for one in groups(some, (family * (len(BENT) + 1) + bend)[some]):
        wide, deep = (np.floor(np.log(each[one].max() / each[one]) / WIDE) for each in (puts.spread, puts.interest))
        for part in groups(one, wide + 1e3 * deep):
            if len(part) < FEW:
                few.append(part)
            else:
                gap[part] = boundaries(puts.take(part))
    rest = np.concatenate(few)
    if rest.size:  # a spot's steps up and down have the boundary of the spot
        asked = np.stack([puts.spread[rest], puts.interest[rest], puts.carry[rest]])
        _, first, place = np.unique(asked, axis=1, return_index=True, return_inverse=True)
        gap[rest] = boundary(puts.take(rest[first]))[place]
    return gap


def groups(rows: np.ndarray, label: np.ndarray) -> list[np.ndarray]:
    """The `rows` by equal labels."""
    if not rows.size:
        return []
    order = np.argsort(label, kind="stable")
    return np.split(rows[order], np.flatnonzero(np.diff(label[order])) + 1)


def boundaries(puts: Puts) -> np.ndarray:
    """`boundary` of many puts that have their carry in common, or their interest: (N, n).

    The logarithm of the boundary is interpolated in Chebyshev's nodes, more of them where that does not meet the prices
    of the probes. Where more are not worth it, each boundary is solved for.
    """
    axes = _Axes.of(puts)
    places = axes.places(puts)
    reach = np.ptp(places, axis=1)
    probes = puts.take(_spread_out(places))
    surface = None
    for finer in (0.0, *FINER):
        sizes = np.ceil((LEAST_NODES + MORE_NODES * reach) * finer).astype(int) if finer else np.array(COARSE)
        sizes[reach < 1e-9] = 1
        if len(puts) < WORTH * sizes.prod():
            break
        surface = _Surface.through(axes, places.min(axis=1), places.max(axis=1), sizes, surface)
        if finer and _meets(surface, probes):
            return surface.gaps(puts)
    return boundary(puts, surface.gaps(puts) if surface else None)


def _spread_out(places: np.ndarray) -> np.ndarray:
    """Indices of scenarios that are evenly spread, each place's extremes among them."""
    ranks = np.linspace(0, places.shape[1] - 1, PROBES).round().astype(int)
    return np.unique(np.argsort(places, axis=1, kind="stable")[:, ranks])


def _meets(surface: _Surface, probes: Puts) -> bool:
    read = surface.gaps(probes)
    exact = boundary(probes, read)
    edge = np.exp(probes.top - exact[:, 0])
    return all(
        np.abs(premium(probes, spot, read) - premium(probes, spot, exact)).max() <= TOLERANCE
        for spot in (edge, edge * np.exp(0.5 * probes.spread))
    )


@dataclass(frozen=True)
class _Axes:
    """Coordinates in which the boundary is smooth: ln(spread), and one of the interest or carry, the other `fixed`."""

    fixed: float
    carry_is_fixed: bool

    @classmethod
    def of(cls, puts: Puts) -> _Axes:
        if np.ptp(puts.carry) == 0:
            return cls(float(puts.carry[0]), True)
        return cls(float(puts.interest[0]), False)

    def places(self, puts: Puts) -> np.ndarray:
        """(2, N)"""
        if not self.carry_is_fixed:
            rate = np.arcsinh((puts.carry / self.fixed - 1.0) / _WIDTH)
        elif self.fixed > 0:
            rate = np.arcsinh(np.log(puts.interest / self.fixed) / _WIDTH)
        else:
            rate = np.log(puts.interest)
        return np.stack([np.log(puts.spread), rate])

    def puts(self, places: np.ndarray) -> Puts:
        spread, rate = np.exp(places[0]), places[1]
        if not self.carry_is_fixed:
            return Puts(spread, np.full_like(spread, self.fixed), self.fixed * (1.0 + _WIDTH * np.sinh(rate)))
        interest = self.fixed * np.exp(_WIDTH * np.sinh(rate)) if self.fixed > 0 else np.exp(rate)
        return Puts(spread, interest, np.full_like(spread, self.fixed))


@dataclass(frozen=True)
class _Surface:
    """Logarithms of boundaries at Chebyshev's nodes between `low` and `high` (2,), `levels` (a, b, n)."""

    axes: _Axes
    low: np.ndarray
    high: np.ndarray
    levels: np.ndarray

    @classmethod
    def through(
        cls, axes: _Axes, low: np.ndarray, high: np.ndarray, sizes: np.ndarray, start: _Surface | None
    ) -> _Surface:
        """The surface of these `sizes`, whose boundaries are sought from those of a coarser one."""
        first, second = (
            (low[at] + high[at]) / 2 + (high[at] - low[at]) / 2 * np.cos((np.arange(size) + 0.5) * np.pi / size)
            for at, size in enumerate(sizes)
        )
        grid = axes.puts(np.stack([np.repeat(first, sizes[1]), np.tile(second, sizes[0])]))
        found = grid.top[:, None] - boundary(grid, start.gaps(grid) if start else None)
        return cls(axes, low, high, found.reshape(*sizes, NODES))

    def gaps(self, puts: Puts) -> np.ndarray:
        """Interpolated boundaries, (N, n), as `boundary` gives them."""
        found = np.empty((len(puts), NODES))
        rows, columns = self.levels.shape[:2]
        flat = self.levels.reshape(-1, NODES)
        places = self.axes.places(puts)
        step = min(10 * ROWS, max(1, UNTHREADED // (NODES * len(flat))))
        for start in range(0, len(puts), step):
            at = slice(start, start + step)
            first = weights(places[0, at], self.low[0], self.high[0], rows)
            second = weights(places[1, at], self.low[1], self.high[1], columns)
            found[at] = (first[:, :, None] * second[:, None, :]).reshape(-1, len(flat)) @ flat
        return np.maximum(puts.top[:, None] - found, LEAST * puts.spread[:, None] * quadrature().node)


def weights(place: np.ndarray, low: float, high: float, size: int) -> np.ndarray:
    """What the value at each of Chebyshev's nodes counts for in the interpolant at `place` (N,): (N, size)."""
    half = max((high - low) / 2, 1e-300)
    along = np.clip((place - (low + high) / 2) / half, -1.0, 1.0)
    angles = (np.arange(size) + 0.5) * np.pi / size
    at_nodes = np.cos(np.outer(np.arange(size), angles)) * 2.0 / size
    at_nodes[0] /= 2.0
    return np.cos(np.outer(np.arccos(along), np.arange(size))) @ at_nodes
