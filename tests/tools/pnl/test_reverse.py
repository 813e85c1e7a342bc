"""Reverse stress: the closed form, bounds, gamma of both signs, the dual, and several answers that are confirmed."""

import datetime as dt
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.stress import closed_form
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from finllm.errors import InputError
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.position import Portfolio, Position
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import parse_user_shock
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.contracts import Contracts
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.joint import Joint
from finllm.tools.pnl.kernel import totals
from finllm.tools.pnl.propagate import Covariance, mahalanobis
from finllm.tools.pnl.reverse import reverse
from finllm.tools.pnl.solve import Problem, solve_convex, solve_local, solve_quadratic

AS_OF = dt.date(2022, 6, 30)
MARKET = MarketStore()
DEFAULT = load_portfolio(Path(__file__).resolve().parents[3] / "scenarios" / "portfolios" / "default.csv")


def problem(seed: int, k: int = 30, *, gamma: float = 0.0, bound: float = math.inf) -> Problem:
    random = np.random.default_rng(seed)
    mixed, units = random.normal(size=(k, 2 * k)), 10.0 ** random.integers(-2, 3, k)
    matrix = np.outer(units, units) * (mixed @ mixed.T) / k
    root = random.normal(size=(k, k)) / units[:, None]
    return Problem(
        Covariance(tuple(f"F{at}" for at in range(k)), matrix), random.normal(size=k) / units, gamma * root @ root.T,
        1.0 + random.random(), -bound * units, bound * units, {},
    )  # fmt: skip


def gain(one: Problem, moves: np.ndarray) -> float:
    return float(one.gradient @ moves + 0.5 * moves @ one.hessian @ moves)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), k=st.integers(1, 30))
def test_a_linear_book_meets_the_closed_form(seed: int, k: int) -> None:
    one = problem(seed, k)
    found, exact = solve_convex(one), closed_form(one)
    assert found is not None
    assert found.distance == pytest.approx(exact.distance, rel=1e-6)
    assert found.moves / one.scale == pytest.approx(exact.moves / one.scale, abs=1e-6 * exact.distance)
    assert found.price == pytest.approx(exact.price, rel=1e-6)
    assert -gain(one, found.moves) == pytest.approx(one.loss, rel=1e-6)
    moves = dict(zip(one.covariance.names, found.moves.tolist(), strict=True))
    assert mahalanobis(moves, one.covariance) == pytest.approx(found.distance, rel=1e-6)


def test_long_gamma_meets_its_stationary_point() -> None:
    one = problem(4, 12, gamma=1e-3)
    found = solve_convex(one)
    assert found is not None

    def moves(price) -> np.ndarray:  # Σ⁻¹m + λ(g + Hm) = 0
        inverse = np.linalg.inv(one.covariance.matrix)
        return -price * np.linalg.solve(inverse + price * one.hessian, one.gradient)

    price = brentq(lambda price: gain(one, moves(price)) + one.loss, 1e-9, 1e4, xtol=1e-14)
    assert found.moves / one.scale == pytest.approx(moves(price) / one.scale, abs=1e-6)
    assert found.price == pytest.approx(price, rel=1e-5)


def test_short_gamma_without_bounds_is_solved_by_its_one_multiplier() -> None:
    one = problem(4, 12, gamma=-1e-3)
    assert not one.convex
    found = solve_quadratic(one)
    assert found is not None
    local = solve_local(one, lambda m: (gain(one, m), one.gradient + one.hessian @ m), [found.moves, 3 * found.moves])
    assert local.answers[0].distance == pytest.approx(found.distance, rel=1e-6)
    assert -gain(one, found.moves) == pytest.approx(one.loss, rel=1e-9)
    random = np.random.default_rng(0)
    for _ in range(2000):  # no nearer shock loses as much
        other = one.root @ random.normal(size=12)
        other *= 0.999 * found.distance / np.linalg.norm(np.linalg.solve(one.root, other))
        assert -gain(one, other) < one.loss


