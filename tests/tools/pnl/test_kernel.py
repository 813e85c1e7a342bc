"""The batch kernel against the sum over positions one by one, with floors and curvature."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.tools.pnl.kernel import Sensitivities, own_terms, position_gains, revalue, totals


def a_book(
    seed: int, positions: int = 40, factors: int = 6, sectors: int = 3, felt: tuple[int, ...] = (1, 4)
) -> Sensitivities:
    random = np.random.default_rng(seed)
    value = random.normal(0, 1e5, positions)
    wide = positions, factors + len(felt)
    direction = random.normal(0.5, 1, wide) * (random.random(wide) < 0.6)
    curved = random.random(positions) < 0.4
    return Sensitivities(
        positions=tuple(f"P{at}" for at in range(positions)), factors=tuple(f"F{at}" for at in range(factors)),
        sectors=tuple(f"S{at}" for at in range(sectors)), sector=random.integers(0, sectors, positions), value=value,
        linear=value[:, None] * direction, direction=direction,
        curvature=np.where(curved, value * random.normal(0, 3, positions), 0.0),
        floored=~curved & (random.random(positions) < 0.7), felt=felt,
    )  # fmt: skip


def one_by_one(book: Sensitivities, position: int, moves: np.ndarray) -> float:
    felt = [math.copysign(math.log(1 + abs(moves[at])), moves[at]) for at in book.felt]
    wide = np.array([*moves, *felt])
    shift = float(book.direction[position] @ wide)
    gain = float(book.linear[position] @ wide) + 0.5 * book.curvature[position] * shift**2
    value = book.value[position]
    if book.floored[position]:
        return max(gain, -value) if value > 0 else min(gain, -value)
    return gain


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.floats(0.01, 1.5))
def test_every_cut_of_a_batch_is_the_sum_of_its_positions(seed: int, size: float) -> None:
    book = a_book(seed)
    moves = size * np.random.default_rng(seed + 1).standard_t(3, (50, 6))
    batch = revalue(book, moves, tail=0.1)
    gains = np.array([[one_by_one(book, p, scenario) for scenario in moves] for p in range(40)])  # (P, S)
    scale = np.abs(gains).sum() + 1.0
    assert batch.total / scale == pytest.approx(gains.sum(axis=0) / scale, abs=1e-12)
    assert (batch.by_factor.sum(axis=1) + batch.interaction) / scale == pytest.approx(batch.total / scale, abs=1e-12)
    assert position_gains(book, moves) / scale == pytest.approx(gains / scale, abs=1e-12)
    for at in range(3):
        assert batch.by_sector[:, at] / scale == pytest.approx(gains[book.sector == at].sum(axis=0) / scale, abs=1e-12)
    assert batch.by_factor[7] / scale == pytest.approx(own_terms(book, moves[7]).sum(axis=0) / scale, abs=1e-12)


def test_the_tail_holds_the_worst_scenarios_with_their_positions() -> None:
    book = a_book(5)
    moves = 0.1 * np.random.default_rng(6).standard_normal((200, 6))
    batch = revalue(book, moves, tail=0.05)
    worst = np.argsort(totals(book, moves))[:10]
    assert batch.tail.tolist() == worst.tolist()
    assert batch.by_position.shape == (10, 40)
    assert batch.by_position.sum(axis=1) == pytest.approx(batch.total[batch.tail])


def test_gradient_and_hessian_are_those_of_the_book() -> None:
    book = a_book(9, felt=())
    moves = 1e-4 * np.random.default_rng(1).standard_normal((1, 6))  # small enough that no floor holds
    quadratic = moves @ book.gradient() + 0.5 * np.einsum("sk,kl,sl->s", moves, book.hessian(), moves)
    assert totals(book, moves) == pytest.approx(quadratic)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_gradient_and_hessian_follow_what_is_felt_of_a_damped_move(seed: int) -> None:
    book = a_book(seed)
    random = np.random.default_rng(seed)
    at = random.choice([-1.0, 1.0], 6) * random.uniform(0.001, 0.002, 6)  # small enough that no floor holds
    step = 1e-5 * np.eye(6)
    up, down = totals(book, at + step), totals(book, at - step)
    scale = np.abs(book.value).sum()
    assert book.gradient(at) / scale == pytest.approx((up - down) / 2e-5 / scale, abs=1e-6)
    slopes = np.array([book.gradient(at + one) - book.gradient(at - one) for one in step]) / 2e-5
    assert book.hessian(at) / scale == pytest.approx(slopes / scale, abs=1e-5)


def test_the_share_of_a_damped_move_is_its_factors_and_crude_itself_moves_in_full() -> None:
    book = Sensitivities(
        positions=("XOM", "crude"), factors=("EQUITY_US", "OIL_WTI"), sectors=("energy",),
        sector=np.zeros(2, dtype=int), value=np.array([100.0, 100.0]),
        linear=np.array([[100.0, 0, 20.0], [0, 100.0, 0]]),
        direction=np.array([[1.0, 0, 0.2], [0, 1.0, 0]]), curvature=np.zeros(2), floored=np.array([True, False]),
        felt=(1,),
    )  # fmt: skip
    fallen, risen = np.array([[-0.1, -0.54]]), np.array([[0.0, 0.54]])
    assert position_gains(book, fallen)[:, 0] == pytest.approx([-10 - 20 * math.log(1.54), -54])
    assert position_gains(book, risen)[:, 0] == pytest.approx([20 * math.log(1.54), 54])
    batch = revalue(book, fallen)
    assert batch.by_factor[0] == pytest.approx([-10, -54 - 20 * math.log(1.54)])
    assert batch.interaction == pytest.approx([0], abs=1e-9)
    assert book.loaded() == ["EQUITY_US", "OIL_WTI"]
