"""Betas of series: on the index, and on what oil, the dollar, rates and named factors do beyond it; shrunk."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.books.underlying import MIN_HISTORY
from finllm.tools.data.factors import MoveUnit
from finllm.tools.data.market import HALTED_DAYS, MarketStore, halts, span
from finllm.tools.pnl.damping import DAMPED, damped
from finllm.tools.pnl.factorset import MIN_NAMES, Driver, FactorSet
from finllm.tools.pnl.history import one_step

FIRST = "EQUITY_US"
"""The factor on which every series loads."""
FURTHER = ("OIL_WTI", "USD_BROAD", "RATE_US_10Y")
"""Factors that a series loads on beyond the index, each wherever its history is daily."""
WINDOW = 504
"""Daily returns behind the beta to the index: two years."""
FURTHER_WINDOW = 1260
"""Daily returns behind the loads on further factors: five years, chosen by walk-forward (docs/design/0031)."""
MIN_FURTHER = 252
"""Shared returns below which a further factor is left out."""
MIN_CROSS_SECTION = 5
"""Names below which there is no cross-section to shrink towards."""
TWIN = 0.01
"""Share of a further factor's variance that has to be its own, else it is an earlier one by another name."""
_SHARED = 0.8
"""Share of a window's days that an earlier factor has to have for its part to be taken out of a later one."""

Shrinkage = Literal["vasicek", "none"]


@dataclass(frozen=True)
class Regression:
    """Loads of one instrument by factor: `betas` as used, `estimated` before shrinkage, and their standard errors.

    The betas are partial: what the instrument gains per unit of each factor while the others stand still. `estimated`
    and `errors` are of the steps: on the index alone, then on what each further factor does beyond those before it.
    `residuals`: returns beyond all of them, about their mean, by the day on which they end; `steps`: trading days of
    each, 1 of daily prices and 5 of weekly ones. `n` returns in `window`; `notes` name what was left out.
    """

    betas: dict[str, float]
    estimated: dict[str, float]
    errors: dict[str, float]
    residuals: pd.Series
    steps: pd.Series
    n: int
    window: str
    notes: tuple[str, ...]


def default_regressors(factors: FactorSet, market: MarketStore, as_of: dt.date) -> tuple[Driver, ...]:
    """The index, those of `FURTHER` with a daily history by `as_of`, and the series that were named as factors."""
    named = [one.id for one in factors.drivers.values() if one.kind != "known"]
    found = [factors[FIRST]]
    for id in (*FURTHER, *named):
        driver = factors[id]
        try:
            daily = driver.has_history and driver.levelled(market, as_of).frequency == "daily"
        except InputError:  # nothing of it was known by then
            daily = False
        if daily and driver.series != found[0].series:
            found.append(driver)
    return tuple(found)