def test_the_price_is_what_one_more_dollar_adds_to_half_the_squared_distance() -> None:
    for gamma in (0.0, 1e-3):
        one = problem(7, 10, gamma=gamma, bound=5.0)
        at, above = solve_convex(one), solve_convex(replace(one, loss=one.loss * 1.0001))
        assert at is not None
        assert above is not None
        slope = 0.5 * (above.distance**2 - at.distance**2) / (one.loss * 0.0001)
        assert at.price == pytest.approx(slope, rel=1e-3)


def test_bounds_hold_and_cost_distance_and_too_narrow_ones_are_infeasible() -> None:
    free = solve_convex(problem(3, 8))
    assert free is not None
    limit = 0.85 * float(np.abs(free.moves / problem(3, 8).scale).max())
    bounded = problem(3, 8)
    bounded = replace(bounded, lower=-limit * bounded.scale, upper=limit * bounded.scale)
    found = solve_convex(bounded)
    assert found is not None
    assert np.abs(found.moves / bounded.scale).max() <= limit * (1 + 1e-7)
    assert found.distance > free.distance
    assert solve_convex(replace(bounded, lower=0.01 * bounded.lower, upper=0.01 * bounded.upper)) is None


@pytest.mark.parametrize("loss", [50.0, 500.0, 1000.0, 3000.0, 5000.0, 100_000.0])
def test_a_loss_of_thousandths_of_a_sigma_is_found_like_a_larger_one(loss: float) -> None:
    """Of the shipped book at the end of its data, 1,000 to 5,000 USD were said to be out of reach."""
    (found,) = reverse(DEFAULT, MARKET, dt.date(2022, 12, 28), 20, loss, answers=1).answers
    assert -float(found.total) == pytest.approx(loss, rel=1e-4, abs=0.1)  # cents of 20 positions
    assert found.method == "convex"


def test_a_fixed_factor_keeps_its_move() -> None:
    one = replace(problem(11, 6), fixed={"F2": 0.0})
    found, free = solve_convex(one), solve_convex(problem(11, 6))
    assert found is not None
    assert free is not None
    assert found.moves[2] == pytest.approx(0.0, abs=1e-8 * one.scale[2])
    assert found.distance > free.distance


def test_the_default_book_has_distinct_answers_each_confirmed_by_revaluation() -> None:
    result = reverse(DEFAULT, MARKET, AS_OF, 20, 0.10)
    assert float(result.target) == pytest.approx(0.10 * float(result.book_value), abs=0.02)
    first, second, *_ = result.answers
    assert (first.method, second.method) == ("convex", "convex")
    assert first.distance < second.distance
    assert second.without == ("EQUITY_US",)
    for answer in result.answers:
        assert float(answer.loss) == pytest.approx(float(result.target), rel=1e-6)
        assert sum(answer.by_factor.values()) == -answer.loss
    assert first.explanation.startswith("EQUITY_US gives")
    assert "σ farther" in first.explanation
    assert any("RATE_US_10Y is taken as uncorrelated" in note for note in result.notes)
    dollars = reverse(DEFAULT, MARKET, AS_OF, 20, float(result.target), answers=1)
    assert dollars.answers[0].distance == pytest.approx(first.distance, rel=1e-6)


def test_bounds_and_fixed_factors_reach_the_answer() -> None:
    fixed = [parse_user_shock("OIL_WTI", "+20%")]
    bounds = {"EQUITY_US": (-0.16, 0.16)}
    answer = reverse(DEFAULT, MARKET, AS_OF, 20, 0.08, fixed=fixed, bounds=bounds, answers=1).answers[0]
    moves = {one.factor: one for one in answer.moves}
    assert (moves["OIL_WTI"].move, moves["OIL_WTI"].fixed) == (pytest.approx(0.20), True)
    assert (moves["EQUITY_US"].move, moves["EQUITY_US"].at_bound) == (pytest.approx(-0.16), True)
    assert moves["CREDIT_BAA_AAA"].move > 0


def book(*positions: Position) -> Portfolio:
    return Portfolio(name="test", uri="file:test", sha256="0" * 64, positions=positions)


