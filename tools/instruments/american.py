"""American options over arrays: the exercise boundary by collocation in √time, the price by an integral over it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

NODES, INNER, OUTER = 13, 16, 28
"""Collocation nodes of a boundary, and points of the integrals behind it and behind a price."""
ROWS = 32
"""Boundaries found at once, and a tenth of the prices: what they need stays in the cache, products of matrices too
small for threads, which wait for each other on a busy machine."""
FAR = 10.0
"""Standard deviations of drift away from the boundary after which it neither moves nor is reached: Φ(−10) is 1e-23."""
PICARD, NEWTON, MANY = 3, 8, 60
"""Steps that bring a first guess near; at most so many from there (four do, as a rule); and those where they fail, as
they can where r·T is below 1e-4, and any boundary will do."""
NEAR = 1e-4
"""A step of this share of the spread is the last one: the error is squared by each."""
_LEAST = 1e-12


@dataclass(frozen=True)
class Puts:
    """American puts on a strike of 1 that expire at 1, arrays (N,): `spread` σ·√T > 0, `interest` r·T > 0, `carry` q·T.

    A call is a put whose strike is the spot and whose rate is the dividend, and the other way round (McDonald and
    Schroder 1998).
    """

    spread: np.ndarray
    interest: np.ndarray
    carry: np.ndarray

    def __len__(self) -> int:
        return len(self.spread)

    def take(self, at: np.ndarray | slice) -> Puts:
        return Puts(self.spread[at], self.interest[at], self.carry[at])

    @property
    def drift(self) -> np.ndarray:
        """Of the logarithm of the spot until expiry, in standard deviations, (N,)."""
        return (self.interest - self.carry) / self.spread - 0.5 * self.spread

    def lasting(self, share: np.ndarray) -> Puts:
        """The same puts with a `share` (N,) of their time, or a multiple."""
        return Puts(self.spread * np.sqrt(share), self.interest * share, self.carry * share)

    @property
    def top(self) -> np.ndarray:
        """Logarithm of the boundary just before expiry: that of min(1, r/q), (N,)."""
        paying = self.carry > 0
        ratio = self.interest / np.where(paying, self.carry, 1.0)
        return np.where(paying, np.log(np.minimum(ratio, 1.0)), 0.0)


@dataclass(frozen=True)
class _Rule:
    """Nodes √τ (n,) from 1 down, 0 left out; the points y = √(t/τ) of an integral over t = τ − u, their weights for
    dy, and the matrices that take a function which is 0 at 0 from the nodes to √u.

    Where y = sin θ, √u = √τ·cos θ is smooth in θ too, so that Gauss and Legendre's rule in θ converges geometrically.
    """  # fmt: skip

    node: np.ndarray
    inner: np.ndarray  # (l,)
    weight: np.ndarray  # (l,)
    between: np.ndarray  # (n, l, n)
    outer: np.ndarray  # (p,)
    outer_weight: np.ndarray  # (p,)
    outer_between: np.ndarray  # (p, n)


@cache
def quadrature() -> _Rule:
    node = (1.0 + np.cos(np.pi * np.arange(NODES) / NODES)) / 2.0
    inner, inner_root, weight = _sine_points(INNER)
    outer, outer_root, outer_weight = _sine_points(OUTER)
    between = _interpolation(node, (node[:, None] * inner_root).ravel()).reshape(NODES, INNER, NODES)
    return _Rule(node, inner, weight, between, outer, outer_weight, _interpolation(node, outer_root))


def _sine_points(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """sin θ, cos θ and the weights for d(sin θ), each (count,), for θ from 0 to π/2."""
    at, weight = np.polynomial.legendre.leggauss(count)
    angle = (1.0 + at) * np.pi / 4.0
    return np.sin(angle), np.cos(angle), weight * np.pi / 4.0 * np.cos(angle)


def _interpolation(node: np.ndarray, at: np.ndarray) -> np.ndarray:
    """From values at Chebyshev's extrema on [0, 1], that at 0 being 0, to those `at` (m,): (m, n).

    The second barycentric form (Berrut and Trefethen 2004).
    """
    sign = (-1.0) ** np.arange(NODES + 1) * np.where(np.arange(NODES + 1) % NODES == 0, 0.5, 1.0)
    apart = at[:, None] - np.append(node, 0.0)
    met = np.abs(apart) < 1e-14
    shares = np.where(met.any(axis=1, keepdims=True), met, sign / np.where(met, 1.0, apart))
    return (shares / shares.sum(axis=1, keepdims=True))[:, :-1]


def _phi(at: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * at * at) / np.sqrt(2.0 * np.pi)


def boundary(puts: Puts, start: np.ndarray | None = None) -> np.ndarray:
    """How far below its `top` the logarithm of the exercise boundary is at the nodes, (N, n) from now to expiry.

    From `start`, or from a guess and a few fixed-point steps, Newton's method solves the condition that an option is
    worth −1 per unit of the spot where it is exercised. The boundary is interpolated in √τ, as in Andersen, Lake and
    Offengenden (2016), section 4, but as a logarithm and not as its square: that is positive between the nodes too.
    """
    found = np.empty((len(puts), NODES))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # steps that lead nowhere are seen and left
        for first in range(0, len(puts), ROWS):
            at = slice(first, first + ROWS)
            found[at] = _System(puts.take(at)).solved(None if start is None else start[at])
    return found


class _System:
    """The equations of a block of boundaries: what does not change from step to step, shaped (N, n) or (N, n, l)."""

    def __init__(self, puts: Puts) -> None:
        rule = quadrature()
        self.puts, self.top = puts, puts.top[:, None]
        self.spread, self.interest, self.carry = (
            one[:, None] for one in (puts.spread, puts.interest, puts.carry)
        )  # (N, 1)
        self.root, time = rule.node, rule.node**2
        self.width = self.spread * self.root  # σ√τ
        self.drift = (self.interest - self.carry) / self.spread + 0.5 * self.spread
        back = rule.node[:, None] * rule.inner  # √t, (n, l)
        self.widths = self.spread[:, :, None] * back  # σ√t
        self.drifts = self.drift[:, :, None] * back
        self.kept, self.rest = np.exp(-self.carry * time), np.exp(-self.interest * time)
        discount = np.exp(-self.interest[:, :, None] * back**2)
        step = 2.0 * time[:, None] * rule.inner * rule.weight  # dt = 2τ·y·dy
        self.paid = self.interest[:, :, None] * discount * step
        self.dividend = self.carry[:, :, None] * np.exp(-self.carry[:, :, None] * back**2) * step
        self.dense = discount * (2.0 * rule.node[:, None] * rule.weight) / self.spread[:, :, None]  # dt / σ√t

    def solved(self, start: np.ndarray | None) -> np.ndarray:
        """From a start that does not lead there, from the guess; and by fixed-point steps where Newton's do not."""
        gap = self._guess() if start is None else start
        for _ in range(PICARD if start is None else 1):
            gap = self._picard(gap)
        there: np.ndarray = np.zeros(len(gap), dtype=bool)
        for _ in range(NEWTON):
            step = np.where(there[:, None], 0.0, self._newton(gap))  # one that is there does not wait for the others
            there = np.all(np.abs(step) <= NEAR * self.spread, axis=1)  # not where it is NaN
            gap = np.clip(gap + np.nan_to_num(step), 0.2 * gap, 5.0 * gap)
            if there.all():
                return gap
        rest = _System(self.puts.take(~there))
        gap[~there] = rest.solved(None) if start is not None else rest.iterated()
        return gap

    def iterated(self) -> np.ndarray:
        gap = self._guess()
        for _ in range(MANY):
            gap = self._picard(gap)
        return gap

    def _guess(self) -> np.ndarray:
        """Bjerksund and Stensland's (1993) boundary: from its value at expiry towards that of a perpetual option."""
        variance, drift = self.spread**2, self.interest - self.carry
        slope = 0.5 - drift / variance
        root = np.sqrt(slope**2 + 2.0 * self.interest / variance)
        power = np.where(slope > 0, -2.0 * self.interest / variance / (slope + root), slope - root)
        top = np.exp(self.top)
        never = np.minimum(power / (power - 1.0), top * (1.0 - 1e-9))
        part = -np.expm1(np.minimum(drift * self.root**2 - 2.0 * self.width, 0.0) * top / (top - never))
        return np.maximum(-np.log1p(-part * (1.0 - never / top)), _LEAST * self.width)

    def _between(self, gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gap at the points of the integrals, and d₊ of the boundary at τ against the one at u, (N, n, l)."""
        rule = quadrature()
        within = (gap @ rule.between.reshape(-1, NODES).T).reshape(self.widths.shape)
        return within, (within - gap[:, :, None]) / self.widths + self.drifts

    def _held(self, gap: np.ndarray, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """d₊ at the strike, and e^(−qτ)·Φ(d₊) + q·∫ e^(−qt)·Φ(d₊) dt: their D, eq. 3.8, times e^(−qτ). (N, n)."""
        from scipy.special import ndtr

        upper = (self.top - gap) / self.width + self.drift * self.root
        held = self.kept * ndtr(upper)
        if self.carry.any():
            held += (self.dividend * ndtr(above)).sum(axis=2)
        return upper, held

    def _picard(self, gap: np.ndarray) -> np.ndarray:
        """A fixed-point step of their system B, eq. 3.7 and 3.8: slow, but from anywhere."""
        from scipy.special import ndtr

        _, above = self._between(gap)
        upper, held = self._held(gap, above)
        due = self.rest * ndtr(upper - self.width) + (self.paid * ndtr(above - self.widths)).sum(axis=2)
        found = np.maximum(self.top - np.log(due / held), 1e-3 * self.width)
        return np.where(np.isfinite(found), found, gap)

    def _newton(self, gap: np.ndarray) -> np.ndarray:
        """A step of Newton's method on ln(density) − ln(held) − ln B, that is on their system A times D.

        B·held = ∫ e^(−rt)·(r − q·B(u))·φ(d₋)/(σ√t) dt is delta = −1, in which the densities at the strike cancel.
        """
        rule = quadrature()
        within, above = self._between(gap)
        upper, held = self._held(gap, above)
        below = above - self.widths
        dense = self.dense * _phi(below)
        paying = self.carry[:, :, None] * np.exp(self.top[:, :, None] - within)
        whole = dense * (self.interest[:, :, None] - paying)
        density = whole.sum(axis=2)
        slope = whole * below / density[:, :, None]
        if self.carry.any():
            slope += self.dividend * _phi(above) / held[:, :, None]
        slope /= -self.widths
        rows = slope + dense * paying / density[:, :, None]
        matrix = np.empty((*gap.shape, NODES))
        for at in range(NODES):
            matrix[:, at] = rows[:, at] @ rule.between[at]
        own = np.arange(NODES)
        matrix[:, own, own] += self.kept * _phi(upper) / (self.width * held) - slope.sum(axis=2) + 1.0
        excess = np.log(density / held) - self.top + gap
        lost = ~(np.isfinite(matrix).all(axis=(1, 2)) & np.isfinite(excess).all(axis=1))
        matrix[lost], excess[lost] = np.eye(NODES), np.nan
        return np.linalg.solve(matrix, -excess[:, :, None])[:, :, 0]


def put_values(puts: Puts, spot: np.ndarray, european: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Prices (N,) of puts at `spot`, from the European ones and the boundary: Kim's (1990) integral.

    Never below the European price or what exercise now gives, and exactly that where the spot is within the boundary.
    """
    found, own = european + np.maximum(premium(puts, spot, gap), 0.0), 1.0 - spot
    held = np.log(np.maximum(spot, 1e-300)) > puts.top - gap[:, 0]
    return np.where(held, np.maximum(found, own), own)


def still_value(puts: Puts, spot: np.ndarray) -> np.ndarray:
    """What the best day to exercise on gives if the spot follows its forward, (N,): the limit without volatility.

    e^(−rt) − S·e^(−qt) has its largest value now, at expiry, or where its slope is 0, that is e^((q−r)·t) = q·S/r.
    """
    ratio = np.maximum(puts.carry * spot / puts.interest, 1e-300)
    apart = puts.carry - puts.interest
    best = np.clip(np.log(ratio) / np.where(apart == 0, 1.0, apart), 0.0, 1.0)
    at = np.stack([np.zeros_like(best), best, np.ones_like(best)])
    return np.maximum(np.exp(-puts.interest * at) - spot * np.exp(-puts.carry * at), 0.0).max(axis=0)


def premium(puts: Puts, spot: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """What the right to exercise early is worth, (N,): interest on the strike less dividends, while exercised."""
    found = np.empty(len(puts))
    for first in range(0, len(puts), 10 * ROWS):
        at = slice(first, first + 10 * ROWS)
        found[at] = _premium(puts.take(at), spot[at], gap[at])
    return found


def _premium(puts: Puts, spot: np.ndarray, gap: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr

    rule = quadrature()
    spread, interest, carry = puts.spread[:, None], puts.interest[:, None], puts.carry[:, None]
    edge = puts.top[:, None] - np.maximum(gap @ rule.outer_between.T, 0.0)  # ln B(u), (N, p)
    away = np.log(np.maximum(spot, 1e-300))[:, None] - edge
    above = away / (spread * rule.outer) + ((interest - carry) / spread + 0.5 * spread) * rule.outer
    past = rule.outer**2
    gains = interest * np.exp(-interest * past) * ndtr(spread * rule.outer - above)
    if carry.any():
        gains -= carry * spot[:, None] * np.exp(-carry * past) * ndtr(-above)
    return gains @ (2.0 * rule.outer * rule.outer_weight)
