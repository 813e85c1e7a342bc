"""Deterministic instruments: market data, portfolio, shocks, P&L, forecasts, signals, evidence; no model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finllm.tools.data.factors import FACTOR_IDS, FACTORS, Factor, FactorId, Shock, UserShock, parse_user_shock
    from finllm.tools.data.market import MarketStore, Observed, Series
    from finllm.tools.data.portfolio import Book, Limits, Portfolio, load_limits, load_portfolio, value_portfolio
    from finllm.tools.data.scenario import Scenario, load_scenario
    from finllm.tools.evidence import Evidence, EvidenceTable, Source
    from finllm.tools.forecasts.conditioned import Conditioned, condition, narrowing
    from finllm.tools.forecasts.forecast import Forecast
    from finllm.tools.forecasts.signals import MarketSignals, market_signals
    from finllm.tools.pnl.book_pnl import Breach, Interval, StressResult, ValueAtRisk, breaches, stress
    from finllm.tools.pnl.engine import EngineResult, ReverseResult, reverse, run_engine
    from finllm.tools.pnl.exposure import Beta, Exposure, estimate_betas, exposures
    from finllm.tools.pnl.shocks import Replayed, model_shock, replay_shocks, resolve_user

_OWNER = {
    "conditioned": ("Conditioned", "condition", "narrowing"),
    "engine": ("EngineResult", "ReverseResult", "reverse", "run_engine"),
    "evidence": ("Evidence", "EvidenceTable", "Source"),
    "exposure": ("Beta", "Exposure", "estimate_betas", "exposures"),
    "factors": ("FACTORS", "FACTOR_IDS", "Factor", "FactorId", "Shock", "UserShock", "parse_user_shock"),
    "forecast": ("Forecast",),
    "market": ("MarketStore", "Observed", "Series"),
    "pnl": ("Breach", "Interval", "StressResult", "ValueAtRisk", "breaches", "stress"),
    "portfolio": ("Book", "Limits", "Portfolio", "load_limits", "load_portfolio", "value_portfolio"),
    "scenario": ("Scenario", "load_scenario"),
    "shocks": ("Replayed", "model_shock", "replay_shocks", "resolve_user"),
    "signals": ("MarketSignals", "market_signals"),
}

__all__ = [
    "FACTORS",
    "FACTOR_IDS",
    "Beta",
    "Book",
    "Breach",
    "Conditioned",
    "EngineResult",
    "Evidence",
    "EvidenceTable",
    "Exposure",
    "Factor",
    "FactorId",
    "Forecast",
    "Interval",
    "Limits",
    "MarketSignals",
    "MarketStore",
    "Observed",
    "Portfolio",
    "Replayed",
    "ReverseResult",
    "Scenario",
    "Series",
    "Shock",
    "Source",
    "StressResult",
    "UserShock",
    "ValueAtRisk",
    "breaches",
    "condition",
    "estimate_betas",
    "exposures",
    "load_limits",
    "load_portfolio",
    "load_scenario",
    "market_signals",
    "model_shock",
    "narrowing",
    "parse_user_shock",
    "replay_shocks",
    "resolve_user",
    "reverse",
    "run_engine",
    "stress",
    "value_portfolio",
]


def __getattr__(name: str) -> object:
    """Import the owner on first use, so that a command that needs no prices does not wait for pandas."""
    for module, names in _OWNER.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
