"""How factors move together over a horizon: σ of each, correlation of each pair, in calm and near a shock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.factors import MoveUnit
from finllm.tools.data.market import Frequency, crosses, day_of
from finllm.tools.pnl.factorset import STEP_DAYS, Levels
from finllm.tools.pnl.history import one_step
from finllm.tools.pnl.propagate import NEGATIVE, Covariance, mahalanobis
from finllm.tools.pnl.sizes import FactorView

YEARS = 40
"""Years before the view's day beyond which no move is looked at: the oil shock of 1990 is within them today."""
LONGEST_STEP = 20
"""Trading days of the moves of daily series whose correlation is taken, at most."""
MIN_PAIR = 36
"""Moves that do not overlap below which a pair's correlation is not known, and is taken as none."""
CALM, STRESS = 1.0, 3.0
"""σ of a set of shocks up to which all past moves count alike, and from which those towards it count most."""
MOST = 0.25
"""Share of a past move's weight that is by how far it went the shocks' way, at most (docs/design/0031)."""
FEW = 12.0
"""Moves, by weight and without overlap, below which what is near a shock tells nothing, and all moves count alike."""
LEAST = 0.05
"""Eigenvalue to which lower ones are raised where a correlation matrix put together by pairs has negative ones."""
_PERIOD: dict[Frequency, str] = {"daily": "D", "weekly": "W", "monthly": "M", "quarterly": "Q"}


@dataclass(frozen=True)
class _Panel:
    """Moves side by side, in σ of their own: `z` (T, n), NaN where one has none; each over `steps` steps, overlapping.

    Row t is the move from `days`[t] to `days`[t + steps]; `frequency` is that of the rows; series of a finer one are
    sampled at the mean of the period if `averaged`, else at its last day.
    """

    names: tuple[str, ...]
    z: np.ndarray
    steps: int
    frequency: Frequency
    averaged: bool
    days: pd.DatetimeIndex

    @property
    def first(self) -> str:
        return str(day_of(self.days[0]))

    @property
    def last(self) -> str:
        return str(day_of(self.days[-1]))


