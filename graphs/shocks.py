"""A run's P&L engine, and the shocks that its state asks for: the user's, a replay's, those of the reading."""

from __future__ import annotations

from finllm.desk.desk import RunContext
from finllm.graphs.state import AfterIntake, AfterValidator
from finllm.tools.pnl.asked import scenario_factors, scenario_shocks
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.paths import steps_of, walk
from finllm.tools.pnl.readings import ReadFactor, read_factor
from finllm.tools.pnl.shocks import JudgedShock, Plan

EXTRAPOLATED = 5.0
"""A shock beyond this many sigmas is outside what its factor's history shows; the check calls it implausible."""


def engine_of(state: AfterIntake, run: RunContext) -> Engine:
    """The engine on the book that intake valued. Takes a moment: betas are estimated anew."""
    factors = scenario_factors(run.request.scenario, run.market, run.request.portfolio)
    request = run.request
    return Engine(state.book, run.market, request.as_of, factors, thresholds=request.thresholds, future=request.future,
                  age=request.scenario.age)  # fmt: skip


def plan_of(state: AfterValidator, run: RunContext, engine: Engine) -> Plan:
    """User shocks (of a path those of the step that is worst for the book), then the replayed window's, then those
    derived from the reading where nobody else spoke.

    A reading's shock needs support (or a person's acceptance of a contradicted one); the rest is withheld.
    """
    scenario = run.request.scenario
    passing, horizon, user = None, scenario.horizon, scenario_shocks(scenario, engine.view.factors)
    if scenario.path is not None:
        steps = steps_of(scenario.path, engine.view.factors)
        worst = steps[walk(engine, steps, propagate=scenario.propagate).worst]
        passing, horizon, user = worst.days, worst.horizon, worst.shocks
    return engine.plan(
        horizon,
        user=user,
        replay=(scenario.replay.start, scenario.replay.end) if scenario.replay else None,
        judged=() if scenario.replay else _judged(state, {one.factor for one in user}),
        passing=passing,
    )


def _judged(state: AfterValidator, taken: set[str]) -> list[JudgedShock]:
    reading = state.reading
    if reading is None:
        return []
    accepted = ("supported", "contradicted") if state.answer == "accept" else ("supported",)
    found: list[JudgedShock] = []
    for check in state.checks:
        call = reading.judgement.factors[check.factor]
        if check.support in accepted and check.factor not in taken and call.size != "none":
            found.append(JudgedShock(check.factor, call.direction, call.size))
    return found


def reads_of(state: AfterValidator, run: RunContext, plan: Plan) -> tuple[ReadFactor, ...]:
    """How likely each call of each factor is by the narrative agent's calibrated probabilities, the withheld ones too.

    None of a replay, of a factor that a person shocks, and of one whose shock was judged implausible and refused.
    """
    reading, scenario = state.reading, run.request.scenario
    if reading is None or scenario.replay:
        return ()
    given = {entry.factor for entry in scenario.shocks}
    found: list[ReadFactor] = []
    for factor, call in reading.judgement.factors.items():
        refused = call.size != "none" and factor not in plan.shocks and _wanted(state, factor)
        directions = reading.opinion.choices.get(f"factors.{factor}.direction")
        if factor in given or refused or not directions:
            continue
        sizes = reading.opinion.choices.get(f"factors.{factor}.size") if call.size != "none" else None
        found.append(read_factor(factor, directions, sizes))
    return tuple(found)


def _wanted(state: AfterValidator, factor: str) -> bool:
    """Whether the checks let a read shock of the factor through."""
    return any(check.factor == factor and check.support == "supported" for check in state.checks)