def regress(
    names: Sequence[str],
    regressors: Sequence[Driver],
    market: MarketStore,
    as_of: dt.date,
    *,
    window: int = WINDOW,
    further_window: int = FURTHER_WINDOW,
    shrinkage: Shrinkage = "vasicek",
    sectors: Mapping[str, str] | None = None,
) -> dict[str, Regression]:
    """Loads of series on factors: on the first by itself, and on each further one beyond those before it.

    First: least squares with intercept on the last `window` days that series and first factor share. Further: each
    factor less its own regression on those before it, on the last `further_window` days that it shares with both (of
    the last twice as many); on one window that is least squares on all of them at once (Frisch and Waugh 1933). A
    return spans two days that all have observed; unchanged closes of a halted name are left out.

    Shrinkage is that of Vasicek (1973), factor by factor: β = β̂ + (β̄ − β̂)·s²/(s² + τ²). β̄ is the mean over `names`,
    for a further factor that of the name's sector (`sectors`, by name) where three names have it; τ² is the variance of
    the true slopes about it (DerSimonian and Laird 1986), and means weigh each by 1/(s² + τ²). With fewer than five
    names nothing is shrunk, nor is a factor's own series. A load on a factor of `DAMPED` is per unit of what is felt of
    its move. A name that was halted on too many of its days takes the mean
    betas of its sector, where three others have some, else the first regressor's own, and says so. Errors: InputError
    for a regressor that is not daily, and for too few days shared with the first.
    """
    if not names:
        return {}
    sectors = sectors or {}
    lines: dict[str, _Line] = {}
    for driver in regressors:
        seen = driver.levelled(market, as_of)
        if seen.frequency != "daily":
            raise InputError(f"{driver.id!r} is {seen.frequency}, and betas are regressed on daily moves",
                             fix="leave it to propagation")  # fmt: skip
        lines[driver.id] = _Line.of(seen.values, seen.breaks, driver.unit, felt=driver.id in DAMPED)
    first = regressors[0]
    fits: dict[str, _Fit] = {}
    halted: list[str] = []
    for name in names:
        fit = _Fit(name, first.id, lines, market, as_of, window)
        if fit.always_halted:
            halted.append(name)
        else:
            fits[name] = fit
    for at, driver in enumerate(regressors):
        earlier = [one.id for one in regressors[:at]]
        able = {name: fit.step(driver.id, earlier, further_window)
                for name, fit in fits.items() if not at or name != first.series}  # fmt: skip
        steps = {name: step for name, step in able.items() if step}
        free = {name: step for name, step in steps.items() if name != driver.series}
        used, words = _shrunk(free, sectors if at else {}) if shrinkage == "vasicek" else ({}, {})
        for name, step in steps.items():
            fits[name].take(driver.id, step, used.get(name, step.slope), words.get(name, "not shrunk"))
    found = {name: fit.regression() for name, fit in fits.items()}
    ids = [driver.id for driver in regressors]
    return found | {name: _stand_in(name, found, ids, sectors, market, as_of) for name in halted}


def _shrunk(steps: Mapping[str, _Step], sectors: Mapping[str, str]) -> tuple[dict[str, float], dict[str, str]]:
    """The slopes shrunk towards the mean of their sector, or of all names; and how, in words. None for few names."""
    if len(steps) < MIN_CROSS_SECTION:
        return {}, {}
    names = list(steps)
    slopes = np.array([steps[name].slope for name in names])
    squares = np.array([steps[name].error ** 2 for name in names])
    counts = Counter(sectors.get(name, "") for name in names)
    peers = np.array([one if counts[one := sectors.get(name, "")] >= MIN_NAMES else "" for name in names])
    groups = {peer: peers == peer for peer in dict.fromkeys(peers.tolist())}
    scatter = _scatter(slopes, squares, list(groups.values()))
    weight = squares / (squares + scatter)
    groups[""] = np.ones(len(names), dtype=bool)
    centre = {peer: float(np.average(slopes[at], weights=1 / (squares[at] + scatter))) for peer, at in groups.items()}
    used = slopes + (np.array([centre[peer] for peer in peers.tolist()]) - slopes) * weight
    whose = {peer: f"{at.sum()} names{f' of {peer!r}' if peer else ''}" for peer, at in groups.items()}
    words = {name: f"shrunk towards the mean of {whose[peer]} by {share:.0%}"
             for name, peer, share in zip(names, peers.tolist(), weight, strict=True)}  # fmt: skip
    return dict(zip(names, used.tolist(), strict=True)), words


def _scatter(slopes: np.ndarray, squares: np.ndarray, groups: Sequence[np.ndarray]) -> float:
    """Variance of the true slopes about their group's mean, by the moments of DerSimonian and Laird (1986, eq. 8)."""
    excess, scale = 0.0, 0.0
    for at in groups:
        weight, own = 1 / squares[at], slopes[at]
        about = own - weight @ own / weight.sum()
        excess += float(weight @ about**2) - (len(own) - 1)
        scale += float(weight.sum() - weight @ weight / weight.sum())
    return max(0.0, excess / scale) if scale > 0 else 0.0


