"""Deterministic instruments: market data, portfolio, shocks, P&L, forecasts, signals, evidence; no model."""
