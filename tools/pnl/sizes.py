"""Direct shocks of a run: what the user, a replay and the reading say, one per factor, with their sizes."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.factors import FACTORS, Shock, UserShock
from finllm.tools.data.market import MarketStore
from finllm.tools.evidence import show
from finllm.tools.pnl.exposure import span
from finllm.tools.pnl.factorset import STEP_DAYS, Driver, FactorSet
from finllm.tools.pnl.history import days_between, one_step
from finllm.tools.pnl.outcome import ShockOrigin
from finllm.tools.pnl.shocks import BOUNDS, LOOKBACK_YEARS, MIN_MOVES, Sigma, factor_moves, replay_shocks, sigma_of

FAR = 5.0
"""σ beyond which a shock counts as extrapolated whatever its history shows."""
PRECEDENCE: tuple[ShockOrigin, ...] = ("user", "historical", "model", "table")


@dataclass(frozen=True)
class Size:
    """A factor's moves over the horizon: σ with its window, and where it has a history their least and greatest."""

    sigma: Sigma | None
    least: float | None
    most: float | None


@dataclass(frozen=True)
class Direct:
    """A shock before propagation: its move in the factor's unit, where it is from, and its size in σ."""

    driver: Driver
    move: float
    origin: ShockOrigin
    sigma: float | None
    window: str
    flags: tuple[str, ...]


def size_of(driver: Driver, market: MarketStore, as_of: dt.date, horizon: int) -> Size:
    """σ and range of a factor's overlapping moves over the horizon in the last 30 years, or σ of the reviewed table.

    Errors: InputError where a level that moves by returns is not positive.
    """
    for known in FACTORS.values():
        if known.id == driver.id and known.series == driver.series:
            moves = factor_moves(known.id, market, as_of, horizon)
            sigma = sigma_of(known.id, market, as_of, horizon)
            if moves is None:
                return Size(sigma, None, None)
            return Size(sigma, float(moves.values.min()), float(moves.values.max()))
    if not driver.has_history:
        return Size(None, None, None)
    values, frequency = driver.seen(market, as_of)
    since = pd.Timestamp(year=as_of.year - LOOKBACK_YEARS, month=as_of.month, day=1)
    values = pd.Series(values[values.index >= since])
    steps = max(1, round(horizon / STEP_DAYS[frequency]))
    if len(values) < steps + MIN_MOVES:
        return Size(None, None, None)
    short = math.sqrt(min(1.0, horizon / STEP_DAYS[frequency]))  # a horizon within one step
    moves = one_step(values.to_numpy(), driver.unit, steps) * short
    period = {"daily": "day", "monthly": "month", "quarterly": "quarter"}[frequency]
    words = f"{steps}-{period} moves of {driver.series or driver.id}, {span(values.index)}"
    if short < 1:
        words += f", × √({horizon}/{STEP_DAYS[frequency]})"
    return Size(Sigma(float(moves.std(ddof=1)), words), float(moves.min()), float(moves.max()))


def direct_shocks(
    factors: FactorSet,
    market: MarketStore,
    as_of: dt.date,
    horizon: int,
    *,
    user: Sequence[UserShock] = (),
    replay: tuple[dt.date, dt.date] | None = None,
    model: Sequence[Shock] = (),
) -> tuple[dict[str, Direct], tuple[str, ...]]:
    """One shock per factor: a user's wins over history, history over a reading's; and what to know about them.

    Errors: InputError for an unknown factor, a move out of bounds, or two different shocks of one factor and origin;
    LookAheadError for a replay that ends after `as_of`.
    """
    found = [resolve(one, factors, market, as_of, horizon) for one in user]
    notes: list[str] = []
    if replay:
        found += _replayed(factors, market, as_of, replay, notes)
    for shock in model:
        size = size_of(factors[shock.factor], market, as_of, horizon)
        flags = _flags(shock.move, shock.sigma, size)
        found.append(Direct(factors[shock.factor], shock.move, shock.origin, shock.sigma, shock.window, flags))
    used: dict[str, Direct] = {}
    for one in sorted(found, key=lambda shock: PRECEDENCE.index(shock.origin)):
        kept = used.setdefault(one.driver.id, one)
        if kept.origin != one.origin:
            notes.append(f"{one.driver.id}: the {kept.origin} shock replaces the {one.origin} one")
        elif kept.move != one.move:
            raise InputError(f"two {one.origin} shocks of {one.driver.id!r}: {kept.move:g} and {one.move:g}",
                             fix="give one")  # fmt: skip
    return used, tuple(notes)


def resolve(user: UserShock, factors: FactorSet, market: MarketStore, as_of: dt.date, horizon: int) -> Direct:
    """A user's shock in the factor's own unit. Errors: InputError for a move out of bounds, or σ without a history."""
    driver = factors[user.factor]
    size = size_of(driver, market, as_of, horizon)
    if user.in_sigmas and size.sigma is None:
        raise InputError(f"{driver.id!r} has too little history by {as_of} to have a σ",
                         fix=f"write its shock in {driver.unit}")  # fmt: skip
    move = user.amount * size.sigma.value if user.in_sigmas and size.sigma else user.amount
    low, high = BOUNDS[driver.unit]
    if not low <= move <= high:  # NaN is refused here too
        raise InputError(f"the shock of {driver.id!r} is {show(move, driver.unit)}",
                         fix=f"stay between {show(low, driver.unit)} and {show(high, driver.unit)}")  # fmt: skip
    sigma = move / size.sigma.value if size.sigma and size.sigma.value > 0 else None
    words = f"σ: {size.sigma.window}" if size.sigma else "no σ: too little history, and no reviewed size"
    return Direct(driver, move, "user", sigma, words, _flags(move, sigma, size))


def _replayed(
    factors: FactorSet, market: MarketStore, as_of: dt.date, replay: tuple[dt.date, dt.date], notes: list[str]
) -> list[Direct]:
    days = days_between(*replay)
    known = replay_shocks(market, *replay, as_of)
    found = {shock.factor: shock for shock in known.shocks}
    shocks: list[Direct] = []
    for id, driver in factors.drivers.items():
        size = size_of(driver, market, as_of, days)
        if id in found and driver.series == FACTORS[found[id].factor].series:
            shock = found[id]
            flags = _flags(shock.move, shock.sigma, size)
            shocks.append(Direct(driver, shock.move, "historical", shock.sigma, shock.window, flags))
            continue
        try:
            if driver.series is None:
                raise InputError("it has no series", fix="")
            window = market.window(driver.series, *replay, as_of)
        except InputError as error:
            notes.append(f"{id} is not replayed: {error.message}")
            continue
        scale = 100.0 if market.unit_of(driver.series) == "percent" else 1.0
        move = float(one_step(window.iloc[[0, -1]].to_numpy() * scale, driver.unit)[0])
        sigma = move / size.sigma.value if size.sigma else None
        shocks.append(Direct(driver, move, "historical", sigma, span(window.index), _flags(move, sigma, size)))
    return shocks


def _flags(move: float, sigma: float | None, size: Size) -> tuple[str, ...]:
    flags: list[str] = []
    if size.least is not None and size.most is not None and not size.least <= move <= size.most:
        flags.append("extrapolated: beyond every move of its history over the horizon")
    elif sigma is not None and np.abs(sigma) > FAR:
        flags.append(f"extrapolated: beyond {FAR:g} σ")
    return tuple(flags)