class Joint:
    """The joint moves of factors over `horizon` trading days, as known at the view's day.

    σ of each is that of its own moves over the horizon (`FactorView.size`), so that one that returns to its mean does
    not grow with √time. Pairs are taken on all moves of the last 40 years that both have: over the horizon, 20 days at
    most, of two daily series, else over the step of the coarser one, to whose sampling (last day, or mean of the
    period's days) the finer is brought. Where one history is shorter, the pair's slope on the longer one carries it to
    the longer one's σ (Stambaugh 1997). Averages of n periods' days move less than their ends, by n − 1/3 over n in
    variance (Working 1960), which is put back. `missing` names factors without a history, with the reason.
    """

    def __init__(self, view: FactorView, names: Sequence[str], horizon: int) -> None:
        if horizon < 1:
            raise InputError(f"a horizon of {horizon} trading days", fix="give one day or more")
        self.horizon = horizon
        self.missing: dict[str, str] = {}
        self._levels: dict[str, Levels] = {}
        sigmas: list[float] = []
        since = pd.Timestamp(year=view.as_of.year - YEARS, month=view.as_of.month, day=1)
        self._units: dict[str, MoveUnit] = {name: view.factors[name].unit for name in names}
        for name in names:
            if not view.factors[name].has_history:
                self.missing[name] = "it has no history"
                continue
            try:
                seen = view.factors[name].levelled(view.market, view.as_of)
                sigma = view.size(name, horizon).sigma
            except InputError as error:
                self.missing[name] = error.message
                continue
            values = pd.Series(seen.values[seen.values.index >= since])
            if sigma is None or len(values) <= MIN_PAIR:
                self.missing[name] = f"it has {len(values)} levels by {view.as_of}, too few"
                continue
            if sigma.value <= 0:
                self.missing[name] = "it did not move in its window"
                continue
            self._levels[name] = Levels(values, seen.frequency, seen.breaks, seen.averaged)
            sigmas.append(sigma.value)
        self.names = tuple(self._levels)
        self._sigma = np.array(sigmas)
        self._panels: dict[tuple[Frequency, bool], _Panel] = {}

    @cached_property
    def covariance(self) -> Covariance:
        """Σ with every past move counted alike, about their mean; (k, k) in the products of the factors' units."""
        return self._covariance(None, about_mean=True)

    def near(self, shocks: Mapping[str, float], *, stressed: bool = False) -> tuple[Covariance, str]:
        """Second moments about zero near the shocks, and how they were taken, in words.

        Beyond `CALM` σ of the shocks together (Mahalanobis), a past move counts by how far it went their way too: w = 1
        − λ + λ·s⁺/mean(s⁺), s its projection on the shocks in σ; λ is `MOST` from `STRESS` σ on, and at any size where
        the market is `stressed` already. What the others do given the shocks is then the slope through zero of weighted
        least squares.
        """
        inside = {name: move for name, move in shocks.items() if name in self.names}
        size = np.array([inside.get(name, 0.0) for name in self.names]) / self._sigma
        try:
            distance = mahalanobis(inside, self.covariance)
        except InputError:
            distance = float(np.sqrt(size @ size))
        share = MOST * (1.0 if stressed and distance else float(np.clip((distance - CALM) / (STRESS - CALM), 0.0, 1.0)))
        words = f"past moves weighed by how far they went this way, by {share:.0%}" if share else "past moves alike"
        return self._covariance((size, share) if share else None, about_mean=False), words

    def distances(self, names: Sequence[str]) -> tuple[np.ndarray, str]:
        """Mahalanobis distances of the past moves that all of `names` have, (T,), and which these are, in words.

        Moves are those of the coarsest of them, each in σ of its own over that step, under the correlation of
        `covariance`.
        """
        coarsest = max((self._levels[name] for name in names), key=lambda one: STEP_DAYS[one.frequency])
        panel = self._panel(coarsest.frequency, coarsest.averaged)
        at = [panel.names.index(name) for name in names]
        z = panel.z[:, at]
        z = z[np.isfinite(z).all(axis=1)]
        block = self.covariance.sub(names)
        scale = np.sqrt(np.diag(block))
        squares = np.einsum("tk,tk->t", z, np.linalg.solve(block / np.outer(scale, scale), z.T).T)
        step = f"{panel.steps}-day" if panel.frequency == "daily" else panel.frequency
        known = np.flatnonzero(np.isfinite(panel.z[:, at]).all(axis=1))
        if not len(known):
            return np.zeros(0), "no moves that these factors share"
        first, last = (day_of(panel.days[int(row)]).year for row in (known[0], known[-1] + panel.steps))
        return np.sqrt(np.maximum(squares, 0.0)), f"{step} moves of these factors, {first} to {last}"

    @property
    def rule(self) -> str:
        """In words, what was aligned and how."""
        if not self.names:
            return "no factor has a history: nothing is completed"
        parts: list[str] = []
        for panel in self._used():
            own = [name for name in panel.names if self._levels[name].frequency == panel.frequency]
            finer = [name for name in panel.names if name not in own]
            step = f"{panel.steps}-day moves" if panel.frequency == "daily" else f"{panel.frequency} moves"
            with_ = f" with {', '.join(finer)} at the {'mean' if panel.averaged else 'end'} of each" if finer else ""
            parts.append(f"{step} of {', '.join(own)}{with_}, {panel.first} to {panel.last}")
        missing = f"; left out: {', '.join(self.missing)}" if self.missing else ""
        moved = self.covariance.repaired
        repaired = f"; moved by {moved:.1%} to have no negative eigenvalue" if moved else ""
        pairs = f"{'; '.join(parts)}{repaired}{missing}"
        return f"σ of each over {self.horizon} days of its own; correlations by pair: {pairs}"

    def _used(self) -> list[_Panel]:
        kinds: dict[tuple[Frequency, bool], None] = {}
        for one in self._levels.values():
            kinds[one.frequency, one.averaged] = None
        return [self._panel(*kind) for kind in kinds]

    def _covariance(self, near: tuple[np.ndarray, float] | None, *, about_mean: bool) -> Covariance:
        """Σ put together by pairs, and made positive definite where it is not."""
        count = len(self.names)
        cross, square, length = np.zeros((count, count)), np.ones((count, count)), np.zeros((count, count))
        kinds = [(STEP_DAYS[one.frequency], one.averaged) for one in self._levels.values()]
        for panel in self._used():
            own = STEP_DAYS[panel.frequency], panel.averaged
            at = [self.names.index(name) for name in panel.names]
            z = panel.z - np.nanmean(panel.z, axis=0) if about_mean else panel.z
            weight = _weights(panel, at, *near) if near else np.ones(len(z))
            mine = np.array([[max(kinds[i], kinds[j]) == own for j in at] for i in at])
            for whole, part in zip((cross, square, length), _moments(z, weight), strict=True):
                whole[np.ix_(at, at)] = np.where(mine, part, whole[np.ix_(at, at)])
            length[np.ix_(at, at)] = np.where(mine, length[np.ix_(at, at)] / panel.steps, length[np.ix_(at, at)])
        scale = self._sigma * np.array([self._smoothed(name) for name in self.names])
        second, repaired = _joined(cross, square, length)
        return Covariance(self.names, second * np.outer(scale, scale), repaired)

    def _smoothed(self, name: str) -> float:
        """How much larger σ is than that of averages over the horizon's periods (Working 1960)."""
        seen = self._levels[name]
        periods = max(1, round(self.horizon / STEP_DAYS[seen.frequency]))
        return float(np.sqrt(periods / (periods - 1 / 3))) if seen.averaged else 1.0

    def _panel(self, frequency: Frequency, averaged: bool) -> _Panel:
        key = frequency, averaged
        if key not in self._panels:
            names = tuple(name for name, one in self._levels.items()
                          if STEP_DAYS[one.frequency] <= STEP_DAYS[frequency])  # fmt: skip
            steps = min(self.horizon, LONGEST_STEP) if frequency == "daily" else 1
            sampled = {name: _sampled(self._levels[name], frequency, averaged) for name in names}
            table = pd.DataFrame(sampled)
            if frequency != "daily":
                table = table.reindex(pd.period_range(table.index[0], table.index[-1], freq=_PERIOD[frequency]))
                table.index = pd.PeriodIndex(table.index).to_timestamp()
            columns: list[np.ndarray] = []
            for name in names:
                moves = one_step(table[name].to_numpy(dtype="float64"), self._units[name], steps)
                moves = np.where(crosses(table.index, self._breaks(name, frequency), steps), np.nan, moves)
                spread = float(np.nanstd(moves)) if np.isfinite(moves).any() else 0.0
                columns.append(moves / spread if spread > 0 else np.full(len(moves), np.nan))
            z = np.column_stack(columns) if columns else np.zeros((0, 0))
            self._panels[key] = _Panel(names, z, steps, frequency, averaged, pd.DatetimeIndex(table.index))
        return self._panels[key]

    def _breaks(self, name: str, frequency: Frequency) -> pd.DatetimeIndex:
        found = self._levels[name].breaks
        if frequency == "daily" or not len(found):
            return found
        return pd.DatetimeIndex(pd.DatetimeIndex(found).to_period(_PERIOD[frequency]).to_timestamp())


