"""Reverse stress: the most plausible shocks that lose a given amount, several of them, and why they do."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from finllm.errors import InputError
from finllm.tools.data.books.book import Book
from finllm.tools.data.books.position import Portfolio
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import UserShock
from finllm.tools.data.fx import DOLLAR
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.ageing import Aged
from finllm.tools.pnl.attribution import Attribution, attribute
from finllm.tools.pnl.coverage import Thresholds
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.joint import Joint
from finllm.tools.pnl.outcome import INTERACTION, Method, ReverseAnswer, ReverseMove, ReverseResult, usd
from finllm.tools.pnl.propagate import Covariance, mahalanobis
from finllm.tools.pnl.risk import daily_gains
from finllm.tools.pnl.search import solve, whole
from finllm.tools.pnl.shocks import BOUNDS, user_shock
from finllm.tools.pnl.sizes import FactorView
from finllm.tools.pnl.solve import (
    Problem,
    Solution,
    Watch,
)

SAME = 0.01
"""σ of every factor within which two answers are one."""


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
    thresholds: Thresholds | None = None,
    future: bool = False,
    currency: str = DOLLAR,
    watch: Watch | None = None,
    age: bool = False,
    at_hand: Engine | None = None,
) -> ReverseResult:
    """Value a portfolio in `currency` and find what loses `loss` of it; `age`: while time passes, up to the horizon.

    `at_hand`: an engine on the same market and day, of which what holds here too is taken. Errors: those of
    `value_portfolio` and `reverse_stress`.
    """
    book = value_portfolio(portfolio, market, as_of, currency)
    engine = at_hand
    if engine is None or not engine.serves(book, market, as_of, factors, age=age):
        engine = Engine(book, market, as_of, factors, thresholds=thresholds, future=future, age=age, like=at_hand)
    return reverse_stress(
        engine, horizon, loss, bounds=bounds or {}, fixed=fixed, answers=answers, seed=seed, watch=watch
    )


def reverse_stress(
    engine: Engine,
    horizon: int,
    loss: float,
    *,
    bounds: Mapping[str, tuple[float, float]],
    fixed: Sequence[UserShock] = (),
    answers: int = 3,
    seed: int = 0,
    watch: Watch | None = None,
) -> ReverseResult:
    """The smallest shocks by Mahalanobis distance over `horizon` that lose `loss`: a share of the gross value below 1,
    else an amount of the book's currency.

    `bounds` are on a factor's move, in its own unit; `fixed` are shocks that every answer contains. Σ is that of the
    factors the book loads on, with a factor without history uncorrelated at the σ of the reviewed table. A linear or
    long-gamma book is a convex programme, whose first answer is the smallest there is; otherwise, or where a floor
    takes part of the loss back, answers are local. All are confirmed by full revaluation. Further answers are other
    local ones, or hold the largest driver of those before them still. Where `fixed` alone lose as much, they are the
    one answer. Where the engine ages, what time alone gains counts. Errors: InputError for a horizon below one day, a
    loss that is not positive or that time alone brings, bounds that exclude or name nothing, or a loss that no shock
    within the bounds reaches.
    """
    book, view, factors = engine.book, engine.view, engine.view.factors
    if horizon < 1:
        raise InputError(f"a horizon of {horizon} trading days", fix="give one day or more")
    target, after = _target(book, loss), engine.after(horizon)
    if target + after.total <= 0:
        raise InputError(f"time alone loses {-after.total:,.0f} {book.currency} by {after.until}, no less than the "
                         f"{target:,.0f} asked for", fix="ask for a larger loss, or leave out --age")  # fmt: skip
    if answers < 1:
        raise InputError(f"{answers} answers", fix="ask for one or more")
    insisted = {one.factor: user_shock(one, view, horizon).move for one in fixed}
    problem, alignment, notes = _posed(engine, after, horizon, target + after.total, bounds, insisted)
    given = _given(problem, after, book, insisted)
    if given is not None:
        found = [_answer(*given, problem, target, factors, (), tuple(insisted))]
        notes.append(f"the given shocks alone lose {-float(given[2].total):,.0f} {book.currency}, no less than the "
                     f"{target:,.0f} {book.currency} asked for: there is no other shock to seek")  # fmt: skip
    else:
        found = _sought(problem, engine, after, target, insisted, answers, seed, notes, watch)
    arrays = engine.arrays
    gains = daily_gains(book, arrays, np.zeros(len(arrays.factors)), factors, view.market, view.as_of)
    var, _, shortfall, _ = gains.measures() if gains else (None, None, None, None)
    return ReverseResult(
        as_of=view.as_of, currency=book.currency, horizon=horizon, book_value=usd(book.value),
        gross_value=usd(book.gross), target=usd(target), answers=tuple(found), alignment=alignment,
        notes=(*book.notes, *after.notes, *engine.idle.values(), *notes), aged=after.until,
        given_loss=-given[2].total if given else None,
        var_975_1d=var, es_975_1d=shortfall, exclusions=book.exclusions, coverage=engine.coverage,
    )  # fmt: skip


def _given(
    problem: Problem, after: Aged, book: Book, insisted: Mapping[str, float]
) -> tuple[Solution, Method, Attribution] | None:
    """The given shocks with every other factor held still, where they lose the target alone; else None."""
    if not insisted:
        return None
    covariance = problem.covariance
    moves = np.array([insisted.get(name, 0.0) for name in covariance.names])
    cuts = _cuts(after, book, covariance, moves, tuple(insisted))
    if -float(cuts.total) < problem.loss - after.total:
        return None
    return Solution(moves, mahalanobis(insisted, covariance), None), "given", cuts


def _cuts(after: Aged, book: Book, covariance: Covariance, moves: np.ndarray, moved: Sequence[str]) -> Attribution:
    arrays, time = after.arrays, None if after.until is None else after.time
    return attribute(arrays, book.holdings, whole(arrays, covariance, moves), moved, time=time)


def _sought(
    problem: Problem, engine: Engine, after: Aged, target: float, insisted: Mapping[str, float], answers: int,
    seed: int, notes: list[str], watch: Watch | None,
) -> list[ReverseAnswer]:  # fmt: skip
    """Up to `answers` distinct ones; adds to `notes` where there are fewer. Errors: InputError where there is none."""
    arrays, book, view, covariance = after.arrays, engine.book, engine.view, problem.covariance
    found: list[ReverseAnswer] = []
    seen: list[np.ndarray] = []
    still: list[str] = []
    while len(found) < answers:
        one = replace(problem, fixed={**insisted, **dict.fromkeys(still, 0.0)})
        solved, method = solve(one, arrays, view, seed, answers - len(found), watch)
        if not solved:
            break
        for solution in solved:
            if any(np.allclose(solution.moves / problem.scale, other, atol=SAME) for other in seen):
                continue
            seen.append(solution.moves / problem.scale)
            cuts = _cuts(after, book, covariance, solution.moves, covariance.names)
            found.append(_answer(solution, method, cuts, one, target, view.factors, tuple(still), tuple(insisted)))
        cuts = _cuts(after, book, covariance, solved[0].moves, covariance.names)
        drivers = {
            name: gain for name, gain in cuts.by_factor.items() if name in covariance.names and name not in insisted
        }
        still.append(min(drivers, key=lambda name: drivers[name]))
        if len(still) + len(insisted) >= len(covariance.names):
            break
    if not found:
        raise InputError(f"no shock within the bounds loses {target:,.0f} {book.currency}",
                         fix="widen the bounds, free a fixed factor, or ask for a smaller loss")  # fmt: skip
    if len(found) < answers:
        notes.append(f"{len(found)} of {answers} answers: with {', '.join(still)} held still nothing else loses as "
                     "much")  # fmt: skip
    return found


def _posed(
    engine: Engine,
    after: Aged,
    horizon: int,
    target: float,
    bounds: Mapping[str, tuple[float, float]],
    insisted: Mapping[str, float],
) -> tuple[Problem, str, list[str]]:
    """The problem to solve, how its factors' histories were aligned, and notes on the factors without one."""
    view, arrays, factors = engine.view, after.arrays, engine.view.factors
    names = [name for name in factors.drivers if name in arrays.loaded() or name in insisted]
    joint = Joint(view, names, horizon)
    covariance, notes = _whole(joint.covariance, names, view, horizon)
    if unknown := [name for name in {**bounds, **insisted} if name not in covariance.names]:
        raise InputError(f"{', '.join(unknown)} cannot be bounded or fixed: no load or no σ",
                         fix=f"use one of {', '.join(covariance.names)}")  # fmt: skip
    at = [arrays.factors.index(name) for name in covariance.names]
    problem = Problem(covariance, arrays.gradient()[at], arrays.hessian()[np.ix_(at, at)], target,
                      *_limits(view, covariance, bounds, insisted), insisted)  # fmt: skip
    return problem, joint.rule, notes


