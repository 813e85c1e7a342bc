"""Factor sets: the factors of the table and their histories, series named as factors, and sectors of a book."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.currencies import SPECIFIED, factor_currency, fx_factor
from finllm.tools.data.factors import Factor, MoveUnit, UserShock, factor_table, parse_user_shock
from finllm.tools.data.market import INDEX, NO_DAYS, Frequency, MarketStore, SeriesUnit

STEP_DAYS: dict[Frequency, int] = {"daily": 1, "weekly": 5, "monthly": 21, "quarterly": 63}
"""Trading days in one step of a series."""
MIN_NAMES = 3
"""Names below which a sector would be one instrument in disguise."""
SECTOR = "SECTOR_"
"""How the names of sectors' factors begin."""

_MOVE_OF: dict[SeriesUnit, MoveUnit] = {"price": "return", "percent": "bp", "bp": "bp", "points": "points"}


@dataclass(frozen=True)
class Driver:
    """A factor with its history: a series of the store by name, or `levels` built from others (daily, by `as_of`).

    `unit` is that of its moves; `kind` says whether it comes with finllm, is a series that was named as a factor, or
    was built from others. A driver with neither series nor levels is shocked directly and is not completed.
    """

    id: str
    label: str
    unit: MoveUnit
    series: str | None = None
    levels: pd.Series | None = field(default=None, repr=False, compare=False)
    kind: Literal["known", "named", "built"] = "known"
    how: str = ""
    liquidity: int = 120
    """Trading days to leave a position in it (Basel Committee, MAR33.12)."""
    floor: float | None = None
    """Level below which it cannot go, in the unit of its moves (a yield in bp)."""
    level: float | None = None
    """Where it is taken to stand while no history tells."""
    stand_in: bool = False
    """Whether the series is another's, that moves as it does and tells neither its level nor its sizes."""

    def same(self, other: Driver) -> bool:
        """Whether it is the other; of two that were built apart nobody knows."""
        return self is other or (self == other and self.levels is None and other.levels is None)

    @property
    def has_history(self) -> bool:
        """Whether it has a history of its own."""
        return (self.series is not None and not self.stand_in) or self.levels is not None

    def seen(self, market: MarketStore, as_of: dt.date) -> tuple[pd.Series, Frequency]:
        """Levels known at `as_of` in the unit of the moves (a yield in bp), and their frequency.

        Of one that moves by returns, levels of zero or less are left out. Errors: InputError without a history.
        """
        levels = self.levelled(market, as_of)
        return levels.values, levels.frequency

    def levelled(self, market: MarketStore, as_of: dt.date) -> Levels:
        """As `seen`, with the days whose move from the observation before is not used."""
        if self.levels is not None:
            return Levels(pd.Series(self.levels[self.levels.index <= pd.Timestamp(as_of)]), "daily", NO_DAYS)
        if self.series is None:
            raise InputError(f"{self.id!r} has no history", fix="add a price file with a column for it")
        observed = market.read(self.series, as_of)
        values, breaks = observed.positive() if self.unit == "return" else (observed.values, observed.breaks)
        if values.empty:
            raise InputError(f"series {self.series!r} has no level above zero, and so no return",
                             fix="correct the prices, or add the series with --unit points")  # fmt: skip
        scale = 100.0 if observed.series.unit == "percent" else 1.0
        return Levels(values * scale, observed.series.frequency, breaks, observed.series.averaged)


@dataclass(frozen=True)
class Levels:
    """A factor's levels in the unit of its moves, and the `breaks`: days whose move is not used.

    `averaged`: each level is the mean of its period's days.
    """

    values: pd.Series
    frequency: Frequency
    breaks: pd.DatetimeIndex
    averaged: bool = False


def series_of(row: Factor, market: MarketStore) -> str | None:
    """The history of a factor in this store: what the user added or extended, what was imported, what is packaged."""
    own = row.series if row.series and market.extended(row.series) else None
    return next((one for one in (row.added, own, row.imported, row.series) if one in market), None)


