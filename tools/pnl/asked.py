"""What a scenario asks of the engine: the factors that its shocks may name, and its shocks in their own units."""

from __future__ import annotations

from finllm.tools.data.factors import UserShock
from finllm.tools.data.market import MarketStore
from finllm.tools.data.scenario import Scenario
from finllm.tools.pnl.factorset import FactorSet


def scenario_factors(scenario: Scenario, market: MarketStore) -> FactorSet:
    """The factors of a run: those of the table, the scenario's own, and the series that its shocks name.

    Errors: InputError for a factor that is no series of the market.
    """
    return FactorSet.of(market, scenario.factors, [entry.factor for entry in scenario.shocks])


def scenario_shocks(scenario: Scenario, factors: FactorSet) -> tuple[UserShock, ...]:
    """The scenario's shocks. Errors: InputError for an unknown factor, or a move in another unit than its own."""
    return tuple(factors.parse(entry.factor, entry.move) for entry in scenario.shocks)
