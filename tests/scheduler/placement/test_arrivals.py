"""Bursts: announced, seen and forecast; and how long answers are thought to be."""

from __future__ import annotations

import numpy as np
import pytest

from finllm.scheduler.placement.arrivals import Arrivals, Calendar, forecast_arrivals
from finllm.scheduler.placement.predict import Length, Lengths


def test_an_announced_open_parks_background_work_before_and_after_it() -> None:
    arrivals = Arrivals(Calendar((1000.0,), before=100, after=200), forecasts=False)
    assert [arrivals.bursting(now) for now in (899, 900, 1199, 1200)] == [False, True, True, False]
    assert [arrivals.coming(now) for now in (899, 900)] == [False, True]


def test_a_surprise_is_seen_once_far_more_arrive_than_usual() -> None:
    arrivals = Arrivals(forecasts=False)
    for minute in range(20):
        arrivals.arrived(minute * 60.0)
    assert not arrivals.bursting(20 * 60.0)
    for _ in range(6):
        arrivals.arrived(20 * 60.0)
    assert arrivals.bursting(20 * 60.0)


def test_a_rising_count_is_forecast_to_go_on() -> None:
    steady = np.full(120, 5.0) + np.random.default_rng(0).normal(0, 0.5, 120)
    assert forecast_arrivals(steady) == pytest.approx(5.0, abs=1.0)
    assert forecast_arrivals(np.concatenate([steady, np.arange(5, 65, 2.0)])) > 50


def test_lengths_are_learned_by_agent() -> None:
    lengths = Lengths()
    assert lengths.predict("reader", Length(10, 20)) == Length(10, 20)
    assert lengths.predict("other") == Lengths.FIRST
    for tokens in range(101):
        lengths.observe("reader", tokens)
    learned = lengths.predict("reader")
    assert learned.median == pytest.approx(50, abs=5)
    assert learned.most == pytest.approx(90, abs=5)
    with pytest.raises(ValueError, match="-1"):
        lengths.observe("reader", -1)
