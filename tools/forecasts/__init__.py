"""Forecasts and market signals: ensembles, volatility, regimes, the stress index, and forecasts given a narrative."""
