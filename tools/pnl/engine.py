"""The stress engine's face: a portfolio and shocks in, P&L with its cuts, bands and plausibility out; no model."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np

from finllm.errors import InputError
from finllm.tools.data.factors import Shock, UserShock
from finllm.tools.data.market import MarketStore
from finllm.tools.data.portfolio import Book, Portfolio, value_portfolio
from finllm.tools.pnl.attribution import attribute
from finllm.tools.pnl.bands import Residual, own_residuals, simulate
from finllm.tools.pnl.book_pnl import TAYLOR_LIMIT_BP, Interval
from finllm.tools.pnl.completion import Story, Tails, shock_rows, tell
from finllm.tools.pnl.episodes import episode, nearest
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.history import History, days_between, history
from finllm.tools.pnl.kernel import Sensitivities
from finllm.tools.pnl.outcome import Analogue, EngineResult, HorizonRow, ReverseResult
from finllm.tools.pnl.propagate import Covariance
from finllm.tools.pnl.reverse import reverse_stress
from finllm.tools.pnl.risk import daily_gains, liquidity, usd
from finllm.tools.pnl.sensitivity import Shrinkage, book_sensitivities
from finllm.tools.pnl.sizes import Direct, direct_shocks

Window = tuple[dt.date, dt.date]
HORIZONS = (1, 5, 10, 20, 60, 120, 250)
"""Rows of the table by horizon, trading days: those up to the scenario's, and its own."""
BY_HORIZON = "by horizon: the same shocks at the same size in σ, each move × √(days/horizon); rows nest and do not add"


def run_engine(
    portfolio: Portfolio,
    market: MarketStore,
    as_of: dt.date,
    horizon: int,
    shocks: Sequence[UserShock],
    *,
    propagate: bool = False,
    replay: Window | str | None = None,
    seed: int = 0,
    level: float = 0.9,
    model: Sequence[Shock] = (),
    tails: Tails = "gaussian",
    factors: FactorSet | None = None,
    regressors: Sequence[str] = ("EQUITY_US",),
    shrinkage: Shrinkage = "vasicek",
) -> EngineResult:
    """Stress a portfolio: user, replayed, named and model-derived shocks, freely combined.

    One shock counts per factor: a user's before history before a reading's. `replay` is two dates or the id of an
    episode; then holdings with a history take their own returns, unless another shock stands for the equity market,
    and σ and Σ are over its days. With `propagate` the other factors that the book loads on move to their mean given
    the shocks (`tails`: Gaussian, or the median of a vine copula), without it they are held still. `interval` holds the
    P&L with probability `level`, given the shocks. Reads nothing past `as_of`.
    Errors: InputError for bad shocks, a singular Σ₁₁, a horizon below one day or beyond the data, or a level outside
    (0, 1); LookAheadError for a replay that ends after `as_of`.
    """
    _check(horizon, level)
    book = value_portfolio(portfolio, market, as_of)
    known = factors or FactorSet.default(market)
    window = (episode(replay).start, episode(replay).end) if isinstance(replay, str) else replay
    days = days_between(*window) if window else horizon
    sens = book_sensitivities(book, known, market, as_of, regressors=regressors, shrinkage=shrinkage)
    direct, notes = direct_shocks(known, market, as_of, days, user=shocks, replay=window, model=model)
    loaded = set(sens.arrays.loaded())
    spare = [name for name in direct if name not in loaded] if loaded & set(direct) else []
    past = history([known[name] for name in known.drivers if name in direct or name in loaded], market, as_of,
                   optional=spare)  # fmt: skip
    story = tell(known, direct, past, days, on=propagate, tails=tails, seed=seed)
    moves = np.array([story.moves.get(name, 0.0) for name in sens.arrays.factors])
    realised, said = _own_returns(book, window, direct, market, as_of)
    cuts = attribute(sens.arrays, book.holdings, moves, tuple(story.moves), realised)
    daily, words = own_residuals(book, sens.regressions)
    residual = Residual(_on(sens.arrays, story.others, story.draws), daily, days, f"{story.words}; {words}")
    interval = simulate(sens.arrays, moves, residual, cuts.total, level=level, seed=seed)
    gains = daily_gains(book, sens.arrays, moves, known, market, as_of, realised=realised)
    var, var_after, shortfall, shortfall_after = gains.measures() if gains else (None, None, None, None)
    return EngineResult(
        as_of=as_of, horizon=horizon, book_value=usd(book.value), total=cuts.total,
        by_position=cuts.by_position, by_factor=cuts.by_factor, by_sector=cuts.by_sector,
        by_direction=cuts.by_direction,
        by_horizon=_by_horizon(book, sens.arrays, moves, residual, cuts.total, interval, level, seed, realised),
        interval=interval, var_975_1d=var, var_975_1d_after=var_after, es_975_1d=shortfall,
        es_975_1d_after=shortfall_after, liquidity=liquidity(sens.arrays, past),
        shocks=shock_rows(known, direct, story, past),
        mahalanobis=story.given.mahalanobis if story.given.shocked else None,
        analogue=_analogue(book, sens.arrays, direct, story.covariance, market, as_of), alignment=past.rule,
        exclusions=book.exclusions,
        notes=(*book.notes, *sens.notes, *notes, *said, *story.notes, *_still(sens.arrays, story, past),
               *_limits_of_the_model(book, sens.arrays, moves, realised), *_window_note(window, days, horizon),
               BY_HORIZON),
    )  # fmt: skip


