"""What a scenario asks of the engine: the factors that its shocks may name, and its shocks in their own units."""

from __future__ import annotations

from finllm.errors import InputError
from finllm.tools.data.books.position import Portfolio
from finllm.tools.data.factors import UserShock
from finllm.tools.data.market import MarketStore
from finllm.tools.data.scenario import Scenario
from finllm.tools.pnl.factorset import FactorSet


def scenario_factors(scenario: Scenario, market: MarketStore, portfolio: Portfolio) -> FactorSet:
    """The factors of a run: those of the table, the scenario's own, and the series and sectors that its shocks or
    its columns of the channels name.

    Errors: InputError for a factor that is neither a series of the market nor a sector of the portfolio.
    """
    shocked = [*(entry.factor for entry in (*scenario.shocks, *scenario.readings)),
               *(scenario.path.factors if scenario.path else ()), *scenario.channels]  # fmt: skip
    return FactorSet.of(market, scenario.factors, shocked, sectors_of(portfolio), scenario.as_of)


def sectors_of(portfolio: Portfolio) -> dict[str, str]:
    """The sectors of the positions that name one, by id."""
    return {one.id: one.sector for one in portfolio.positions if one.sector}


def scenario_shocks(scenario: Scenario, factors: FactorSet) -> tuple[UserShock, ...]:
    """The scenario's shocks. Errors: InputError naming the field of an unknown factor, or of a move in another unit."""
    found: list[UserShock] = []
    for at, entry in enumerate(scenario.shocks):
        try:
            shock = factors.parse(entry.factor, entry.move)
            found.append(shock.model_copy(update={"origin": "judgement"}) if entry.judged else shock)
        except InputError as error:
            field = "move" if entry.factor in factors else "factor"
            raise InputError(f"field 'shocks.{at}.{field}': {error.message}", fix=error.fix) from error
    return tuple(found)
