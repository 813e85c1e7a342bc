"""Bands told to be wider about the same P&L, and completion by the covariance of stress."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest

from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.books.valuation import value_portfolio
from finllm.tools.data.factors import parse_user_shock
from finllm.tools.data.market import MarketStore
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.outcome import EngineResult
from finllm.tools.pnl.widening import widened

BOOK = Path(__file__).resolve().parents[3] / "scenarios" / "portfolios" / "default.csv"


@pytest.fixture(scope="module")
def engine() -> Engine:
    market, day = MarketStore(), dt.date(2022, 6, 30)
    return Engine(value_portfolio(load_portfolio(BOOK), market, day), market, day)


@pytest.fixture(scope="module")
def calm(engine: Engine) -> EngineResult:
    return engine.stress(engine.plan(20, user=[parse_user_shock("EQUITY_US", "-3%")]))


def test_a_wider_band_leaves_the_gain_where_it_is(calm: EngineResult) -> None:
    wide = widened(calm, 1.5, "said to be stretched")
    assert wide.total == calm.total
    assert calm.interval is not None
    assert wide.interval is not None
    for end in ("lower", "upper"):
        apart = getattr(calm.interval, end) - calm.total
        assert getattr(wide.interval, end) - calm.total == pytest.approx(apart * Decimal("1.5"), abs=Decimal("0.01"))
    assert wide.interval.level == calm.interval.level
    assert wide.interval.method.endswith("; 1.50 times as wide: said to be stretched")
    assert all(row.total == was.total for row, was in zip(wide.by_horizon, calm.by_horizon, strict=True))
    assert widened(calm, 1.0, "nobody") is calm


def test_a_small_shock_is_completed_by_calm_days_or_by_those_of_stress(engine: Engine, calm: EngineResult) -> None:
    plan = engine.plan(20, user=[parse_user_shock("EQUITY_US", "-3%")])
    stressed = engine.stress(plan, stressed=True)
    assert stressed.total != calm.total
    assert engine.revalue(plan, stressed=True).total == stressed.total
    large = engine.plan(20, user=[parse_user_shock("EQUITY_US", "-30%")])
    assert engine.revalue(large, stressed=True).total == engine.revalue(large).total
