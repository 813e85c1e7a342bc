"""A run's P&L engine, and the shocks that its state asks for: the user's, a replay's, those of the reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import cast

from finllm.desk.desk import RunContext
from finllm.graphs.state import AfterIntake, AfterValidator
from finllm.scheduler.decoding.filling import best
from finllm.tools.data.factors import FACTOR_IDS, GIVEN, Direction, Size
from finllm.tools.data.scenario import Scenario
from finllm.tools.pnl.asked import scenario_factors, scenario_shocks
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.paths import steps_of, walk
from finllm.tools.pnl.shocks import JudgedShock, Plan

EXTRAPOLATED = 5.0
"""A shock beyond this many sigmas is outside what its factor's history shows; the check calls it implausible."""


def engine_of(state: AfterIntake, run: RunContext) -> Engine:
    """The engine on the book that intake valued: that of the run's last node, where it is the same."""
    factors = scenario_factors(run.request.scenario, run.market, run.request.portfolio)
    request = run.request
    last = run.engines[-1] if run.engines else None
    if last is not None and last.told == (request.thresholds, request.future) and last.serves(
        state.book, run.market, request.as_of, factors, age=request.scenario.age
    ):  # fmt: skip
        return last
    made = Engine(state.book, run.market, request.as_of, factors, thresholds=request.thresholds, future=request.future,
                  age=request.scenario.age, like=last)  # fmt: skip
    run.engines[:] = [made]
    return made


def plan_of(state: AfterValidator, run: RunContext, engine: Engine) -> Plan:
    """User shocks (of a path those of the step that is worst for the book), then the replayed window's, then those
    derived from the reading where nobody else spoke; and the factors that it holds still.

    A reading's shock needs support (or a person's acceptance of a contradicted one); the rest is withheld.
    """
    scenario = run.request.scenario
    passing, horizon, user = None, scenario.horizon, scenario_shocks(scenario, engine.view.factors)
    by_hand = _by_hand(scenario)
    if scenario.path is not None:
        steps = steps_of(scenario.path, engine.view.factors)
        worst = steps[walk(engine, steps, propagate=scenario.propagate).worst]
        passing, horizon, user = worst.days, worst.horizon, worst.shocks
    taken = {one.factor for one in user}
    plan = engine.plan(
        horizon,
        user=user,
        replay=(scenario.replay.start, scenario.replay.end) if scenario.replay else None,
        judged=() if scenario.replay else (*by_hand, *_judged(state, scenario, taken, engine, horizon)),
        passing=passing,
    )
    still = tuple(one.factor for one in scenario.readings if one.size == "none" and one.factor not in plan.shocks)
    return replace(plan, held=tuple(dict.fromkeys((*_held(state, plan), *still))))


def _by_hand(scenario: Scenario) -> list[JudgedShock]:
    """The shocks that people's readings stand for; a factor read as unmoved has none."""
    shocked = {one.factor for one in scenario.shocks}
    return [JudgedShock(one.factor, one.direction, one.size, by_hand=True) for one in scenario.readings
            if one.size != "none" and one.factor not in shocked]  # fmt: skip


def _judged(
    state: AfterValidator, scenario: Scenario, taken: set[str], engine: Engine, horizon: int
) -> list[JudgedShock]:
    reading = state.reading
    if reading is None:
        return []
    accepted = ("supported", "contradicted") if state.answer == "accept" else ("supported",)
    taken = taken | {one.factor for one in scenario.readings}
    found: list[JudgedShock] = []
    for check in state.checks:
        call = reading.judgement.factors[check.factor]
        said = scenario.answer_to(check.factor)
        let = check.support in accepted if said is None else said == "accept"
        if let and check.factor not in taken and call.size != "none":
            odds = reading.opinion.choices.get(f"factors.{check.factor}.size") if state.through else None
            same = odds is not None and best(odds) == call.size  # not where it is asked what another size would do
            found.append(JudgedShock(check.factor, call.direction, call.size, _sizes(odds) if same else None))
    taken = taken | {one.factor for one in scenario.disputes if one.answer == "withhold"}
    own = (one for one in _of_columns(state) if one.factor not in taken and one.factor in engine.view.factors)
    return [*found, *(one for one in own if engine.view.size(one.factor, horizon).sigma)]


def _of_columns(state: AfterIntake) -> Iterator[JudgedShock]:
    """The shocks of the user's own factors, by their columns of the channels; no words or past events speak of them."""
    if state.through is None:
        return
    names = tuple(state.through.columns)
    ways, far = state.through.heard.directions(names), state.through.heard.sizes(names)
    for name in names:
        way = best(ways[name])
        if way != "none":
            yield JudgedShock(name, cast(Direction, way), cast(Size, best(far[name])), _sizes(far[name]))


def _sizes(odds: Mapping[str, float] | None) -> dict[Size, float] | None:
    return {cast(Size, size): p for size, p in odds.items() if p > 0 and size != "none"} if odds else None


def _held(state: AfterValidator, plan: Plan) -> tuple[str, ...]:
    """The judged factors that stand still rather than be completed: no channel moves them, no words say that they do.

    Only where the shocks are what the text tells: one that a person gives and that it does not tell is an event of its
    own, whose consequences nobody read. What the words say stands still, does so in any case, however it is read.
    """
    reading = state.reading
    if reading is None or state.through is None or plan.window is not None:
        return ()
    calls = reading.judgement.factors
    told = all(
        one.factor in FACTOR_IDS and calls[one.factor].direction == ("up" if one.move > 0 else "down")
        for one in plan.shocks.values()
        if one.origin in GIVEN
    )
    return tuple(
        check.factor
        for check in state.checks
        if check.factor not in plan.shocks and (check.words == "unmoved" or (told and check.support == "silent"))
    )
