"""What a shock tells of the volatility after it, by hand."""

import numpy as np
import pytest

from finllm.tools.pnl.after_shock import filtered


def test_a_shock_of_four_sigma_raises_volatility_as_one_observation_of_nine() -> None:
    even = np.tile([1.0, -1.0], 100)  # σ is 1 on every day
    found = filtered(even, 0.8 * even, gain=-4.0 * 20**0.5, days=20)
    assert found == pytest.approx(0.8 * even * ((8 + 16) / 9) ** 0.5)


def test_a_small_shock_tells_of_no_calm() -> None:
    even = np.tile([1.0, -1.0], 100)
    assert filtered(even, even, gain=0.0, days=20) == pytest.approx(even)


def test_past_days_count_at_the_volatility_of_the_last() -> None:
    calm, wild = np.tile([1.0, -1.0], 200), np.tile([3.0, -3.0], 200)
    found = filtered(np.concatenate([calm, wild]), np.concatenate([calm, wild]), gain=0.0, days=1)
    assert abs(found[350:390]).mean() > 2.5  # a calm day, as it would be now
    assert found[-1] == pytest.approx(-3.0, rel=0.01)


def test_a_book_that_never_moved_stays_still() -> None:
    still = np.zeros(50)
    assert filtered(still, still, gain=-1.0, days=5).tolist() == still.tolist()
