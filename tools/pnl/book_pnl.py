"""Profit and loss of a book under shocks: by position, factor and sector, each cut exactly the total; a band; VaR."""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated, Literal, Protocol

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, PlainSerializer

from finllm.errors import InputError
from finllm.tools.data.factors import FACTOR_IDS, FactorId, Origin, Shock
from finllm.tools.data.market import MarketStore
from finllm.tools.data.portfolio import Book, Holding, Limits
from finllm.tools.pnl.exposure import INDEX, Beta, Exposure, daily_returns, exposures, span
from finllm.tools.pnl.shocks import replay_shocks

Cents = Annotated[Decimal, PlainSerializer(float, return_type=float, when_used="json")]
"""USD in whole cents: a Decimal in Python, a number in JSON."""

INTERACTION = "interaction"
"""Row for what no single factor explains: the cross term of a bond's two factors, and the floor at a price of zero."""
IDIOSYNCRATIC = "idiosyncratic"
"""Row for a replayed instrument's own return beyond beta times the index."""

WINDOW = 504
"""Daily returns behind the band and the VaR: two years."""
BAND = 0.90
VAR_LEVEL = 0.975
TAYLOR_LIMIT_BP = 300
_ROWS = (*FACTOR_IDS, IDIOSYNCRATIC, INTERACTION)
_PRECEDENCE: tuple[Origin, ...] = ("user", "historical", "model", "table")