def _sampled(levels: Levels, frequency: Frequency, averaged: bool) -> pd.Series:
    """The levels at a coarser frequency: at its period's last observation, or the mean of them all."""
    if frequency == "daily":
        return levels.values
    grouped = levels.values.groupby(pd.DatetimeIndex(levels.values.index).to_period(_PERIOD[frequency]))
    return pd.Series(grouped.mean() if averaged else grouped.last())


def _weights(panel: _Panel, at: Sequence[int], size: np.ndarray, share: float) -> np.ndarray:
    """How much each row counts near a shock of `size` (k,) in σ, (T,); all alike where too little of it is known."""
    towards = size[at]
    known = np.isfinite(panel.z)
    held = known @ towards**2  # (T,): how much of the shock's square a row has moves of
    along = np.nan_to_num(panel.z) @ towards / np.sqrt(np.where(held > 0, held, 1.0))
    along = np.where(held >= 0.5 * float(size @ size), np.maximum(along, 0.0), 0.0)
    total = float(along.sum())
    if total <= 0 or total**2 / float(along @ along) / panel.steps < FEW:
        return np.ones(len(panel.z))
    return 1.0 - share + share * along * (np.count_nonzero(held >= 0.5 * float(size @ size)) / total)


def _moments(z: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean products by pair, mean squares [i, j] of i on the moves that j has too, and how many these are: (n, n)."""
    known = np.isfinite(z)
    filled = np.where(known, z, 0.0)
    heavy = filled * weight[:, None]
    total = known.T @ (known * weight[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        cross, square = heavy.T @ filled / total, (heavy * filled).T @ known / total
    return np.nan_to_num(cross), np.nan_to_num(square, nan=1.0), known.T.astype(float) @ known


def _joined(cross: np.ndarray, square: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, float]:
    """Second moments in σ of each, (k, k), positive definite; and how far they were moved for that.

    A pair's slope on the factor with more moves, times that one's own mean square. A factor's own square grows by what
    its best companion with a longer history moved more than on the days of both (Stambaugh 1997).
    """
    count = len(cross)
    own = np.diag(square).copy()
    moves = np.diag(length)
    found = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            if i != j and length[i, j] >= MIN_PAIR and moves[j] >= moves[i] and square[j, i] > 0:
                found[i, j] = found[j, i] = cross[i, j] / square[j, i] * own[j]
    grown = own.copy()
    for i in range(count):
        gains = [(cross[i, j] / square[j, i]) ** 2 * (own[j] - square[j, i]) for j in range(count)
                 if i != j and length[i, j] >= MIN_PAIR and moves[j] > moves[i] and square[j, i] > 0]  # fmt: skip
        grown[i] = max(own[i] + max(gains, key=abs, default=0.0), 0.1 * own[i])
    scale = np.sqrt(np.where(grown > 0, grown, 1.0))
    correlation = np.clip(found / np.outer(scale, scale), -1.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    fixed, repaired = _definite(correlation)
    return fixed * np.outer(scale, scale), repaired


def _definite(correlation: np.ndarray) -> tuple[np.ndarray, float]:
    """A correlation matrix without negative eigenvalues, and how far it was moved, as a share of its norm.

    One that is merely singular stays so: its factors cannot be told apart, and whoever shocks both is told.
    """
    if not len(correlation):
        return correlation, 0.0
    values, vectors = np.linalg.eigh(correlation)
    if values[0] >= NEGATIVE:
        return correlation, 0.0
    raised = vectors @ np.diag(np.maximum(values, LEAST)) @ vectors.T
    scale = np.sqrt(np.diag(raised))
    fixed = raised / np.outer(scale, scale)
    return fixed, float(np.linalg.norm(fixed - correlation) / np.linalg.norm(correlation))