def test_no_direction_loses_the_target_nearer_than_the_answer_of_an_oil_share() -> None:
    day = dt.date(2018, 6, 29)
    held = book(Position(id="RRC", asset_class="equity", quantity=1e5))
    answer = reverse(held, MARKET, day, 20, 0.25).answers[0]
    assert answer.method == "convex"
    names = [one.factor for one in answer.moves]
    assert dict(zip(names, [one.move for one in answer.moves], strict=True))["OIL_WTI"] < -0.05
    engine = Engine(value_portfolio(held, MARKET, day), MARKET, day)
    root = np.linalg.cholesky(Joint(engine.view, names, 20).covariance.sub(names))
    rays = np.random.default_rng(4).standard_normal((2000, len(names)))
    rays *= 0.999 * answer.distance / np.linalg.norm(rays, axis=1, keepdims=True)
    moves = np.zeros((len(rays), len(engine.arrays.factors)))
    moves[:, [engine.arrays.factors.index(name) for name in names]] = rays @ root.T
    assert totals(engine.arrays, moves).min() > -float(answer.loss)


def test_a_short_gamma_book_is_local_and_falls_on_both_sides() -> None:
    straddle = book(
        Position(id="SHORT", currency="USD", asset_class="index", market_value=1e6, beta=0.01, gamma=-20.0),
        Position(id="CRUDE", currency="USD", asset_class="commodity", market_value=1e6, delta=0.3),
    )
    result = reverse(straddle, MARKET, AS_OF, 20, 1.2e5)
    assert result.answers[0].method == "local"
    equity = [one.move for answer in result.answers[:2] for one in answer.moves if one.factor == "EQUITY_US"]
    assert equity[0] * equity[1] < 0
    assert "a smaller shock may exist" in result.answers[0].explanation
    for answer in result.answers:
        assert float(answer.loss) == pytest.approx(1.2e5, rel=1e-5)


def test_a_loss_behind_the_floor_of_a_price_is_confirmed_by_full_revaluation() -> None:
    levered = book(
        Position(id="LEVERED", currency="USD", asset_class="equity", market_value=1e6, beta=8.0),
        Position(id="CORE", currency="USD", asset_class="equity", market_value=1e6, beta=1.0),
    )
    result = reverse(levered, MARKET, AS_OF, 20, 1.3e6, answers=1)
    assert result.answers[0].method == "local"
    assert float(result.answers[0].loss) == pytest.approx(1.3e6, rel=1e-5)
    assert result.answers[0].moves[0].move == pytest.approx(-0.3, rel=1e-3)  # −100 % and −30 %


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"loss": 0.0}, "a loss of 0"),
        ({"loss": float("nan")}, "a loss of nan"),
        ({"loss": -5.0}, "a loss of -5"),
        ({"loss": 0.1, "answers": 0}, "0 answers"),
        ({"loss": 0.1, "horizon": 0}, "a horizon of 0"),
        ({"loss": 0.1, "bounds": {"GOLD": (-0.1, 0.1)}}, "GOLD cannot be bounded or fixed"),
        ({"loss": 0.1, "bounds": {"OIL_WTI": (0.1, 0.2)}}, "do not contain no move"),
        ({"loss": 0.1, "bounds": {"OIL_WTI": (0.2, -0.2)}}, "do not contain no move"),
        ({"loss": 5e9}, "no shock within the bounds loses"),
    ],
)
def test_a_bad_reverse_question_is_refused(change: dict, says: str) -> None:
    asked = {"horizon": 20, "loss": 0.1} | change
    with pytest.raises(InputError, match=says):
        reverse(DEFAULT, MARKET, AS_OF, asked.pop("horizon"), asked.pop("loss"), **asked)


def test_a_share_of_a_book_worth_nothing_is_refused() -> None:
    nothing = book(Position(id="A", currency="USD", asset_class="equity", market_value=0.0, beta=1.0))
    with pytest.raises(InputError, match="the book is worth nothing"):
        reverse(nothing, MARKET, AS_OF, 20, 0.1)


