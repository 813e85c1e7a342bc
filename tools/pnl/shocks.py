"""Shocks: what a user wrote, a judged direction and size, or a historical window, as moves of factors with their σ."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from finllm.errors import InputError, LookAheadError
from finllm.tools.data.factors import FACTORS, Direction, Factor, FactorId, MoveUnit, Origin, Shock, Size, UserShock
from finllm.tools.data.market import MarketStore, day_of
from finllm.tools.evidence import show
from finllm.tools.pnl.exposure import span

SIZE_TABLE_PATH = Path(__file__).with_name("size_table.yaml")
QUANTILE: dict[Size, float] = {"small": 0.50, "medium": 0.80, "large": 0.95, "extreme": 0.99}
"""Size bucket → quantile of the moves of that sign, so `large` is a move that one in twenty such moves exceeds."""

LOOKBACK_YEARS = 30
MIN_YEARS = 3
MIN_MOVES = 20
BOUNDS: dict[MoveUnit, tuple[float, float]] = {
    "return": (-0.999, 100),
    "bp": (-10_000, 10_000),
    "points": (-1_000, 1_000),
}
"""The least and the greatest move a user may write, by unit: beyond it is a slip of the pen."""
FLOOR = -0.95
"""The least return that scaling a reviewed size to a longer horizon may reach."""


class SizeRow(BaseModel):
    """Reviewed sizes of one factor over the table's horizon, in its own unit (return, bp or points), all positive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: MoveUnit
    sigma: float = Field(gt=0)
    small: float = Field(gt=0)
    medium: float = Field(gt=0)
    large: float = Field(gt=0)
    extreme: float = Field(gt=0)
    basis: str


class Review(BaseModel):
    """Who reviewed the sizes, and when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    on: dt.date


class SizeTable(BaseModel):
    """The reviewed sizes that stand in where a factor has no history; `horizon` in trading days."""

    model_config = ConfigDict(frozen=True)

    version: int | str
    reviewed: Review
    horizon: int = Field(gt=0)
    factors: dict[FactorId, SizeRow]

    @model_validator(mode="after")
    def _in_the_factors_unit(self) -> SizeTable:
        if wrong := [name for name, row in self.factors.items() if row.unit != FACTORS[name].unit]:
            raise ValueError(f"not in the factor's unit: {', '.join(wrong)}")
        return self


@dataclass(frozen=True)
class Moves:
    """A factor's overlapping moves over the horizon, in its own unit; `window` says which, in words."""

    values: np.ndarray  # (n_moves,)
    window: str

    @property
    def sigma(self) -> float:
        return float(self.values.std(ddof=1))


@dataclass(frozen=True)
class Sigma:
    """One standard deviation of a factor's moves, in its own unit, and the window or table it is from."""

    value: float
    window: str


@dataclass(frozen=True)
class Replayed:
    """The factors' realised moves over a window; `missing` says for each other factor why it has none."""

    shocks: tuple[Shock, ...]
    missing: dict[FactorId, str]


@cache
def size_table() -> SizeTable:
    """The reviewed table that ships with the package (`size_table.yaml`)."""
    text = SIZE_TABLE_PATH.read_text(encoding="utf-8")
    return SizeTable.model_validate(yaml.load(text, Loader=yaml.BaseLoader))  # strings only: the key `on` is not a bool


def factor_moves(factor: FactorId, market: MarketStore, as_of: dt.date, horizon: int) -> Moves | None:
    """Overlapping moves over `horizon` trading days in the last 30 years visible at `as_of`, the newest last.

    A monthly series takes round(horizon/21) months, at least one. A stale series is used up to its end, which the
    window names. None where the factor has no series, or its moves cover less than three years.
    """
    name = FACTORS[factor].series
    if name is None or name not in market:
        return None
    try:
        seen = market.read(name, as_of)
    except InputError:
        return None
    since = pd.Timestamp(year=as_of.year - LOOKBACK_YEARS, month=as_of.month, day=1)
    values = pd.Series(seen.values[seen.values.index >= since])
    monthly = seen.series.frequency == "monthly"
    steps = max(1, round(horizon / 21)) if monthly else horizon
    if len(values) <= steps or (seen.last - day_of(values.index[steps])).days < MIN_YEARS * 365:
        return None
    level = values.to_numpy()
    start, end = level[:-steps], level[steps:]
    moves = end / start - 1 if FACTORS[factor].unit == "return" else end - start
    step = f"{steps}-{'month' if monthly else 'day'} moves"
    stale = f", {seen.age_days} days old" if seen.stale else ""
    return Moves(moves, f"{step} of {name}, {span(values.index)}{stale}")


def sigma_of(factor: FactorId, market: MarketStore, as_of: dt.date, horizon: int) -> Sigma | None:
    """Standard deviation of the factor's moves over `horizon`, from history or the table; None if neither has it."""
    moves = factor_moves(factor, market, as_of, horizon)
    if moves is not None:
        return Sigma(moves.sigma, moves.window)
    if factor not in size_table().factors:
        return None
    row, scale, window = _table_row(factor, horizon)
    return Sigma(row.sigma * scale, window)


