"""Tail measures of a book: VaR, expected shortfall and drawdown by historical simulation, and liquidity horizons."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from finllm.errors import InputError
from finllm.tools.data.books.book import Book
from finllm.tools.data.market import INDEX, MarketStore, crosses, halts, span
from finllm.tools.pnl.after_shock import filtered
from finllm.tools.pnl.betas import FIRST, FURTHER
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.history import History, one_step
from finllm.tools.pnl.kernel import Sensitivities, local_gains, totals
from finllm.tools.pnl.outcome import ExpectedShortfall, Liquidity, LiquidityRow, ValueAtRisk, usd

VAR_LEVEL = 0.975
WINDOW = 504
"""Daily returns behind VaR and ES: two years."""
BASE_DAYS = 10
"""Base horizon T of the liquidity cascade, trading days (MAR33.5)."""
LIQUIDITY_HORIZONS = (10, 20, 40, 60, 120)


def value_at_risk(gains: np.ndarray, level: float = VAR_LEVEL) -> float:
    """The smallest loss exceeded with probability at most 1 − level; positive is a loss. NaN is an error.

    Empirical, each observation equally likely (Rockafellar and Uryasev 2002): with k = (1 − level)·n losses beyond it,
    the (⌊k⌋ + 1)-th largest loss, as skfolio takes it. Errors: InputError for no gains or NaN.
    """
    values = _clean(gains)
    beyond = (1 - level) * len(values)
    at = min(len(values) - 1, math.floor(beyond + 4 * np.finfo(float).eps * len(values)))
    return -float(np.partition(values, at)[at])


def expected_shortfall(gains: np.ndarray, level: float = VAR_LEVEL) -> float:
    """Mean of the worst (1 − level)·n gains, a fraction of an observation counted as such; positive is a loss.

    Acerbi and Tasche 2002, equation 13; skfolio's `cvar`. Errors: InputError for no gains or NaN.
    """
    values = _clean(gains)
    beyond = (1 - level) * len(values)
    at = max(0, math.ceil(beyond) - 1)
    part = np.partition(values, at)
    return float(-part[:at].sum() / beyond + part[at] * (at / beyond - 1))


def _clean(gains: np.ndarray) -> np.ndarray:
    values = np.asarray(gains, dtype="float64")
    if not len(values) or not np.isfinite(values).all():
        raise InputError("a tail measure needs gains, all of them finite", fix="drop the days without a figure")
    return values


@dataclass(frozen=True)
class DailyGains:
    """One-day P&L of a book on past days, USD: before a shock and of what is left after it, each (n,).

    `gain`: what the shock itself gains, over `days` trading days. The measures after it are at the volatility that it
    leaves (`filtered`).
    """

    before: np.ndarray
    after: np.ndarray
    window: str
    coverage: float
    missing: tuple[str, ...]
    gain: float = 0.0
    days: int = 1

    def measures(
        self, level: float = VAR_LEVEL
    ) -> tuple[ValueAtRisk, ValueAtRisk, ExpectedShortfall, ExpectedShortfall]:
        """VaR before and after, ES before and after."""
        after = filtered(self.before, self.after, self.gain, self.days)
        var = [
            ValueAtRisk(loss=usd(value_at_risk(one, level)), level=level, window=self.window,
                        coverage=self.coverage, missing=self.missing)
            for one in (self.before, after)
        ]  # fmt: skip
        shortfall = [
            ExpectedShortfall(loss=usd(expected_shortfall(one, level)), level=level, window=self.window,
                              coverage=self.coverage, missing=self.missing)
            for one in (self.before, after)
        ]  # fmt: skip
        return var[0], var[1], shortfall[0], shortfall[1]


def daily_gains(
    book: Book,
    arrays: Sensitivities,
    moves: np.ndarray,
    factors: FactorSet,
    market: MarketStore,
    as_of: dt.date,
    *,
    days_of_shock: int = 1,
    realised: Mapping[str, float] | None = None,
    window: int = WINDOW,
    found: BookDays | None = None,
    later: Sensitivities | None = None,
) -> DailyGains | None:
    """Historical simulation on current holdings, before the shock `moves` (K,) and after it.

    Own returns where a holding has some (beta times the index's on days without), else its factors' daily moves; a
    holding with a factor that has no fresh daily history is `missing`. After the shock, exposure by returns has moved
    with the price of its underlying (`realised`, USD, in a replay), and curvature has moved every delta; contracts are
    revalued from there. The shock came over `days_of_shock`. `found`: the days, where they are at hand; `later`: the
    book that the shock hits, where it has aged until then. None without any holding or day.
    """
    found = found or book_days(book, arrays, factors, market, as_of, window)
    if found is None:
        return None
    daily, missing, hit = found.daily, found.missing, later or arrays
    shift = arrays.direction @ arrays.wide(moves)  # of the underlying: a return, bp or points
    slope = arrays.curvature * shift
    gross = np.array([one.counts_for for one in book.holdings])
    own = np.zeros(len(gross), dtype=bool)
    moved, gained = np.ones(len(gross)), local_gains(hit, moves[None, :])[:, 0]
    rates = np.ones(len(gross)) if arrays.fx is None else 1.0 + arrays.fx.returns(moves[None, :])[:, 0]
    before, after = np.zeros(len(daily)), np.zeros(len(daily))
    for row, holding in enumerate(book.holdings):
        if missing[row]:
            continue
        if holding.asset_class in ("equity", "index", "commodity", "fx", "gold"):
            moved[row] = max(0.0, 1.0 + float(shift[row]))
        if realised and holding.id in realised and holding.market_value:
            moved[row] = max(0.0, 1.0 + realised[holding.id] / holding.market_value)
            gained[row] = realised[holding.id]
        if row in found.own:
            own[row] = True
            line = _own_line(arrays.rows(np.array([row])), holding.market_value * found.own[row], daily)
            before += line
            after += line * moved[row] * rates[row]
    rest = np.flatnonzero(~own & ~missing)
    before += totals(arrays.rows(rest), daily)
    after += totals(_after(hit, moves, slope, moved * rates, gained).rows(rest), daily)
    covered, whole = float(gross[~missing].sum()), float(gross.sum()) + book.left_out
    if missing.all():
        return None
    names = tuple(arrays.positions[row] for row in np.flatnonzero(missing))
    gain = totals(hit.rows(np.flatnonzero(~missing)), moves[None, :])[0]
    share = covered / whole if whole else 1.0
    return DailyGains(before, after, found.words, share, names, float(gain), days_of_shock)


@dataclass(frozen=True)
class BookDays:
    """The days that a book is put through: the factors' moves (n, K), and each day's date (n,).

    `own`: by row, the returns (n,) of holdings that take their own, NaN on days without. `missing` (P,): holdings with
    neither own returns nor a fresh daily history of what they load on. `spread`: series with returns of several days.
    """

    days: pd.DatetimeIndex
    daily: np.ndarray
    own: dict[int, np.ndarray]
    missing: np.ndarray
    spread: tuple[str, ...] = ()
    histories: dict[str, tuple[np.ndarray, np.ndarray | None]] = field(default_factory=dict, repr=False, compare=False)
    """By series, what `_own` finds of it on these days."""

    @property
    def words(self) -> str:
        names = ", ".join(self.spread[:3]) + (f" and {more} more" if (more := len(self.spread) - 3) > 0 else "")
        longer = f"; {names}: by factors, and by what is beyond them in returns of n days × √(1/n)" if names else ""
        return f"1-day moves, {span(self.days)}{longer}"


def book_days(
    book: Book, arrays: Sensitivities, factors: FactorSet, market: MarketStore, as_of: dt.date, window: int = WINDOW,
    *, known: BookDays | None = None,
) -> BookDays | None:  # fmt: skip
    """The last `window` days of the index, as a book meets them. None without an index or a day. `known`: the same of
    another book, on the same market and days."""
    if INDEX not in market:
        return None
    days = pd.DatetimeIndex(_index_days(market, as_of, window).index)
    if days.empty:
        return None
    table = _factor_days(arrays, factors, market, as_of, days)
    there = np.array([name in table for name in arrays.factors])
    daily = np.column_stack([table.get(name, np.zeros(len(days))) for name in arrays.factors])
    unknown, adrift = _unknown(arrays, there)
    names = {one.series for one in book.holdings if one.series}
    before = known.histories if known is not None else {}
    histories = {name: before[name] if name in before else _own(name, market, as_of, window, days) for name in names}
    own: dict[int, np.ndarray] = {}
    spread: set[str] = set()
    missing = np.zeros(len(book.holdings), dtype=bool)
    for row, holding in enumerate(book.holdings):
        missing[row] = adrift[row] or (holding.series is None and unknown[row])
        if holding.series and not missing[row] and not (holding.gamma or holding.vega):
            returns, steps = histories[holding.series]
            if steps is not None and holding.market_value:  # else its gain is nothing anyway
                gains = local_gains(arrays.rows(np.array([row])), daily)[0] / holding.market_value
                returns = _spread(returns, steps, gains)
            own[row] = returns
            spread |= {holding.series} if steps is not None else set()
    return BookDays(days, daily, own, missing, tuple(sorted(spread)), histories)


def _spread(returns: np.ndarray, steps: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Returns by day, (n,), from `returns` over the `steps` days up to theirs; NaN on days that none of them holds.

    A day has what its factors gain (`gains`, (n,)), its part of the mean of what is beyond them, and of the rest of its
    return √(1/n), whose variance is that of one of n days.
    """
    held = [(slice(end + 1 - int(steps[end]), end + 1), float(returns[end]))
            for end in np.flatnonzero(np.isfinite(returns)).tolist() if end + 1 >= steps[end]]  # fmt: skip
    beyond = np.array([whole - gains[at].sum() for at, whole in held])
    counts = np.array([at.stop - at.start for at, _ in held])
    found = np.full(len(returns), np.nan)
    mean = beyond.sum() / max(1, counts.sum())
    for (at, _), rest, count in zip(held, beyond, counts, strict=True):
        found[at] = gains[at] + mean + (rest - mean * count) / math.sqrt(count)
    return found


def _unknown(arrays: Sensitivities, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which positions need a factor that is not `known` (K,), and which are in a currency that is not; (P,) each."""
    needed = _needed(arrays)
    rates = np.zeros(needed.shape) if arrays.fx is None else arrays.fx.slopes(np.zeros(len(known)))
    lacking = [np.any(one & ~known, axis=1, keepdims=True)[:, 0] for one in (needed, rates != 0)]
    return lacking[0], lacking[1]


def _own_line(one: Sensitivities, gains: np.ndarray, daily: np.ndarray) -> np.ndarray:
    """One position's P&L by day, (n,): its own local `gains`, and where these are NaN its factors', translated."""
    line = np.where(np.isnan(gains), local_gains(one, daily), gains)
    return (line if one.fx is None else one.fx.translated(line, daily))[0]


def _needed(arrays: Sensitivities) -> np.ndarray:
    """Which factors' daily moves a position's need, (P, K). Held still without: a contract's volatility and rate, and
    what a stock loads on beyond the index."""
    loads = (arrays.linear != 0) | (arrays.direction * arrays.curvature[:, None] != 0)
    if arrays.contracts:
        loads[arrays.contracts.rows] = arrays.contracts.loads[0] != 0
    loads = arrays.folded(loads)
    stocks = loads[:, arrays.factors.index(FIRST)]
    loads[np.ix_(stocks, np.array([name in FURTHER for name in arrays.factors]))] = False
    return loads


def _index_days(market: MarketStore, as_of: dt.date, window: int) -> pd.Series:
    """The index's daily returns, those across a break left out, by day."""
    index = market.read(INDEX, as_of)
    return pd.Series(index.values.pct_change().iloc[1:][~crosses(index.values.index, index.breaks)]).tail(window)


def _after(
    arrays: Sensitivities, moves: np.ndarray, slope: np.ndarray, moved: np.ndarray, gained: np.ndarray
) -> Sensitivities:
    """The book after the shock: slopes moved by the curvature, everything scaled by what is left of its price.

    Contracts stand where the shock took what they are on. What is held in a currency has moved by the local gains
    `gained` (P,) and by the rate.
    """
    return Sensitivities(
        arrays.positions, arrays.factors, arrays.sectors, arrays.sector, arrays.value,
        moved[:, None] * (arrays.linear + slope[:, None] * arrays.direction), arrays.direction,
        moved * arrays.curvature, np.zeros_like(arrays.floored),
        arrays.contracts and arrays.contracts.moved(arrays.wide(moves)),
        arrays.fx and arrays.fx.after(gained, moves), arrays.felt,
    )  # fmt: skip


def _own(
    series: str, market: MarketStore, as_of: dt.date, window: int, days: pd.Index
) -> tuple[np.ndarray, np.ndarray | None]:
    """Simple returns on `days`, NaN where it has none: on the last `window` days that it shares with the index. And the
    days of the index that each is over, where that is typically more than one.

    A return spans two days that both have observed, so a day missing from one is bridged. One across a break has none,
    and none while the name is halted.
    """
    (prices, breaks), index = market.read(series, as_of).positive(), market.read(INDEX, as_of).values
    shared = prices.loc[prices.index.intersection(index.index)]
    left_out = crosses(shared.index, breaks)
    for start, end in halts(shared.to_numpy()):
        left_out[start:end] = True
    returns = pd.Series(shared.pct_change().iloc[1:].where(~left_out)).tail(window)
    steps = pd.Series(np.diff(index.index.get_indexer(shared.index)), index=shared.index[1:])
    longer = len(steps) > 0 and float(steps.median()) > 1
    return returns.reindex(days).to_numpy(), steps.reindex(days).to_numpy() if longer else None


def _factor_days(
    arrays: Sensitivities, factors: FactorSet, market: MarketStore, as_of: dt.date, days: pd.DatetimeIndex
) -> dict[str, np.ndarray]:
    """Daily moves on `days` of the factors that have a fresh daily history; a missing day is no move."""
    found: dict[str, np.ndarray] = {}
    for name in arrays.factors:
        driver = factors[name]
        if not driver.has_history:
            continue
        try:
            seen = driver.levelled(market, as_of)
        except InputError:
            continue
        values = seen.values
        if seen.frequency != "daily" or len(values) < 2:
            continue
        steps = pd.Series(one_step(values.to_numpy(), driver.unit), index=values.index[1:])
        moves = pd.Series(steps[~crosses(values.index, seen.breaks)]).reindex(days)
        if moves.isna().mean() <= 0.1:
            found[name] = moves.fillna(0.0).to_numpy()
    return found


def liquidity(arrays: Sensitivities, factors: FactorSet, past: History, level: float = VAR_LEVEL) -> Liquidity | None:
    """Expected shortfall adjusted for liquidity horizons, on moves over ten days; None without any.

    The moves are those of `past`: overlapping ones of ten days where it is daily, else one step × √(10/step), which is
    said.

    ES = √(Σⱼ (ES₁₀(j)·√((LHⱼ − LHⱼ₋₁)/10))²), LH₀ = 0, where ES₁₀(j) moves only the factors with a liquidity horizon
    of LHⱼ or more (Basel Committee on Banking Supervision, MAR33.5, base horizon ten days). Specific risk is left out.
    """
    loaded = arrays.loaded()
    usable = [name for name in loaded if name in past.names]
    if not usable:
        return None
    scaled, words = _ten_days(past, factors)
    rows: list[LiquidityRow] = []
    squares, before = 0.0, 0
    for horizon in LIQUIDITY_HORIZONS:
        kept = tuple(name for name in usable if factors[name].liquidity >= horizon)
        moves = np.zeros((len(scaled), len(arrays.factors)))
        for name in kept:
            moves[:, arrays.factors.index(name)] = scaled[:, past.names.index(name)]
        shortfall = expected_shortfall(totals(arrays, moves), level) if kept else 0.0
        step = shortfall * math.sqrt((horizon - before) / BASE_DAYS)
        rows.append(LiquidityRow(days=horizon, factors=kept, es_10d=usd(shortfall), scaled=usd(step)))
        squares += step**2
        before = horizon
    return Liquidity(
        total=usd(math.sqrt(squares)), level=level, rows=tuple(rows),
        without=tuple(name for name in loaded if name not in past.names),
        method=(
            f"{words}, the book revalued, MAR33.5 cascade over the days that it takes to leave a position in each"
            " factor (MAR33.12), which are not the scenario's; no specific risk"
        ),
    )  # fmt: skip


def _ten_days(past: History, factors: FactorSet) -> tuple[np.ndarray, str]:
    """Moves over ten days (n, K), and what they are, in words."""
    moves = past.moves.to_numpy()
    if past.frequency != "daily" or len(moves) < 2 * BASE_DAYS:
        words = f"{len(moves)} {past.frequency} moves of each factor × √({BASE_DAYS}/{past.step_days})"
        return moves * math.sqrt(BASE_DAYS / past.step_days), words
    windows = np.lib.stride_tricks.sliding_window_view(moves, BASE_DAYS, axis=0)  # (n − 9, K, 10)
    found = windows.sum(axis=-1)
    compounded = [at for at, name in enumerate(past.names) if factors[name].unit == "return"]
    found[:, compounded] = np.prod(1.0 + windows[:, compounded], axis=-1) - 1.0
    return found, f"{len(found)} overlapping {BASE_DAYS}-day moves of each factor"