def test_a_position_worth_nothing_counts_for_what_it_moves() -> None:
    flat = book(Position(id="V", currency="USD", asset_class="volatility", market_value=0.0, delta=1000.0))
    assert float(reverse(flat, MARKET, AS_OF, 20, 0.1, answers=1).target) == pytest.approx(0.1 * 1000 * 25.45)
    assert reverse(flat, MARKET, AS_OF, 20, 1e4, answers=1).answers[0].moves[0].move == pytest.approx(-10.0)


def test_given_shocks_that_lose_as_much_alone_are_the_one_answer() -> None:
    given = parse_user_shock("EQUITY_US", "-30%")
    result = reverse(DEFAULT, MARKET, AS_OF, 20, 0.05, fixed=[given], answers=3)
    (answer,) = result.answers
    assert result.given_loss == answer.loss > result.target
    assert answer.method == "given"
    assert {move.factor for move in answer.moves if move.move} == {"EQUITY_US"}
    assert any("no other shock to seek" in note for note in result.notes)


def test_answers_differ_from_each_other() -> None:
    given = parse_user_shock("EQUITY_US", "-8%")
    result = reverse(DEFAULT, MARKET, AS_OF, 20, 0.10, fixed=[given], answers=5)
    assert result.given_loss is None
    seen = [tuple(round(move.sigma, 2) for move in one.moves) for one in result.answers]
    assert len(set(seen)) == len(seen) > 1


def test_no_answer_takes_volatility_or_a_spread_below_zero() -> None:
    result = reverse(DEFAULT, MARKET, AS_OF, 60, 0.10, answers=2)
    spread = float(MARKET.read("BAA_AAA", AS_OF).values.iloc[-1])
    for one in result.answers:
        moves = {move.factor: move.move for move in one.moves}
        assert moves["CREDIT_BAA_AAA"] >= -spread - 1e-6
    assert result.coverage is not None
    assert result.coverage.complete


def american_book(count: int) -> Portfolio:
    random = np.random.default_rng(3)
    rows = [
        {
            "id": f"O{at}", "currency": "USD", "asset_class": "option", "underlying": "SP500", "exercise": "American",
            "option_type": ("call", "put")[at % 2], "quantity": float(random.integers(-30, -1)), "multiplier": 100.0,
            "strike": float(np.round(3785 * random.uniform(0.8, 1.2))), "volatility": float(random.uniform(0.15, 0.5)),
            "expiry": AS_OF + dt.timedelta(int(random.integers(20, 700))), "yield": 0.02 * (at % 3),
        }
        for at in range(count)
    ]  # fmt: skip
    positions = tuple(Position.model_validate(row) for row in rows)
    return Portfolio(name="american", uri="made-up", sha256="0" * 64, positions=positions)


def test_a_book_of_american_options_is_searched_as_european_and_found_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few full revaluations, and no nearer answer where all starts are searched with American prices."""
    from finllm.tools.pnl import search as module

    whole: list[int] = []
    monkeypatch.setattr(
        module, "totals", lambda book, moves: whole.append(book.contracts.american) or totals(book, moves)
    )
    seen: list[tuple[int, int]] = []
    found = reverse(american_book(2), MARKET, AS_OF, 20, 0.2, answers=1, watch=lambda *at: seen.append(at))
    nearest = found.answers[0]
    assert float(nearest.loss) == pytest.approx(float(found.target), rel=1e-6)
    assert sum(whole) < 400
    assert seen[0] == (0, seen[0][1])
    monkeypatch.setattr(Contracts, "european", lambda self: self)
    everywhere = reverse(american_book(2), MARKET, AS_OF, 20, 0.2, answers=1).answers[0]
    assert nearest.distance == pytest.approx(everywhere.distance, rel=1e-5)
    early = reverse(
        american_book(2), MARKET, AS_OF, 20, 0.2, answers=1, fixed=[parse_user_shock("RATE_US_10Y", "+100bp")]
    )
    assert float(early.answers[0].loss) == pytest.approx(float(early.target), rel=1e-6)
