"""Profit and loss: exposures, shocks, their completion, revaluation, bands, tail risk, reverse stress."""
