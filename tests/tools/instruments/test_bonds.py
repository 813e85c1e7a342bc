"""Bond prices against QuantLib used directly, and the formula by duration and convexity."""

import datetime as dt
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finllm.tools.instruments.bonds import DAY_COUNTS, FREQUENCIES, day_count_of, flows, log_price_change
from finllm.tools.instruments.options import quantlib

ql: Any = quantlib()
COUNTS = {
    "30/360": ql.Thirty360(ql.Thirty360.BondBasis), "30E/360": ql.Thirty360(ql.Thirty360.EurobondBasis),
    "ACT/ACT": ql.ActualActual(ql.ActualActual.ISMA), "ACT/365": ql.Actual365Fixed(), "ACT/360": ql.Actual360(),
}  # fmt: skip


def directly(
    as_of: dt.date, maturity: dt.date, coupon: float, often: int, count: str, rate: float
) -> tuple[float, float]:
    """Dirty price at a yield, and accrued interest, of QuantLib's fixed-rate bond."""
    today, end = (ql.Date(one.day, one.month, one.year) for one in (as_of, maturity))
    with ql.SavedSettings():
        ql.Settings.instance().evaluationDate = today
        schedule = ql.Schedule(
            today - ql.Period(2, ql.Years), end, ql.Period(12 // often, ql.Months), ql.NullCalendar(), ql.Unadjusted,
            ql.Unadjusted, ql.DateGeneration.Backward, False,
        )  # fmt: skip
        bond = ql.FixedRateBond(0, 100.0, schedule, [coupon], COUNTS[count])
        dirty = bond.dirtyPrice(rate, COUNTS[count], ql.Compounded, often, today)
        return float(dirty), float(bond.accruedAmount(today))


@settings(max_examples=400, deadline=None)
@given(
    as_of=st.dates(dt.date(2000, 1, 1), dt.date(2030, 1, 1)), days=st.integers(1, 14_000),
    coupon=st.floats(0, 0.12), often=st.sampled_from(FREQUENCIES), count=st.sampled_from(sorted(DAY_COUNTS)),
    rate=st.floats(-0.02, 0.2),
)  # fmt: skip
def test_a_bond_is_priced_as_quantlib_does(
    as_of: dt.date, days: int, coupon: float, often: int, count: str, rate: float
) -> None:
    maturity = as_of + dt.timedelta(days)
    found = flows(as_of, maturity, coupon, often, count)
    dirty, accrued = directly(as_of, maturity, coupon, often, count, rate)
    assert found.dirty(rate) == pytest.approx(dirty, rel=1e-9)
    assert found.accrued == pytest.approx(accrued, abs=1e-9)
    solved = found.yield_at(dirty)
    if float(found.amounts @ found.times) == 0:  # by its day count it is paid today, whatever the yield
        assert solved is None
        return
    assert solved is not None
    assert found.dirty(solved) == pytest.approx(dirty, rel=1e-9)


@pytest.mark.parametrize(
    ("coupon", "points", "percent"), [(0.0, 300, -58.4), (0.0, 500, -76.6), (0.04, 300, -37.4), (0.04, 500, -51.6)]
)
def test_thirty_years_at_four_per_cent(coupon: float, points: int, percent: float) -> None:
    bond = flows(dt.date(2022, 6, 30), dt.date(2052, 6, 30), coupon)
    change = bond.dirty(0.04 + points / 1e4) / bond.dirty(0.04) - 1
    assert round(100 * change, 1) == percent


@settings(max_examples=300, deadline=None)
@given(duration=st.floats(0, 100), convexity=st.floats(-100, 5000), shift=st.floats(-1, 1), more=st.floats(0, 0.2))
def test_by_duration_a_price_stays_positive_and_never_rises_with_yields(
    duration: float, convexity: float, shift: float, more: float
) -> None:
    low, high = log_price_change(np.array(duration), np.array(convexity), np.array([shift, shift + more]))
    assert math.exp(low) > 0
    assert high <= low + 1e-9


def test_by_duration_a_small_move_is_the_textbooks() -> None:
    change = math.expm1(float(log_price_change(np.array(6.2), np.array(47.0), np.array(0.001))))
    assert change == pytest.approx(-6.2 * 0.001 + 0.5 * 47 * 0.001**2, abs=1e-7)


def test_day_counts_are_read_as_people_write_them() -> None:
    assert [day_count_of(text) for text in ("act/act", "Actual/365", "30/360", "30e/360", "ACT/ACT (ICMA)")] == [
        "ACT/ACT", "ACT/365", "30/360", "30E/360", "ACT/ACT",
    ]  # fmt: skip
    assert day_count_of("bus/252") is None
    assert flows(dt.date(2022, 6, 30), dt.date(2023, 6, 30), 0.05).yield_at(0.0) is None
