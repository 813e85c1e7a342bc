"""What each agent's judgement was worth to a finished run: how much narrower the P&L's interval is with it."""

from __future__ import annotations

from collections.abc import Mapping

from finllm.agents.narrative import NARRATIVE
from finllm.agents.roles import AGENTS
from finllm.agents.stress_tester import STRESS_TESTER
from finllm.agents.validator import VALIDATOR
from finllm.desk.desk import RunContext
from finllm.errors import FinllmError
from finllm.events import Noted
from finllm.graphs.rows import OpinionRow
from finllm.graphs.shocks import engine_of
from finllm.graphs.state import Finished
from finllm.tools.pnl.asked import scenario_shocks
from finllm.tools.pnl.interval import JudgedMove, interval_widths, narrower


def learn(state: Finished, run: RunContext) -> None:
    """Take in what a finished run showed, once. What hinders that is noted, and changes nothing else.

    Where the desk keeps no values, as in a replay, nothing is taken in.
    """
    values = run.desk.values
    if values is None:
        return
    try:
        values.count(run.run_id, state.kind, narrowings(state, run))
    except (FinllmError, ArithmeticError) as error:
        run.desk.bus.emit(Noted(level="warning", message=f"nothing was learned from this run: {error}"))


def narrowings(state: Finished, run: RunContext) -> dict[str, float]:
    """By agent that judged, what leaving its judgement out does: ln of the interval's width without over with.

    The narrative agent gives the model's shocks, the stress-tester refuses some. That market-signal's lean and the
    stress-tester's doubt widen the band counts as nothing: it would teach not to ask who doubts.
    The validator's counts as 1 where it alone sent a reading back that then changed, so that its mean is the share of
    such runs; the others' change no figure, only dissent, and count as 0.
    """
    judged = {opinion.agent for opinion in state.opinions if opinion.judgement is not None}
    found = {agent.role: 0.0 for agent in AGENTS if agent.role in judged}
    if VALIDATOR.role in found:
        found[VALIDATOR.role] = float(_turned_by_validator(state))
    offered = _moves(state, refused=True)
    applied = _moves(state, refused=False)
    if not offered or run.request.scenario.replay is not None:
        return found
    engine, scenario = engine_of(state, run), run.request.scenario
    plan = engine.plan(scenario.horizon, user=scenario_shocks(scenario, engine.view.factors))
    sets: list[Mapping[str, JudgedMove]] = [{}, offered, applied]
    none, all_of_them, kept = interval_widths(engine, plan, sets, seed=run.request.seed)
    found[NARRATIVE.role] = narrower(none, kept)
    if STRESS_TESTER.role in found:
        found[STRESS_TESTER.role] = narrower(all_of_them, kept)
    return found


def _moves(state: Finished, *, refused: bool) -> dict[str, JudgedMove]:
    """The moves that follow from the reading, with the probability of direction and size; with the `refused` too."""
    table, reading = state.table(), state.reading
    if reading is None:
        return {}
    return {
        shock.factor: JudgedMove(float(table[shock.move].value), _probability(reading.opinion, shock.factor))
        for shock in state.shocks
        if shock.origin in ("model", "table")
        and (refused or shock.refused is None)
        and shock.factor in reading.judgement.factors
    }


def _probability(reading: OpinionRow, factor: str) -> float:
    return reading.probability(f"factors.{factor}.direction") * reading.probability(f"factors.{factor}.size")


def _turned_by_validator(state: Finished) -> bool:
    readings = state.readings
    if len(readings) < 2:
        return False
    causes = {one.cause for one in readings[-1].opinion.escalations}
    return "validator" in causes and readings[0].judgement.factors != readings[-1].judgement.factors