LossCut = Literal["loss_by_factor", "loss_by_sector", "loss_by_position"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Interval(_Frozen):
    """Where the P&L lies with probability `level`, given the shocks, in USD."""

    lower: Cents
    upper: Cents
    level: float
    method: str


class ValueAtRisk(_Frozen):
    """One-day loss, positive in USD, that current holdings exceed on 2.5 % of the days of `window`.

    `coverage` is the share of the gross value that the window has prices for; `missing` names the others.
    """

    loss: Cents
    level: float
    window: str
    coverage: float
    missing: tuple[str, ...]


class StressResult(_Frozen):
    """P&L in USD of a book under `shocks` over `horizon` trading days. Every cut sums exactly to `total`.

    `by_factor` has a row for each shocked factor that the book loads on, for `interaction`, and in a replay for
    `idiosyncratic`; `by_position` and `by_sector` name every holding and sector, at zero too.
    `interval` is None where no holding has a history, `var_975_1d` where none has one in the window.
    """

    as_of: dt.date
    horizon: int
    book_value: Cents
    total: Cents
    by_position: dict[str, Cents]
    by_factor: dict[str, Cents]
    by_sector: dict[str, Cents]
    shocks: tuple[Shock, ...]
    interval: Interval | None
    var_975_1d: ValueAtRisk | None
    notes: tuple[str, ...]


class Breach(_Frozen):
    """A loss beyond its limit, both positive USD. `subject` is the factor, sector or position, or `book` for VaR."""

    kind: LossCut | Literal["var_975_1d"]
    subject: str
    limit: Cents
    loss: Cents


def stress(
    book: Book,
    betas: dict[str, Beta],
    shocks: Sequence[Shock],
    *,
    replay: tuple[dt.date, dt.date] | None,
    market: MarketStore,
    as_of: dt.date,
    horizon: int,
    bands: bool = True,
) -> StressResult:
    """Revalue the book under the shocks, direct ones only: a factor without a shock is held still.

    With `replay` (start, end), factors move as they did over that window, and an equity or index with its own history
    takes its own return, close to close. For one factor a user's shock wins over history, history over a model's.
    Without `bands` interval and VaR are left out: no shock changes their width, and they take most of the time.
    Errors: LookAheadError if the replay ends after `as_of`; InputError if two shocks of one origin share a factor.
    """
    replayed = replay_shocks(market, *replay, as_of) if replay else None
    used, notes = _one_per_factor([*shocks, *(replayed.shocks if replayed else ())])
    if replayed:
        notes += [f"{factor} is not replayed: {why}" for factor, why in replayed.missing.items() if factor not in used]
    own = replay if replay and _is_replayed(used.get("EQUITY_US"), replayed is not None) else None
    loads: dict[str, list[Exposure]] = defaultdict(list)
    for exposure in exposures(book, betas):
        loads[exposure.id].append(exposure)
    cells: dict[tuple[str, str], Decimal] = {}
    for holding in book.holdings:
        parts, said = _parts(holding, loads[holding.id], used)
        if own and holding.series:
            parts, said = _own_return(holding, (parts, said), own, market, as_of)
        notes += said
        cells |= {(holding.id, row): _cents(amount) for row, amount in ({INTERACTION: 0.0} | parts).items()}
    sector_of = {holding.id: holding.sector for holding in book.holdings}
    total = sum(cells.values(), Decimal(0))
    return StressResult(
        as_of=as_of,
        horizon=horizon,
        book_value=_cents(book.value),
        total=total,
        by_position=_cut(cells, lambda name, _: name),
        by_factor=dict(sorted(_cut(cells, lambda _, row: row).items(), key=lambda cut: _ROWS.index(cut[0]))),
        by_sector=_cut(cells, lambda name, _: sector_of[name]),
        shocks=tuple(used.values()),
        interval=_interval(_residuals(book, betas, market, as_of), len(book.holdings), horizon, total)
        if bands
        else None,
        var_975_1d=_value_at_risk(book, betas, market, as_of) if bands else None,
        notes=tuple(notes),
    )


class Cuts(Protocol):
    """A stressed P&L, USD, whose cuts and one-day VaR are held against limits."""

    @property
    def by_factor(self) -> dict[str, Decimal]: ...
    @property
    def by_sector(self) -> dict[str, Decimal]: ...
    @property
    def by_position(self) -> dict[str, Decimal]: ...
    @property
    def var_975_1d(self) -> ValueAtRisk | None: ...


def breaches(result: Cuts, limits: Limits) -> list[Breach]:
    """Every loss above its limit. The key `each` limits every name that has no limit of its own."""
    cuts: tuple[tuple[LossCut, dict[str, Decimal], dict[str, float]], ...] = (
        ("loss_by_factor", result.by_factor, limits.loss_by_factor),
        ("loss_by_sector", result.by_sector, limits.loss_by_sector),
        ("loss_by_position", result.by_position, limits.loss_by_position),
    )
    found: list[Breach] = []
    for kind, gains, allowed in cuts:
        for subject, gain in gains.items():
            limit = allowed.get(subject, allowed.get("each"))
            if limit is not None and -gain > _cents(limit):
                found.append(Breach(kind=kind, subject=subject, limit=_cents(limit), loss=-gain))
    var, limit = result.var_975_1d, limits.var_975_1d
    if var is not None and limit is not None and var.loss > _cents(limit):
        found.append(Breach(kind="var_975_1d", subject="book", limit=_cents(limit), loss=var.loss))
    return found


def _one_per_factor(shocks: Sequence[Shock]) -> tuple[dict[FactorId, Shock], list[str]]:
    """The shock that counts for each factor, and notes on those that it displaced."""
    used: dict[FactorId, Shock] = {}
    notes: list[str] = []
    for shock in sorted(shocks, key=lambda one: _PRECEDENCE.index(one.origin)):
        kept = used.setdefault(shock.factor, shock)
        if kept.origin != shock.origin:
            notes.append(f"{shock.factor}: the {kept.origin} shock replaces the {shock.origin} one")
        elif kept.move != shock.move:
            raise InputError(f"two {shock.origin} shocks of {shock.factor!r}: {kept.move:g} and {shock.move:g}",
                             fix="give one")  # fmt: skip
    return used, notes


def _is_replayed(equity: Shock | None, replaying: bool) -> bool:
    """Whether equities take their own returns: no shock but history's stands for the equity market."""
    return replaying and (equity is None or equity.origin == "historical")


def _parts(
    holding: Holding, loads: Sequence[Exposure], shocks: Mapping[FactorId, Shock]
) -> tuple[dict[str, float], list[str]]:
    """P&L of one holding by row, USD, from its exposures; and what to say about it.

    A bond gains −D·Δy + ½·C·Δy² of its value, Δy = rate + credit: each factor's own terms are its row, C·rate·credit is
    `interaction`. The price of an equity or index cannot fall below zero; one with gamma or vega is left to its terms.
    """
    moves = {one.factor: shocks[one.factor].move for one in loads if one.factor in shocks}
    if not moves:
        return {}, [f"{holding.id!r} is held still: no shock of {' or '.join(one.factor for one in loads)}"]
    parts: dict[str, float] = {
        one.factor: one.linear * moves[one.factor] + 0.5 * one.quadratic * moves[one.factor] ** 2
        for one in loads
        if one.factor in moves
    }
    notes: list[str] = []
    if holding.asset_class == "bond":
        if len(moves) == 2:
            parts[INTERACTION] = loads[0].quadratic * math.prod(moves.values())
        if abs(sum(moves.values())) > TAYLOR_LIMIT_BP:
            notes.append(f"{holding.id!r}: duration and convexity are used beyond {TAYLOR_LIMIT_BP} bp of yield")
    elif holding.asset_class in ("equity", "index") and holding.market_value and not (holding.gamma or holding.vega):
        gain = sum(parts.values())
        if gain / holding.market_value < -1:
            parts[INTERACTION] = -holding.market_value - gain
            notes.append(f"{holding.id!r}: beta times the shock is below -100 %; its price is floored at zero")
    return parts, notes


def _own_return(
    holding: Holding,
    by_beta: tuple[dict[str, float], list[str]],
    replay: tuple[dt.date, dt.date],
    market: MarketStore,
    as_of: dt.date,
) -> tuple[dict[str, float], list[str]]:
    """The holding's own return over the replayed window; its rest beyond beta times the index is `idiosyncratic`."""
    parts, notes = by_beta
    assert holding.series is not None
    try:
        window = market.window(holding.series, *replay, as_of)
    except InputError as error:
        return parts, [*notes, f"{holding.id!r} is replayed by beta: {error.message}"]
    realised = holding.market_value * float(window.iloc[-1] / window.iloc[0] - 1)
    linear = {row: amount for row, amount in parts.items() if row != INTERACTION}
    return linear | {IDIOSYNCRATIC: realised - sum(linear.values())}, []


def _residuals(book: Book, betas: dict[str, Beta], market: MarketStore, as_of: dt.date) -> pd.DataFrame:
    """Daily P&L beyond beta, about its mean, USD: a column per holding with a history, the rows that all have."""
    residuals: dict[str, pd.Series] = {}
    for holding in book.holdings:
        if holding.series:
            returns = daily_returns(market, holding.series, as_of, WINDOW)
            rest = returns["own"] - betas[holding.id].value * returns["index"]
            residuals[holding.id] = holding.market_value * (rest - rest.mean())
    return pd.DataFrame(residuals).dropna()


def _interval(residuals: pd.DataFrame, positions: int, horizon: int, total: Decimal) -> Interval | None:
    """The total plus what the book did beside its betas over as many days: quantiles of overlapping sums."""
    if len(residuals) < 2:
        return None
    daily = residuals.sum(axis="columns")
    block = min(horizon, max(1, len(daily) // 4))
    sums = daily.rolling(block).sum().dropna().to_numpy() * math.sqrt(horizon / block)
    low, high = np.quantile(sums, [(1 - BAND) / 2, (1 + BAND) / 2])
    scaled = f" scaled by √({horizon}/{block})" if block < horizon else ""
    others = positions - residuals.shape[1]
    apart = f"; {others} positions without their own history add no residual" if others else ""
    return Interval(
        lower=total + _cents(min(low, 0.0)),
        upper=total + _cents(max(high, 0.0)),
        level=BAND,
        method=(
            f"given the shocks: point plus empirical quantiles of overlapping {block}-day sums{scaled} of the book's"
            f" daily P&L beyond beta, about its mean, {span(daily.index)}{apart}"
        ),
    )


def _value_at_risk(book: Book, betas: dict[str, Beta], market: MarketStore, as_of: dt.date) -> ValueAtRisk | None:
    """Historical simulation on current holdings: own returns where there are some, else beta times the index's."""
    if INDEX not in market:
        return None
    days = market.read(INDEX, as_of).values.pct_change().dropna().tail(WINDOW)
    gains = pd.Series(0.0, index=days.index)
    covered, missing = 0.0, []
    for holding in book.holdings:
        returns = _history(holding, betas, market, as_of, days)
        if returns is None:
            missing.append(holding.id)
            continue
        gains += holding.market_value * returns
        covered += abs(holding.market_value)
    gross = sum(abs(holding.market_value) for holding in book.holdings)
    if not covered or days.empty:
        return None
    losses = np.sort(-gains.to_numpy())[::-1]
    worst = math.floor((1 - VAR_LEVEL) * len(losses) + 1e-9)
    return ValueAtRisk(
        loss=_cents(losses[worst]), level=VAR_LEVEL, window=f"1-day moves, {span(days.index)}",
        coverage=covered / gross, missing=tuple(missing),
    )  # fmt: skip


def _history(
    holding: Holding, betas: dict[str, Beta], market: MarketStore, as_of: dt.date, days: pd.Series
) -> pd.Series | None:
    """Daily returns of the holding on the index's `days`, beta times the index where its own are missing."""
    if holding.asset_class in ("equity", "index"):
        by_beta = betas[holding.id].value * days
        if not holding.series:
            return by_beta
        own = daily_returns(market, holding.series, as_of, WINDOW)["own"]
        return pd.Series(own.reindex(days.index)).fillna(by_beta)
    if holding.asset_class == "commodity" and "WTI" in market:
        delta = 1.0 if holding.delta is None else holding.delta
        oil = market.read("WTI", as_of)
        returns = oil.values.pct_change().reindex(days.index)
        return None if oil.stale or returns.isna().mean() > 0.1 else pd.Series(delta * returns.fillna(0.0))
    return None


def _cut(cells: Mapping[tuple[str, str], Decimal], key: Callable[[str, str], str]) -> dict[str, Decimal]:
    """The cells (position, row) summed by `key`: exact, since each is in whole cents before any sum."""
    sums: dict[str, Decimal] = {}
    for (name, row), amount in cells.items():
        sums[key(name, row)] = sums.get(key(name, row), Decimal(0)) + amount
    return sums


def _cents(amount: float) -> Decimal:
    return Decimal(float(amount)).quantize(Decimal("0.01"), ROUND_HALF_EVEN)