@dataclass(frozen=True)
class _Line:
    """Levels `values` (n,) by `days` (n,), sorted, as days since 1970; and `breaks`, across which no move is used.

    `felt`: its moves are taken damped.
    """

    days: np.ndarray
    values: np.ndarray
    breaks: np.ndarray
    unit: MoveUnit
    felt: bool = False

    @classmethod
    def of(cls, values: pd.Series, breaks: pd.DatetimeIndex, unit: MoveUnit, *, felt: bool = False) -> _Line:
        return cls(_days(values.index), values.to_numpy(dtype="float64"), _days(breaks), unit, felt)

    def on(self, days: np.ndarray) -> np.ndarray:
        """Levels on `days`, NaN where there is none."""
        if not len(self.days):
            return np.full(len(days), np.nan)
        at = np.searchsorted(self.days, days).clip(max=len(self.days) - 1)
        return np.where(self.days[at] == days, self.values[at], np.nan)

    def moves(self, days: np.ndarray) -> np.ndarray:
        """Moves from each of `days` to the next, (n − 1,), NaN where one is missing or a break lies between."""
        found = one_step(self.on(days), self.unit)
        found = damped(found) if self.felt else found
        passed = np.searchsorted(self.breaks, days, side="right")
        return np.where(passed[1:] == passed[:-1], found, np.nan)


@dataclass(frozen=True)
class _Step:
    """What a series gains per unit of a factor beyond earlier ones: slope and its standard error, over `window`.

    `offsets`: the factor's own slopes on the earlier ones. `beyond` (n,): its daily moves beyond them on the days of
    the first regression, 0 where it has none.
    """

    slope: float
    error: float
    offsets: dict[str, float]
    beyond: np.ndarray
    window: str


class _Fit:
    """One series, as its loads are found factor by factor."""

    def __init__(
        self, name: str, first: str, lines: Mapping[str, _Line], market: MarketStore, as_of: dt.date, window: int
    ) -> None:
        seen = market.read(name, as_of)
        self.name, self._first, self._lines = name, first, lines
        self._own = _Line.of(*seen.positive(), "return")
        self._days = _shared(self._own, lines[first])
        still, moves = _halted(self._own.on(self._days)), self._own.moves(self._days)
        usable = ~still & np.isfinite(moves) & np.isfinite(lines[first].moves(self._days))
        kept = np.flatnonzero(usable)[-window:]
        start = int(kept[0]) if len(kept) else 0
        self._last, self._kept = self._days[start:], kept - start
        self.always_halted = len(still[-window:]) >= MIN_HISTORY - 1 > int((~still[-window:]).sum())
        if len(self._kept) < MIN_HISTORY - 1 and not self.always_halted:
            raise InputError(f"{name!r} has {len(self._kept)} returns on days shared with {first}, too few",
                             fix="give its beta in the portfolio")  # fmt: skip
        self._rest = moves[kept]
        self._betas: dict[str, float] = {}
        self._estimates: dict[str, tuple[float, float]] = {}
        self._words: list[str] = []
        self._notes: list[str] = []
        if seen.stale:
            self._notes.append(f"its history ended on {seen.last}, {seen.age_days} days before {as_of}")
        if left := int(still[-window:].sum()):
            self._notes.append(
                f"{left} returns of {HALTED_DAYS} or more unchanged closes in a row are left out (halted)"
            )

    def step(self, factor: str, earlier: Sequence[str], window: int) -> _Step | None:
        """The slope on a factor beyond `earlier` ones; None with too few days, or for one of them by another name."""
        if not earlier:
            days, kept = self._last, self._kept
        else:
            days = self._days[np.isfinite(self._lines[factor].on(self._days))][-2 * window :]
            if len(days) < MIN_FURTHER:
                return None
            usable = ~_halted(self._own.on(days))
            for line in (self._own, self._lines[self._first], self._lines[factor]):
                usable &= np.isfinite(line.moves(days))
            kept = np.flatnonzero(usable)[-window:]
        own, move = self._own.moves(days)[kept], self._lines[factor].moves(days)[kept]
        others = {id: self._lines[id].moves(days)[kept] for id in earlier if id in self._betas}
        others = {id: one for id, one in others.items() if np.isfinite(one).mean() >= _SHARED}
        whole = np.isfinite(np.array([own, *others.values()])).all(axis=0)
        own, move = own[whole], move[whole]
        if earlier and len(own) < MIN_FURTHER:
            return None
        before = np.array([one[whole] for one in others.values()]).reshape(len(others), len(own))  # (p, n)
        means = before.mean(axis=1, keepdims=True)
        centred, about = before - means, move - move.mean()
        offsets = np.linalg.lstsq(centred.T, about, rcond=None)[0] if others else np.zeros(0)
        beyond = about - offsets @ centred
        power = float(beyond @ beyond)
        if not power or power < TWIN * float(about @ about):
            return None
        slope = float(beyond @ own) / power
        axes = np.vstack([centred, beyond])
        rest = own - own.mean()
        rest = rest - np.linalg.lstsq(axes.T, rest, rcond=None)[0] @ axes
        error = float(np.sqrt(rest @ rest / max(1, len(own) - len(axes) - 1) / power))
        there = self._lines[factor].moves(self._last)[self._kept] - move.mean()
        for id, offset, mean in zip(others, offsets, means[:, 0], strict=True):
            there = there - offset * np.nan_to_num(self._lines[id].moves(self._last)[self._kept] - mean)
        found = pd.DatetimeIndex(days[1:][kept][whole].astype("datetime64[D]"))
        return _Step(slope, error, dict(zip(others, offsets.tolist(), strict=True)), np.nan_to_num(there), span(found))

    def take(self, factor: str, step: _Step, slope: float, how: str) -> None:
        """Load on a factor by `slope`; what it does with earlier ones is no longer theirs."""
        for id, offset in step.offsets.items():
            self._betas[id] -= slope * offset
        self._betas[factor] = slope
        self._estimates[factor] = step.slope, step.error
        self._rest = self._rest - slope * step.beyond
        self._words.append(f"{step.window}, {how}" if factor == self._first else f"{factor} {step.window}, {how}")

    def regression(self) -> Regression:
        days = pd.DatetimeIndex(self._last[1:][self._kept].astype("datetime64[D]"))
        steps = np.diff(np.searchsorted(self._lines[self._first].days, self._last))[self._kept]
        return Regression(
            betas=self._betas, estimated={id: one for id, (one, _) in self._estimates.items()},
            errors={id: error for id, (_, error) in self._estimates.items()},
            residuals=pd.Series(self._rest - self._rest.mean(), index=days), steps=pd.Series(steps, index=days),
            n=len(days), window="; ".join(self._words), notes=tuple(self._notes),
        )  # fmt: skip