def resolve_user(user_shock: UserShock, market: MarketStore, as_of: dt.date, horizon: int) -> Shock:
    """The user's shock in the factor's own unit, with its size in σ. Errors: InputError for a move outside `BOUNDS`."""
    known = _known(user_shock.factor)
    sigma = sigma_of(known.id, market, as_of, horizon)
    if user_shock.in_sigmas and sigma is None:
        raise InputError(f"{known.id!r} has too little history by {as_of} to have a σ",
                         fix=f"write its shock in {known.unit}")  # fmt: skip
    move = user_shock.amount * sigma.value if user_shock.in_sigmas and sigma else user_shock.amount
    low, high = (show(bound, known.unit) for bound in BOUNDS[known.unit])
    if not BOUNDS[known.unit][0] <= move <= BOUNDS[known.unit][1]:
        raise InputError(f"the shock of {known.id!r} is {show(move, known.unit)}", fix=f"stay between {low} and {high}")
    return _shock(known, move, sigma, "user", _basis(sigma))


def model_shock(
    factor: FactorId, direction: Direction, size: Size, market: MarketStore, as_of: dt.date, horizon: int
) -> Shock:
    """The move that a judged direction and size stand for: a quantile of the factor's own moves of that sign.

    Where the factor has too little history, the reviewed table gives it, scaled by √(horizon / table horizon), with
    origin `table`. Direction `none` is a move of zero. Errors: InputError where neither history nor table has a size.
    """
    known = FACTORS[factor]
    sign = {"up": 1, "down": -1, "none": 0}[direction]
    moves = factor_moves(factor, market, as_of, horizon)
    same = np.abs(moves.values[np.sign(moves.values) == sign]) if moves is not None and sign else np.zeros(0)
    if moves is not None and (sign == 0 or len(same) >= MIN_MOVES):
        move = sign * float(np.quantile(same, QUANTILE[size])) if sign else 0.0
        return _shock(known, move, Sigma(moves.sigma, moves.window), "model", f"{size} {direction}: {moves.window}")
    row, scale, window = _table_row(factor, horizon)
    amount = {"small": row.small, "medium": row.medium, "large": row.large, "extreme": row.extreme}[size]
    move = sign * amount * scale
    if known.unit == "return":
        move = max(move, FLOOR)
    return _shock(known, move, Sigma(row.sigma * scale, window), "table", f"{size} {direction}: {window}")


def replay_shocks(market: MarketStore, start: dt.date, end: dt.date, as_of: dt.date) -> Replayed:
    """Each factor's realised move from the close of `start` to that of `end`.

    σ is of moves over as many trading days, known at `as_of`. Errors: LookAheadError if `end` is after `as_of`;
    InputError if `end` does not come after `start`.
    """
    if end > as_of:
        raise LookAheadError(f"the replay {start} to {end} reaches past as_of {as_of}",
                             fix=f"set 'as_of' to {end} or later, or replay an earlier window")  # fmt: skip
    if end <= start:
        raise InputError(f"the replay {start} to {end} does not end after it starts", fix="swap or correct the days")
    horizon = max(1, int(np.busday_count(start, end)))
    found: list[Shock] = []
    missing: dict[FactorId, str] = {}
    for factor in FACTORS.values():
        if factor.series is None:
            missing[factor.id] = "it has no series"
            continue
        try:
            window = market.window(factor.series, start, end, as_of)
        except InputError as error:
            missing[factor.id] = error.message
            continue
        first, last = float(window.iloc[0]), float(window.iloc[-1])
        move = last / first - 1 if factor.unit == "return" else last - first
        sigma = sigma_of(factor.id, market, as_of, horizon)
        words = f"{span(window.index)}; {_basis(sigma)}"
        found.append(_shock(factor, move, sigma, "historical", words))
    return Replayed(tuple(found), missing)


def _known(factor: str) -> Factor:
    for known in FACTORS.values():
        if known.id == factor:
            return known
    raise InputError(f"unknown factor {factor!r}", fix=f"use one of {', '.join(FACTORS)}")


def _basis(sigma: Sigma | None) -> str:
    return f"σ: {sigma.window}" if sigma else "no σ: too little history, and no reviewed size"


def _shock(factor: Factor, move: float, sigma: Sigma | None, origin: Origin, window: str) -> Shock:
    size = move / sigma.value if sigma and sigma.value > 0 else None
    return Shock(factor=factor.id, move=move, unit=factor.unit, sigma=size, origin=origin, window=window)


def _table_row(factor: FactorId, horizon: int) -> tuple[SizeRow, float, str]:
    """The factor's reviewed row, the scale to `horizon`, and its provenance in words."""
    table = size_table()
    if factor not in table.factors:
        raise InputError(
            f"{factor!r} has too little history for a size, and size table {table.version!r} has no row for it",
            fix="write its shock in its own unit, or add the row to tools/pnl/size_table.yaml",
        )
    row = table.factors[factor]
    scale = math.sqrt(horizon / table.horizon)
    words = f"size table {table.version}, reviewed {table.reviewed.on}, {table.horizon} days × {scale:.2f}: {row.basis}"
    return row, scale, words