def reverse(
    portfolio: Portfolio,
    market: MarketStore,
    as_of: dt.date,
    horizon: int,
    loss: float,
    *,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    fixed: Sequence[UserShock] = (),
    answers: int = 3,
    seed: int = 0,
    factors: FactorSet | None = None,
) -> ReverseResult:
    """The smallest shocks by Mahalanobis distance that lose `loss`: a share of the net value below 1, else USD.

    `bounds` are on a factor's move, in its own unit; `fixed` are shocks that every answer contains. Errors: see
    `finllm.tools.pnl.reverse.reverse_stress`.
    """
    _check(horizon, 0.5)
    book = value_portfolio(portfolio, market, as_of)
    known = factors or FactorSet.default(market)
    return reverse_stress(book, known, market, as_of, horizon, loss, bounds=bounds or {}, fixed=fixed,
                          answers=answers, seed=seed)  # fmt: skip


def _check(horizon: int, level: float) -> None:
    if horizon < 1:
        raise InputError(f"a horizon of {horizon} trading days", fix="give one day or more")
    if not 0 < level < 1:
        raise InputError(f"an interval of level {level:g}", fix="give a level between 0 and 1, such as 0.9")


def _on(arrays: Sensitivities, names: Sequence[str], draws: np.ndarray) -> np.ndarray:
    """Draws (n, n_names) spread over the columns of all factors, (n, K)."""
    full = np.zeros((len(draws), len(arrays.factors)))
    for at, name in enumerate(names):
        full[:, arrays.factors.index(name)] = draws[:, at]
    return full


def _own_returns(
    book: Book, window: Window | None, direct: Mapping[str, Direct], market: MarketStore, as_of: dt.date
) -> tuple[dict[str, float], list[str]]:
    """What holdings with a history gained over the replayed window, USD, unless another shock stands for equities."""
    equity = direct.get("EQUITY_US")
    if window is None or (equity is not None and equity.origin != "historical"):
        return {}, []
    found: dict[str, float] = {}
    notes: list[str] = []
    for holding in book.holdings:
        if not holding.series or holding.gamma or holding.vega:
            continue
        try:
            prices = market.window(holding.series, *window, as_of)
        except InputError as error:
            notes.append(f"{holding.id!r} is replayed by beta: {error.message}")
            continue
        found[holding.id] = holding.market_value * float(prices.iloc[-1] / prices.iloc[0] - 1)
    return found, notes


def _by_horizon(
    book: Book,
    arrays: Sensitivities,
    moves: np.ndarray,
    residual: Residual,
    total: Decimal,
    interval: Interval,
    level: float,
    seed: int,
    realised: Mapping[str, float],
) -> tuple[HorizonRow, ...]:
    """The story of the same size in σ at shorter horizons: every move, residual and own return × √(days/horizon)."""
    rows: list[HorizonRow] = []
    for days in (one for one in HORIZONS if one < residual.horizon):
        scale = math.sqrt(days / residual.horizon)
        own = {name: gain * scale for name, gain in realised.items()}
        cuts = attribute(arrays, book.holdings, moves * scale, (), own)
        part = Residual(residual.factors * scale, residual.daily, days, residual.words)
        band = simulate(arrays, moves * scale, part, cuts.total, level=level, seed=seed)
        rows.append(HorizonRow(horizon=days, total=cuts.total, lower=band.lower, upper=band.upper))
    last = HorizonRow(horizon=residual.horizon, total=total, lower=interval.lower, upper=interval.upper)
    return (*rows, last)


def _analogue(
    book: Book,
    arrays: Sensitivities,
    direct: Mapping[str, Direct],
    covariance: Covariance,
    market: MarketStore,
    as_of: dt.date,
) -> Analogue | None:
    sizes = {name: one.sigma for name, one in direct.items() if one.sigma is not None}
    found = nearest(sizes, covariance, market, as_of) if sizes else None
    if found is None:
        return None
    past = {str(shock.factor): shock.move for shock in found.replayed.shocks}
    moves = np.array([past.get(name, 0.0) for name in arrays.factors])
    realised, _ = _own_returns(book, (found.episode.start, found.episode.end), {}, market, as_of)
    cuts = attribute(arrays, book.holdings, moves, tuple(past), realised)
    return Analogue(
        id=found.episode.id, title=found.episode.title, start=found.episode.start, end=found.episode.end,
        distance=found.distance, shared=found.shared, moves=past, total=cuts.total, by_factor=cuts.by_factor,
    )  # fmt: skip


def _still(arrays: Sensitivities, story: Story, past: History) -> list[str]:
    """Factors that the book loads on and nothing moves, and why."""
    return [
        f"{name} is held still: no shock" + (f", and none propagates to it ({past.missing[name]})"
                                             if name in past.missing else "")
        for name in arrays.loaded()
        if name not in story.moves
    ]  # fmt: skip


def _limits_of_the_model(
    book: Book, arrays: Sensitivities, moves: np.ndarray, realised: Mapping[str, float]
) -> list[str]:
    gains, shifts = arrays.linear @ moves, arrays.direction @ moves
    far = [
        f"{holding.id!r}: duration and convexity are used beyond {TAYLOR_LIMIT_BP} bp of yield"
        for row, holding in enumerate(book.holdings)
        if holding.asset_class == "bond" and abs(shifts[row]) > TAYLOR_LIMIT_BP
    ]
    return far + [
        f"{holding.id!r}: beta times the shock is below -100 %; its price is floored at zero"
        for row, holding in enumerate(book.holdings)
        if arrays.floored[row] and holding.id not in realised and holding.market_value
        and gains[row] / holding.market_value < -1
    ]  # fmt: skip


def _window_note(window: Window | None, days: int, horizon: int) -> list[str]:
    if window is None or days == horizon:
        return []
    return [f"the replay spans {days} trading days, and σ, Σ and bands are over these, not over {horizon}"]


__all__ = ["EngineResult", "ReverseResult", "Tails", "reverse", "run_engine"]