def _days(index: pd.Index) -> np.ndarray:
    return pd.DatetimeIndex(index).to_numpy().astype("datetime64[D]").astype("int64")


def _shared(one: _Line, other: _Line) -> np.ndarray:
    return one.days[np.isfinite(other.on(one.days))]


def _halted(prices: np.ndarray) -> np.ndarray:
    """Which returns, (n − 1,), lie in a run of `HALTED_DAYS` or more unchanged closes."""
    found = np.zeros(max(0, len(prices) - 1), dtype=bool)
    for start, end in halts(prices):
        found[start:end] = True
    return found


def _stand_in(
    name: str,
    found: Mapping[str, Regression],
    ids: Sequence[str],
    sectors: Mapping[str, str],
    market: MarketStore,
    as_of: dt.date,
) -> Regression:
    """The betas that stand in for those of a halted name."""
    peers = [one for other, one in found.items() if name in sectors and sectors.get(other) == sectors[name]]
    if len(peers) >= MIN_NAMES:
        betas = {id: float(np.mean([one.betas.get(id, 0.0) for one in peers])) for id in ids}
        source = f"the mean of {len(peers)} names of its sector {sectors[name]!r}"
    else:
        betas = {id: 1.0 if at == 0 else 0.0 for at, id in enumerate(ids)}
        source = f"that of {ids[0]} itself"
    since = market.halted_since(name, as_of)
    when = f"halted since {since}" if since else "halted on most of its days"
    words = ", ".join(f"{id} {beta:.2f}" for id, beta in betas.items())
    note = f"{when}: its closes tell no beta, and {source} stands in ({words}); give its beta in the portfolio"
    none = pd.Series(dtype="float64")
    return Regression(betas, {}, {}, none, none, 0, f"stand-in, {when}", (note,))