@dataclass(frozen=True)
class FactorSet:
    """The factors of one run, by id."""

    drivers: Mapping[str, Driver]

    def within(self, other: FactorSet) -> bool:
        """Whether all of these are in the other set, as they are here."""
        return all(id in other.drivers and driver.same(other.drivers[id]) for id, driver in self.drivers.items())

    @classmethod
    def default(cls, market: MarketStore) -> FactorSet:
        """The judged factors, and every other of the table that has a series in the store."""
        found: dict[str, Driver] = {}
        for row in factor_table().values():
            series = series_of(row, market)
            if row.judged or series:
                other = row.stand_in if not series and row.stand_in in market else None
                found[row.id] = Driver(row.id, row.label, row.unit, series or other, liquidity=row.liquidity,
                                       floor=row.floor, level=row.level, stand_in=bool(other))  # fmt: skip
        return cls(found)

    @classmethod
    def of(
        cls, market: MarketStore, named: Iterable[str] = (), shocked: Iterable[str] = (),
        sectors: Mapping[str, str] | None = None, as_of: dt.date | None = None,
    ) -> FactorSet:  # fmt: skip
        """The default set, the series `named` as factors, and those that a shock names: one rule for all commands.

        `sectors`: by series, those of the book's holdings; `as_of`: the last day that a sector's factor is made of.
        Errors: see `with_series` and `with_sectors`.
        """
        named = list(named)
        plain = [one for one in named if not one.startswith(SECTOR)]
        asked = [one for one in named if one.startswith(SECTOR)]
        base = cls.default(market).with_series(market, plain)
        return base.with_shocked(market, [*asked, *shocked], sectors, as_of)

    def with_shocked(
        self, market: MarketStore, names: Iterable[str], sectors: Mapping[str, str] | None = None,
        as_of: dt.date | None = None,
    ) -> FactorSet:  # fmt: skip
        """A series that a shock names is a factor, so are a currency's rate and a sector; others are left for `parse`
        to refuse."""
        new = [one for one in names if self.called(one) not in self]
        new = [one if one in market else one.upper() for one in new]
        rates = [code for one in new if (code := factor_currency(one))]
        named = {one: one for one in new if one in market and not factor_currency(one)}
        found = self.with_currencies(market, rates).with_series(market, named)
        wanted = [one for one in new if one.startswith(SECTOR) and one not in found]
        return found.with_sectors(market, wanted, sectors or {}, as_of) if wanted and as_of else found

    def with_sectors(
        self, market: MarketStore, names: Sequence[str], sectors: Mapping[str, str], as_of: dt.date
    ) -> FactorSet:
        """Sectors of the book as factors, such as SECTOR_ENERGY: see `sector_drivers`. Errors: InputError for one of
        fewer than three names with prices."""
        made = {one.id: one for one in sector_drivers(sectors, market, as_of)}
        if unknown := [name for name in names if name not in made]:
            known = f"use one of {', '.join(made)}" if made else (
                "shock EQUITY_US or a series instead: no sector of the book has three names with prices, of which a"
                " sector's factor is made"
            )  # fmt: skip
            raise InputError(f"no factor {unknown[0]!r}: the book has no such sector of three names or more", fix=known)
        return self.with_drivers(made[name] for name in dict.fromkeys(names))

    def with_currencies(self, market: MarketStore, codes: Iterable[str]) -> FactorSet:
        """The factors of these currencies against the dollar: `FX_EURUSD` is what one euro costs in USD.

        One without a series can be shocked directly and is not completed. Liquidity: MAR33.12, 10 days or 20.
        """
        new = [
            Driver(name, f"{code} in USD", "return", name if name in market else None,
                   liquidity=10 if code in SPECIFIED else 20)
            for code in dict.fromkeys(codes)
            if code != "USD" and (name := fx_factor(code)) not in self
        ]  # fmt: skip
        return self.with_drivers(new) if new else self

    def with_series(self, market: MarketStore, names: Iterable[str] | Mapping[str, str]) -> FactorSet:
        """Series of the store as factors: by their own names, or `{factor: series}`.

        Errors: InputError for an unknown series, a name that is taken, or one that cannot be a factor's.
        """
        named = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
        if not named:
            return self
        found = dict(self.drivers)
        for id, series in named.items():
            _check_name(id, found)
            if series not in market:
                raise InputError(f"no series {series!r} for factor {id!r}",
                                 fix=f"use one of {', '.join(market.names())}, or add a price file")  # fmt: skip
            unit = _MOVE_OF[market.unit_of(series)]
            found[id] = Driver(id, f"{series} (named series)", unit, series, kind="named")
        return FactorSet(found)

    def with_drivers(self, drivers: Iterable[Driver]) -> FactorSet:
        """Further drivers, such as those of `sector_drivers`. Errors: InputError for a name that is taken."""
        found = dict(self.drivers)
        for driver in drivers:
            _check_name(driver.id, found)
            found[driver.id] = driver
        return FactorSet(found)

    def __getitem__(self, id: str) -> Driver:
        if id not in self.drivers:
            raise InputError(f"unknown factor {id!r}", fix=f"use one of {', '.join(self.drivers)}")
        return self.drivers[id]

    def __contains__(self, id: object) -> bool:
        return id in self.drivers

    def called(self, name: str) -> str:
        """The factor that a name is, whatever its case, where that is one alone; else the name as it is."""
        same = [] if name in self else [one for one in self.drivers if one.casefold() == name.casefold()]
        return same[0] if len(same) == 1 else name

    def parse(self, factor: str, move: str) -> UserShock:
        """Read a move such as `+40%` or `-3sigma` of any factor of the set, in any case. Errors: InputError, see the
        factors."""
        return parse_user_shock(self.called(factor), move, {id: driver.unit for id, driver in self.drivers.items()})