def _target(book: Book, loss: float) -> float:
    """The loss in the book's currency. Errors: InputError for no positive, finite one, or a share of nothing."""
    if not math.isfinite(loss) or loss <= 0:
        raise InputError(f"a loss of {loss:g}", fix="give a share such as 0.1, or an amount, above zero")
    if loss >= 1:
        return loss
    if not book.gross:
        raise InputError("the book is worth nothing, so a share of it is no loss",
                         fix=f"give the loss in {book.currency}")  # fmt: skip
    return loss * book.gross


def _whole(known: Covariance, names: Sequence[str], view: FactorView, horizon: int) -> tuple[Covariance, list[str]]:
    """The covariance with the factors that have no shared history, uncorrelated at their own σ; and notes on these."""
    sigma: dict[str, float] = {}
    notes: list[str] = []
    for name in (one for one in names if one not in known.names):
        size = view.size(name, horizon).sigma
        if size is None:
            notes.append(f"{name} is held still: it has neither a history nor a reviewed size")
            continue
        sigma[name] = size.value
        notes.append(f"{name} is taken as uncorrelated with the others: {size.window}")
    n = len(known.names)
    matrix = np.zeros((n + len(sigma), n + len(sigma)))
    matrix[:n, :n] = known.matrix
    matrix[range(n, len(matrix)), range(n, len(matrix))] = [value**2 for value in sigma.values()]
    return Covariance((*known.names, *sigma), matrix), notes


