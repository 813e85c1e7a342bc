"""The batch kernel against the sum over positions one by one, with floors and curvature."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.tools.pnl.kernel import Sensitivities, own_terms, position_gains, revalue, totals


def a_book(seed: int, positions: int = 40, factors: int = 6, sectors: int = 3) -> Sensitivities:
    random = np.random.default_rng(seed)
    value = random.normal(0, 1e5, positions)
    direction = random.normal(0.5, 1, (positions, factors)) * (random.random((positions, factors)) < 0.6)
    curved = random.random(positions) < 0.4
    return Sensitivities(
        positions=tuple(f"P{at}" for at in range(positions)), factors=tuple(f"F{at}" for at in range(factors)),
        sectors=tuple(f"S{at}" for at in range(sectors)), sector=random.integers(0, sectors, positions), value=value,
        linear=value[:, None] * direction, direction=direction,
        curvature=np.where(curved, value * random.normal(0, 3, positions), 0.0),
        floored=~curved & (random.random(positions) < 0.7),
    )  # fmt: skip


def one_by_one(book: Sensitivities, position: int, moves: np.ndarray) -> float:
    shift = float(book.direction[position] @ moves)
    gain = float(book.linear[position] @ moves) + 0.5 * book.curvature[position] * shift**2
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
    book = a_book(9)
    moves = 1e-4 * np.random.default_rng(1).standard_normal((1, 6))  # small enough that no floor holds
    quadratic = moves @ book.gradient() + 0.5 * np.einsum("sk,kl,sl->s", moves, book.hessian(), moves)
    assert totals(book, moves) == pytest.approx(quadratic)
