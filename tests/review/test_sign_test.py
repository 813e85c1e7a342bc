"""The sign test: exact counts, the Clopper–Pearson interval at known values, and what counts as shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finllm.review.sign_test import sign_test


def test_the_interval_is_clopper_and_pearson_s() -> None:
    found = sign_test([(1.0, 0.0)] * 8 + [(0.0, 1.0)] * 2 + [(1.0, 1.0)] * 5)
    assert (found.more, found.less, found.ties, found.pairs) == (8, 2, 5, 15)
    assert found.share == 0.8
    assert (found.low, found.high) == pytest.approx((0.44390, 0.97479), abs=1e-5)
    assert found.p == pytest.approx(2 * 56 / 1024)
    assert not found.shown


@pytest.mark.parametrize(("pairs", "shown"), [(5, False), (6, True)])
def test_six_of_six_pairs_show_what_five_of_five_do_not(pairs: int, shown: bool) -> None:
    assert sign_test([(2.0, 1.0)] * pairs).shown is shown


def test_pairs_that_all_tie_tell_nothing() -> None:
    found = sign_test([(0.5, 0.5)] * 9)
    assert (found.share, found.low, found.high, found.shown) == (None, 0.0, 1.0, False)


def test_a_pair_without_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        sign_test([(float("nan"), 1.0)])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=40))
def test_swapping_the_pairs_mirrors_the_test(pairs: list[tuple[float, float]]) -> None:
    one, other = sign_test(pairs), sign_test([(b, a) for a, b in pairs])
    assert (one.more, one.less, one.ties) == (other.less, other.more, other.ties)
    if one.share is not None and other.share is not None:
        assert one.share + other.share == pytest.approx(1)
        assert one.low == pytest.approx(1 - other.high, abs=1e-9)
        assert one.low <= one.share <= one.high