def sector_drivers(
    sector_of: Mapping[str, str], market: MarketStore, as_of: dt.date, window: int = 2520
) -> tuple[Driver, ...]:
    """One factor per sector of at least three names: their equal-weight daily return beyond beta times the S&P 500.

    `sector_of` maps series to sectors. The residual makes the factor uncorrelated with EQUITY_US in `window` (days).
    """
    members: dict[str, list[str]] = {}
    for name, sector in sector_of.items():
        if name in market and INDEX in market:
            members.setdefault(sector, []).append(name)
    found: list[Driver] = []
    for sector, names in members.items():
        if len(names) < MIN_NAMES:
            continue
        returns, index = _returns(names, market, as_of, window)
        rest = _beyond(returns.to_numpy().mean(axis=1), index)
        id = SECTOR + re.sub(r"[^A-Z0-9]+", "_", sector.upper()).strip("_")
        how = f"equal-weight return of {', '.join(names)} beyond beta, {len(rest)} days"
        levels = _levels(rest, returns.index)
        found.append(Driver(id, f"sector {sector}", "return", levels=levels, kind="built", how=how))
    return tuple(found)


def _returns(names: Sequence[str], market: MarketStore, as_of: dt.date, window: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Simple returns on the last `window` days that all names and the S&P 500 share: (n, k) and (n,)."""
    prices = pd.DataFrame({name: market.read(name, as_of).values for name in [*names, INDEX]}).dropna()
    returns = prices.pct_change().iloc[1:].tail(window)
    if len(returns) < 60:
        raise InputError(f"{', '.join(names)} share {len(returns)} daily returns by {as_of}, too few for a factor",
                         fix="use names with 60 shared days or more")  # fmt: skip
    return returns[list(names)], returns[INDEX].to_numpy()


def _beyond(own: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The part of `own` that least squares with an intercept on `index` leaves, with its mean put back."""
    deviation = index - index.mean()
    beta = deviation @ own / (deviation @ deviation)
    return own - beta * deviation


def _levels(returns: np.ndarray, index: pd.Index) -> pd.Series:
    return pd.Series(100.0 * np.cumprod(1.0 + returns), index=index, dtype="float64")


def _check_name(id: str, taken: Mapping[str, Driver]) -> None:
    if id in taken:
        raise InputError(f"factor {id!r} is already in the set", fix="give the new factor another name")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", id):
        raise InputError(f"{id!r} cannot name a factor", fix="use letters, digits and _ . -, a letter first")
