"""How large a factor's moves are: those of its own history over a horizon, or the reviewed table's; worked out once."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.market import STALE_AFTER, MarketStore, crosses, day_of, span
from finllm.tools.pnl.factorset import STEP_DAYS, Driver, FactorSet, Levels
from finllm.tools.pnl.history import LOOKBACK_YEARS, one_step
from finllm.tools.pnl.size_table import Reviewed, reviewed

MIN_YEARS = 10
"""A history shorter than this tells σ, and leaves the named sizes to the reviewed table, where that has a row."""
MIN_MOVES = 20
"""Moves below which a history gives no size at all."""


@dataclass(frozen=True)
class Sigma:
    """One standard deviation of a factor's moves, in its own unit, and the window or table it is from."""

    value: float
    window: str


@dataclass(frozen=True)
class Size:
    """What is known of a factor's moves over a horizon, in its own unit; all None where nothing is.

    `moves` (n_moves,): its own overlapping ones, the newest last. `table`: the reviewed sizes, where there are no moves
    or too few years of them to tell how large an extreme one is.
    """

    sigma: Sigma | None
    moves: np.ndarray | None = None
    table: Reviewed | None = None

    def within(self, move: float) -> bool:
        """Whether its history has a move as far as this one; True where it has no history."""
        return self.moves is None or bool(self.moves.min() <= move <= self.moves.max())


@dataclass(frozen=True)
class FactorView:
    """A set of factors as the market knew them at `as_of`. Sizes are kept: they are asked for again and again."""

    factors: FactorSet
    market: MarketStore
    as_of: dt.date
    _sizes: dict[tuple[str, int], Size] = field(default_factory=dict, repr=False, compare=False)
    _levels: dict[str, Levels] = field(default_factory=dict, repr=False, compare=False)

    def of(self, factors: FactorSet) -> FactorView:
        """The same market and day with more factors; sizes are shared."""
        return FactorView(factors, self.market, self.as_of, self._sizes, self._levels)

    def size(self, factor: str, horizon: int) -> Size:
        """σ and moves of a factor over `horizon` trading days. Errors: InputError for an unknown factor, or a level
        that moves by returns and is not positive."""
        key = (factor, horizon)
        if key not in self._sizes:
            self._sizes[key] = self._size(factor, horizon)
        return self._sizes[key]

    def least_move(self, factor: str) -> tuple[float, str]:
        """The farthest down that a move can take the factor, in its own unit, and the level that this is from.

        −∞ and nothing for a factor without a floor. A stale level is used, and said.
        """
        driver = self.factors[factor]
        if driver.floor is None:
            return -math.inf, ""
        try:
            if driver.stand_in:
                raise InputError(f"{driver.series!r} tells no level of {factor!r}", fix="add its own history")
            values, frequency = driver.seen(self.market, self.as_of)
        except InputError:
            if driver.level is None:
                return -math.inf, ""
            return driver.floor - driver.level, f"it is taken to stand at {_level(driver.level, driver)}, as no " \
                                                "history tells"  # fmt: skip
        level, last = float(values.iloc[-1]), day_of(values.index[-1])
        age = (self.as_of - last).days
        old = f", {age} days before {self.as_of}" if age > STALE_AFTER[frequency] else ""
        return min(0.0, driver.floor - level), f"it stood at {_level(level, driver)} on {last}{old}"

    def _size(self, factor: str, horizon: int) -> Size:
        table = reviewed(factor, horizon)
        found = self._history(factor, horizon)
        if found is not None:
            moves, words, years = found
            return Size(Sigma(float(moves.std(ddof=1)), words), moves, table if years < MIN_YEARS else None)
        return Size(Sigma(table.sigma, table.words), None, table) if table else Size(None)

    def _history(self, factor: str, horizon: int) -> tuple[np.ndarray, str, float] | None:
        """Overlapping moves in the last 30 years visible, their window in words, and its years.

        A move takes round(horizon / step) steps of the series; where that is none, one step × √(horizon / step). A
        stale series is used up to its end, which the window names.
        """
        driver = self.factors[factor]
        if not driver.has_history or (driver.series and not self.market.visible(driver.series, self.as_of)):
            return None
        if factor not in self._levels:  # asked for at many horizons
            self._levels[factor] = driver.levelled(self.market, self.as_of)
        seen = self._levels[factor]
        values, frequency = seen.values, seen.frequency
        since = pd.Timestamp(year=self.as_of.year - LOOKBACK_YEARS, month=self.as_of.month, day=1)
        values = pd.Series(values[values.index >= since])
        step = STEP_DAYS[frequency]
        steps = max(1, round(horizon / step))
        if len(values) < steps + MIN_MOVES:
            return None
        last = day_of(values.index[-1])
        years = (last - day_of(values.index[steps])).days / 365
        part = math.sqrt(horizon / step) if round(horizon / step) == 0 else 1.0
        period = {"daily": "day", "weekly": "week", "monthly": "month", "quarterly": "quarter"}[frequency]
        words = f"{steps}-{period} moves of {driver.series or driver.id}, {span(values.index)}"
        if part < 1:
            words += f", × √({horizon}/{step})"
        if (age := (self.as_of - last).days) > STALE_AFTER[frequency]:
            words += f", {age} days old"
        moves, broken = one_step(values.to_numpy(), driver.unit, steps), crosses(values.index, seen.breaks, steps)
        if broken.any():
            words += f", {int(broken.sum())} across breaks left out"
            moves = moves[~broken]
        return (moves * part, words, years) if len(moves) >= MIN_MOVES else None


def _level(level: float, driver: Driver) -> str:
    return f"{level / 100:.2f} %" if driver.unit == "bp" else f"{level:.1f}"
