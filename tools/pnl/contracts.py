"""Contracts revalued in full: what options, forwards and bonds gain as the factors move, many scenarios at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Protocol, Self, TypeVar

import numpy as np

from finllm.tools.instruments.bonds import LOWEST_GROWTH, Flows, log_price_change
from finllm.tools.instruments.families import Boundaries
from finllm.tools.instruments.lattice import FAMILIES, Lattice, worth
from finllm.tools.instruments.options import MIN_VOLATILITY, american, black_scholes, forward_value
from finllm.tools.pnl.nodes import DEGREE, through_nodes

CHANNELS = 3
"""What a contract's value answers to: the underlying's return or the yield's move (decimal), the volatility's move and
the rate's move (decimals a year)."""
STEPS = np.array([1e-4, 1e-4, 1e-4])
"""Half-widths of the central differences behind slopes, one for each channel."""
ALIKE = 4
"""Bonds to each different load on the factors from which they are added up before they are read."""
BLOCK = 1 << 18
"""Contracts × scenarios revalued at once, so that what one needs stays in the cache."""
WIDEST = 5.0
"""Half-width of ln(price) over the scenarios up to which that polynomial is used: its error is below 1e-9 of value."""


class Kind(Protocol):
    """Contracts of one kind, n of them. `shifts` (3, n, S) are moves of the channels."""

    def gains(self, shifts: np.ndarray) -> np.ndarray:
        """P&L in USD, (n, S)."""
        ...

    def take(self, at: np.ndarray) -> Self:
        """Those at the indices `at`."""
        ...

    def moved(self, shifts: np.ndarray) -> Self:
        """The same contracts where the channels have moved by `shifts` (3, n): gains are then from there."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Options:
    """Options, arrays (n,): `units` signed, `value` USD now, the rest as `black_scholes` takes it.

    A long option loses no more than its value and a short one gains no more, whatever the given price was.
    """

    units: np.ndarray
    value: np.ndarray
    call: np.ndarray
    spot: np.ndarray
    strike: np.ndarray
    years: np.ndarray
    volatility: np.ndarray
    rate: np.ndarray
    dividend: np.ndarray
    american: np.ndarray
    source: Boundaries | None = None

    def take(self, at: np.ndarray) -> Options:
        return _cut(self, at)

    def __len__(self) -> int:
        return len(self.units)

    def price(self, shifts: np.ndarray) -> np.ndarray:
        """Prices of one unit, (n, S)."""
        spot = self.spot[:, None] * np.maximum(1.0 + shifts[0], 0.0)
        least = np.minimum(self.volatility, MIN_VOLATILITY)[:, None]
        volatility = np.maximum(self.volatility[:, None] + shifts[1], least)
        call, strike, years, rate, dividend = (
            one[:, None] for one in (self.call, self.strike, self.years, self.rate, self.dividend)
        )
        terms = (call, spot, strike, years, volatility, rate + shifts[2], dividend)
        found = black_scholes(*terms)
        early = np.flatnonzero(self.american)
        if early.size:
            found[early] = american(*(one[early] for one in terms), source=self.source)
        return found

    @cached_property
    def _now(self) -> np.ndarray:
        """Prices of one unit where nothing moves, (n, 1)."""
        return self.price(np.zeros((CHANNELS, len(self), 1)))

    def gains(self, shifts: np.ndarray) -> np.ndarray:
        found = self.units[:, None] * (self.price(shifts) - self._now)
        value = self.value[:, None]
        return np.where(value > 0, np.maximum(found, -value), np.where(value < 0, np.minimum(found, -value), found))

    def european(self) -> Options:
        """The same, but exercised at expiry alone."""
        return replace(self, american=np.zeros_like(self.american))

    def reading(self, scenarios: int) -> Options:
        """The same, with a lattice of boundaries in common where that is worth it in so many scenarios."""
        early = self.american
        kinds = np.unique(np.stack([self.call[early], self.years[early], self.dividend[early]]), axis=1).shape[1]
        return replace(self, source=Lattice()) if worth(kinds, scenarios) else self

    def moved(self, shifts: np.ndarray) -> Options:
        least = np.minimum(self.volatility, MIN_VOLATILITY)
        return replace(
            self, value=self.value + self.gains(shifts[:, :, None])[:, 0],
            spot=self.spot * np.maximum(1.0 + shifts[0], 0.0),
            volatility=np.maximum(self.volatility + shifts[1], least), rate=self.rate + shifts[2],
        )  # fmt: skip


@dataclass(frozen=True)
class Forwards:
    """Forwards and futures, arrays (n,), as `forward_value` takes them; a future is one without time."""

    units: np.ndarray
    spot: np.ndarray
    strike: np.ndarray
    years: np.ndarray
    rate: np.ndarray
    dividend: np.ndarray

    def take(self, at: np.ndarray) -> Forwards:
        return _cut(self, at)

    def __len__(self) -> int:
        return len(self.units)

    def _price(self, shifts: np.ndarray) -> np.ndarray:
        spot = self.spot[:, None] * np.maximum(1.0 + shifts[0], 0.0)
        strike, years, rate, dividend = (one[:, None] for one in (self.strike, self.years, self.rate, self.dividend))
        return forward_value(spot, strike, years, rate + shifts[2], dividend)

    def worth(self) -> np.ndarray:
        """Values of one unit where nothing moves, (n,)."""
        return self._price(np.zeros((CHANNELS, len(self), 1)))[:, 0]

    def gains(self, shifts: np.ndarray) -> np.ndarray:
        return self.units[:, None] * (self._price(shifts) - self.worth()[:, None])

    def moved(self, shifts: np.ndarray) -> Forwards:
        return replace(self, spot=self.spot * np.maximum(1.0 + shifts[0], 0.0), rate=self.rate + shifts[2])


@dataclass(frozen=True)
class DurationBonds:
    """Bonds by duration and convexity, arrays (n,): value · (e^g(y) − 1), g as `log_price_change`; `at` is y so far."""

    value: np.ndarray
    duration: np.ndarray
    convexity: np.ndarray
    at: np.ndarray

    def take(self, at: np.ndarray) -> DurationBonds:
        return _cut(self, at)

    def __len__(self) -> int:
        return len(self.value)

    def gains(self, shifts: np.ndarray) -> np.ndarray:
        duration, convexity, at = self.duration[:, None], self.convexity[:, None], self.at[:, None]
        before = log_price_change(duration, convexity, at)
        return self.value[:, None] * np.expm1(log_price_change(duration, convexity, at + shifts[0]) - before)

    def moved(self, shifts: np.ndarray) -> DurationBonds:
        return replace(self, value=self.value + self.gains(shifts[:, :, None])[:, 0], at=self.at + shifts[0])


@dataclass(frozen=True)
class FlowBonds:
    """Bonds by their cash flows: `units` of 100 of nominal at `yield_`, compounded `frequency` times a year, (n,).

    `times` and `amounts` hold the flows of all of them one after another, bond i from `start[i]` to `start[i + 1]`.
    """

    units: np.ndarray
    yield_: np.ndarray
    frequency: np.ndarray
    start: np.ndarray
    times: np.ndarray
    amounts: np.ndarray

    @classmethod
    def of(cls, units: np.ndarray, yield_: np.ndarray, bonds: list[Flows]) -> FlowBonds:
        start = np.concatenate([[0], np.cumsum([len(one.times) for one in bonds])]).astype(int)
        often = np.array([float(one.frequency) for one in bonds])
        times, amounts = ([getattr(one, name) for one in bonds] for name in ("times", "amounts"))
        return cls(units, yield_, often, start, np.concatenate(times), np.concatenate(amounts))

    def __len__(self) -> int:
        return len(self.units)

    def _growth(self, shifts: np.ndarray) -> np.ndarray:
        """The continuous rate of each bond's yield after a move, (n, S)."""
        often = self.frequency[:, None]
        return often * np.log(np.maximum(1.0 + (self.yield_[:, None] + shifts) / often, LOWEST_GROWTH))

    def _price(self, shifts: np.ndarray) -> np.ndarray:
        """Price per 100, (n, S), one scenario after another."""
        growth = self._growth(shifts)
        owner = np.repeat(np.arange(len(self)), np.diff(self.start))
        found = np.empty_like(growth)
        for at in range(growth.shape[1]):
            found[:, at] = np.add.reduceat(self.amounts * np.exp(-growth[owner, at] * self.times), self.start[:-1])
        return found

    def gains(self, shifts: np.ndarray) -> np.ndarray:
        moves = shifts[0]
        before = self._price(np.zeros((len(self), 1)))
        if moves.shape[1] > 2 * DEGREE:
            reach = self._growth(np.stack([moves.min(axis=1), moves.max(axis=1)], axis=1)) @ np.array([-0.5, 0.5])
            near = float((reach * self.times[self.start[1:] - 1]).max()) <= WIDEST
            after = through_nodes(self._price, moves) if near else self._price(moves)
        else:
            after = self._price(moves)
        return self.units[:, None] * (after - before)

    def summed(self, shifts: np.ndarray, like: np.ndarray, owner: np.ndarray, owners: int) -> np.ndarray:
        """What `gains` adds up to by owner, (S, owners): `like` (n,) tells by which of `shifts` (G, S) each bond moves,
        `owner` (n,) whose it is. Bonds that move alike are added up before they are read at the scenarios."""
        found = np.zeros((shifts.shape[1], owners))
        for row, moves in enumerate(shifts):
            mine = np.flatnonzero(like == row)
            bonds, (whose, of) = self.take(mine), np.unique(owner[mine], return_inverse=True)
            shares = np.zeros((len(whose), len(mine)))
            shares[of, np.arange(len(mine))] = bonds.units
            reach = bonds._growth(np.tile([moves.min(), moves.max()], (len(mine), 1))) @ np.array([-0.5, 0.5])
            if len(moves) > 2 * DEGREE and float((reach * bonds.times[bonds.start[1:] - 1]).max()) <= WIDEST:
                before = shares @ bonds._price(np.zeros((len(mine), 1)))
                priced = partial(bonds._alike, shares)
                found[:, whose] += (through_nodes(priced, moves[None, :]) - before).T
            else:
                alone = bonds.gains(np.tile(moves, (1, len(mine), 1)))
                found[:, whose] += ((shares != 0) @ alone).T
        return found

    def _alike(self, shares: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """Sums of prices by `shares` (m, n), all moving alike: (m, S) for `moves` (1, S)."""
        return shares @ self._price(np.broadcast_to(moves, (len(self), moves.shape[1])))

    def take(self, at: np.ndarray) -> FlowBonds:
        counts = np.diff(self.start)[at]
        start = np.concatenate([[0], np.cumsum(counts)]).astype(int)
        flows = np.arange(start[-1]) + np.repeat(self.start[at] - start[:-1], counts)
        return FlowBonds(self.units[at], self.yield_[at], self.frequency[at], start, self.times[flows],
                         self.amounts[flows])  # fmt: skip

    def moved(self, shifts: np.ndarray) -> FlowBonds:
        return replace(self, yield_=self.yield_ + shifts[0])


Plain = TypeVar("Plain", Options, Forwards, DurationBonds)


def _cut(rows: Plain, at: np.ndarray) -> Plain:
    """The rows `at` of arrays of one length."""
    arrays = {one.name: getattr(rows, one.name) for one in fields(rows)}
    return replace(rows, **{name: one[at] for name, one in arrays.items() if isinstance(one, np.ndarray)})


@dataclass(frozen=True)
class Contracts:
    """The C contracts of a book: `rows` (C,) of its positions, `loads` (3, C, K) of each channel on the factors' moves
    and, where a book has some, on what is felt of the damped ones (see `Sensitivities`).

    `kinds` hold the contracts one after another: those of the first kind first.
    """

    rows: np.ndarray
    loads: np.ndarray
    kinds: tuple[Kind, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def used(self) -> np.ndarray:
        """Which factors move the value of some contract, (K,)."""
        return (self.loads != 0).any(axis=(0, 1))

    @property
    def convex(self) -> bool:
        """Whether the P&L is convex in the moves: bonds alone, and none of them short."""
        return all(
            (isinstance(kind, FlowBonds) and (kind.units >= 0).all())
            or (isinstance(kind, DurationBonds) and (kind.value >= 0).all() and (kind.convexity >= 0).all())
            for kind in self.kinds
        )

    @property
    def american(self) -> bool:
        """Whether some option may be exercised early: its price costs a hundred European ones."""
        return any(isinstance(kind, Options) and kind.american.any() for kind in self.kinds)

    def european(self) -> Contracts:
        """The same, but options are exercised at expiry alone."""
        return replace(self, kinds=tuple(
            kind.european() if isinstance(kind, Options) else kind for kind in self.kinds
        ))  # fmt: skip

    def parts(
        self, moves: np.ndarray, without: Collection[int] = ()
    ) -> Iterator[tuple[slice, np.ndarray]]:  # fmt: skip
        """P&L in USD, (c, S) for `moves` (S, K), in blocks, and which of the contracts each block is of; but the kinds
        whose first contract is one of `without`."""
        step = max(1, BLOCK // max(1, len(moves)))
        for first, one in self._placed():
            if first in without:
                continue
            kind = one.reading(len(moves)) if isinstance(one, Options) and len(one) > FAMILIES else one
            for start in range(0, len(kind), step):
                some = np.arange(start, min(start + step, len(kind)))
                at = slice(first + start, first + start + len(some))
                part = kind if len(some) == len(kind) else kind.take(some)
                channels = (
                    1 if isinstance(kind, FlowBonds | DurationBonds) else CHANNELS
                )  # a yield is all that they are on
                yield at, part.gains(self.loads[:channels, at] @ moves.T)

    def summed(self, moves: np.ndarray, owner: np.ndarray, owners: int) -> np.ndarray:
        """P&L in USD by owner, (S, owners) for `moves` (S, K); `owner` (C,): whose each contract is."""
        found = np.zeros((len(moves), owners))
        done: set[int] = set()
        for first, kind in self._placed():
            if isinstance(kind, FlowBonds) and (groups := self._moving_alike(first, kind)) is not None:
                loads, like = groups
                found += kind.summed(loads @ moves.T, like, owner[first : first + len(kind)], owners)
                done.add(first)
        for at, part in self.parts(moves, without=done):
            whose, of = np.unique(owner[at], return_inverse=True)
            shares = np.zeros((len(whose), len(part)))
            shares[of, np.arange(len(part))] = 1.0
            found[:, whose] += (shares @ part).T
        return found

    def _moving_alike(self, first: int, bonds: FlowBonds) -> tuple[np.ndarray, np.ndarray] | None:
        """The different loads of bonds, (G, K), and which each has, (n,); None where hardly two have the same."""
        loads, like = np.unique(self.loads[0, first : first + len(bonds)], axis=0, return_inverse=True)
        return None if ALIKE * len(loads) > len(bonds) else (loads, like.ravel())

    def gains(self, moves: np.ndarray) -> np.ndarray:
        """P&L in USD, (C, S) for `moves` (S, K)."""
        found = np.empty((len(self), len(moves)))
        for at, part in self.parts(moves):
            found[at] = part
        return found

    def slopes(self, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """At one scenario (K,): USD per unit of each factor (C, K), and USD per squared unit of the first channel (C,).

        Central differences of the full revaluation.
        """
        shifts = (self.loads @ moves)[:, :, None].repeat(2 * CHANNELS + 1, axis=2)  # the last is the scenario itself
        for at, step in enumerate(STEPS):
            shifts[at, :, 2 * at : 2 * at + 2] += step, -step
        found = np.concatenate([kind.gains(shifts[:, first : first + len(kind)]) for first, kind in self._placed()])
        first = (found[:, :-1:2] - found[:, 1:-1:2]) / (2.0 * STEPS)  # (C, 3)
        second = (found[:, 0] + found[:, 1] - 2.0 * found[:, -1]) / STEPS[0] ** 2
        return np.einsum("cj,jck->ck", first, self.loads), second

    def deltas(self) -> np.ndarray:
        """USD per unit of the first channel, which is the return of an underlying or the move of a yield; (C,)."""
        shifts = np.zeros((CHANNELS, len(self), 2))
        shifts[0] = STEPS[0], -STEPS[0]
        found = np.concatenate([kind.gains(shifts[:, first : first + len(kind)]) for first, kind in self._placed()])
        return (found[:, 0] - found[:, 1]) / (2.0 * STEPS[0])

    def moved(self, moves: np.ndarray) -> Contracts:
        """The contracts after a scenario (K,): their gains are then from there."""
        shifts = self.loads @ moves  # (3, C)
        kinds = tuple(kind.moved(shifts[:, first : first + len(kind)]) for first, kind in self._placed())
        return replace(self, kinds=kinds)

    def within(self, at: np.ndarray) -> Contracts | None:
        """Those of the positions `at` of the book, whose rows are then their places in `at`; None if there are none."""
        place = np.full(int(max(self.rows.max(initial=0), at.max(initial=0))) + 1, -1)
        place[at] = np.arange(len(at))
        kept = np.flatnonzero(place[self.rows] >= 0)
        if not kept.size:
            return None
        kinds: list[Kind] = []
        for first, kind in self._placed():
            mine = kept[(kept >= first) & (kept < first + len(kind))] - first
            if mine.size:
                kinds.append(kind.take(mine))
        return Contracts(place[self.rows[kept]], self.loads[:, kept], tuple(kinds))

    def _placed(self) -> Iterator[tuple[int, Kind]]:
        first = 0
        for kind in self.kinds:
            yield first, kind
            first += len(kind)