def _limits(
    view: FactorView, covariance: Covariance, bounds: Mapping[str, tuple[float, float]], insisted: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (K,) and (K,): the user's, within what a move of that unit can be."""
    lower, upper = np.zeros(len(covariance.names)), np.zeros(len(covariance.names))
    for at, name in enumerate(covariance.names):
        least, most = BOUNDS[view.factors[name].unit]
        least = max(least, view.least_move(name)[0])
        low, high = bounds.get(name, (least, most))
        if not low <= high or not low <= 0 <= high:
            raise InputError(f"the bounds of {name!r}, {low:g} to {high:g}, do not contain no move at all",
                             fix="give a lower end at or below zero and an upper end at or above it")  # fmt: skip
        if name in insisted and not low <= insisted[name] <= high:
            raise InputError(
                f"{name!r} is fixed at {insisted[name]:g}, outside its bounds", fix="correct one of the two"
            )
        lower[at], upper[at] = max(low, least), min(high, most)
    return lower, upper


def _answer(
    solution: Solution,
    method: Method,
    cuts: Attribution,
    problem: Problem,
    target: float,
    factors: FactorSet,
    still: tuple[str, ...],
    insisted: tuple[str, ...],
) -> ReverseAnswer:
    moves: list[ReverseMove] = []
    for at, name in enumerate(problem.covariance.names):
        move, sigma = float(solution.moves[at]), problem.covariance.sigma(name)
        edge = min(abs(move - problem.lower[at]), abs(move - problem.upper[at])) <= 1e-6 * sigma
        moves.append(ReverseMove(
            factor=name, move=move + 0.0, unit=factors[name].unit, sigma=move / sigma + 0.0,
            at_bound=bool(edge) and name not in problem.fixed, fixed=name in insisted,
        ))  # fmt: skip
    shares = {name: -float(gain) / target for name, gain in cuts.by_factor.items() if gain}
    ranked = sorted(((name, one) for name, one in shares.items() if name != INTERACTION), key=lambda pair: -pair[1])
    words = ", ".join(f"{name} gives {share:.0%} of the loss" for name, share in ranked if abs(share) >= 0.01)
    if still:
        words += f"; with {', '.join(still)} held still"
    if solution.price is not None:
        farther = solution.price * target * 0.01 / max(solution.distance, 1e-300)
        words += f"; one per cent more loss is {farther:.3f} σ farther"
    if method == "given":
        words += "; nothing but the given shocks moves"
    if method == "local":
        words += "; a local answer, confirmed by full revaluation, and a smaller shock may exist"
    return ReverseAnswer(
        moves=tuple(moves), distance=solution.distance, loss=-cuts.total, by_factor=cuts.by_factor,
        by_sector=cuts.by_sector, by_position=cuts.by_position, method=method,
        price=solution.price, without=still, explanation=words,
    )  # fmt: skip
