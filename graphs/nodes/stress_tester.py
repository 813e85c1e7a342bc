"""The stress-tester's node: shocks from user, history and reading; the agent's choice; the book's P&L as evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from finllm.agents.agent import Offered, Opinion
from finllm.agents.escalation import judge_escalating
from finllm.agents.stress_tester import STRESS_TESTER, StressChoice
from finllm.desk.desk import RunContext
from finllm.errors import InputError
from finllm.graphs.closest import Near, PastEvents, event_of, window_of
from finllm.graphs.consequences import contradicting, refused, stress
from finllm.graphs.path_rows import with_path
from finllm.graphs.position_rows import Basis, basis_of
from finllm.graphs.rows import ClosestEvent, OpinionRow, StressRow, WantedShock
from finllm.graphs.shocks import EXTRAPOLATED, engine_of, plan_of
from finllm.graphs.state import AfterValidator, Update
from finllm.memory.precedents import PRECEDENTS_PATH
from finllm.plain_text import trading_days
from finllm.tools.data.factors import Shock
from finllm.tools.data.scenario import Scenario
from finllm.tools.evidence import EvidenceTable, Source, Unit, money, sha256_of, show
from finllm.tools.pnl.coverage import down, up
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.outcome import AppliedShock, EngineResult
from finllm.tools.pnl.shocks import Plan


@dataclass(frozen=True)
class _Past:
    """A past event that is near, with its evidence id."""

    near: Near
    evidence: str


async def stress_tester(state: AfterValidator, run: RunContext) -> Update:
    """The arithmetic is done on a thread: meanwhile the loop serves the other runs of a batch."""
    table = state.table()

    def planned() -> tuple[Engine, Plan, list[Near]]:
        engine = engine_of(state, run)
        plan = plan_of(state, run, engine)
        return engine, plan, _near(state, plan, run, engine)

    engine, plan, near = await asyncio.to_thread(planned)
    rows = [_shock_row(shock, engine, table, run.request.scenario) for shock in plan.shocks.values()]
    past = _past(near, run, table)
    opinion = await _choose(state, run, rows, past, table)
    return await asyncio.to_thread(_stressed, state, run, engine, plan, rows, past, opinion, table)


def _stressed(
    state: AfterValidator,
    run: RunContext,
    engine: Engine,
    plan: Plan,
    wanted: list[WantedShock],
    past: list[_Past],
    opinion: Opinion[StressChoice],
    table: EvidenceTable,
) -> Update:
    against = contradicting(plan, engine)
    rows = [shock.model_copy(update={"refused": refused(shock, opinion.judgement, against)}) for shock in wanted]
    applied = plan.without({shock.factor for shock in rows if shock.refused})
    scenario = run.request.scenario
    result, moved = stress(state, engine, applied, opinion, table, propagates=scenario.propagate,
                           seed=run.request.seed, level=scenario.level)  # fmt: skip
    rows = [_beside_others(row, result, engine, table) for row in rows]
    rows += [_shock_row(shock, engine, table, run.request.scenario) for shock in result.shocks
             if shock.origin == "completed"]  # fmt: skip
    basis = basis_of(result, engine, run.request.portfolio, table)
    return Update(
        opinions=(OpinionRow.of(opinion),),
        shocks=tuple(rows),
        stress=with_path(
            _result_rows(result, rows, table, basis).model_copy(update={"moved": moved}), run, engine, table
        ),
        analogue=_analogue(past, opinion.judgement, engine, plan.horizon, table),
        evidence=tuple(table),
    )


def _given_by(factor: str, scenario: Scenario) -> str:
    """Who set a shock, and why."""
    entries = (*scenario.shocks, *scenario.readings)
    return next((f"human judgement of {one.why}" for one in entries if one.factor == factor), "human judgement")


def _shock_row(
    shock: Shock | AppliedShock, engine: Engine, table: EvidenceTable, scenario: Scenario
) -> WantedShock:  # fmt: skip
    label, as_of = engine.view.factors[shock.factor].label, engine.view.as_of
    formula = {
        "user": "given by the user",
        "historical": "realised move over the window",
        "model": "quantile of the factor's own moves, by the size that was read",
        "table": "reviewed size table, by the size that was read",
        "judgement": _given_by(shock.factor, scenario),
        "completed": "mean given the other shocks, by their covariance",
    }[shock.origin]
    move = table.add(
        shock.move,
        shock.unit,
        entity=label,
        what=f"shock ({shock.origin})",
        period=shock.window,
        as_of=as_of,
        formula=formula,
    )
    sigma = None
    if shock.sigma is not None:
        sigma = table.add(
            shock.sigma,
            "sigma",
            entity=label,
            what="size of the shock",
            period=shock.window,
            as_of=as_of,
            formula=f"{move} / standard deviation of the factor's moves",
        )
    return WantedShock(
        factor=shock.factor,
        move=move,
        sigma=sigma,
        origin=shock.origin,
        window=shock.window,
        extrapolated=shock.sigma is not None and abs(shock.sigma) > EXTRAPOLATED,
    )


def _beside_others(row: WantedShock, result: EngineResult, engine: Engine, table: EvidenceTable) -> WantedShock:
    """The shock with what the others that were applied imply for its factor, and how far it is from that."""
    applied = next((one for one in result.shocks if one.factor == row.factor and row.refused is None), None)
    if applied is None or applied.implied is None or applied.given_others is None:
        return row
    label, as_of, period = engine.view.factors[row.factor].label, engine.view.as_of, applied.window
    implied = table.add(
        applied.implied,
        applied.unit,
        entity=label,
        what="move that the other shocks imply",
        period=period,
        as_of=as_of,
        formula="mean given the other shocks, by the covariance near them",
    )
    off = table.add(
        applied.given_others,
        "sigma",
        entity=label,
        what="distance of the shock from the other shocks",
        period=period,
        as_of=as_of,
        formula=f"{row.move} less its mean given the others, in σ about it",
    )
    return row.model_copy(update={"implied": implied, "off": off})


async def _choose(
    state: AfterValidator, run: RunContext, wanted: list[WantedShock], past: list[_Past], table: EvidenceTable
) -> Opinion[StressChoice]:
    event = f"{state.reading.judgement.event} in {state.reading.judgement.region}" if state.reading else "not read"
    nothing = table.add(
        "no shock",
        "text",
        entity="shocks",
        what="choice to refuse nothing",
        period="this event",
        as_of=run.request.as_of,
        formula="stated choice",
    )
    shocks = [Offered(shock.move, f"shock {shock.factor} {_shown(table, shock.move)}") for shock in wanted]
    offered = {
        "closest": [Offered(one.evidence, f"past event {one.near.past.title}") for one in past],
        "refuse": [Offered(nothing, "no shock"), *shocks],
    }
    caller = run.caller("stress_tester", state.kind)
    return await judge_escalating(STRESS_TESTER, {"reading": event}, offered, caller, before=state.opinions)


def _shown(table: EvidenceTable, id: str) -> str:
    return show(table[id].value, table[id].unit)


def _result_rows(
    result: EngineResult, rows: list[WantedShock], table: EvidenceTable, basis: Basis
) -> StressRow:  # fmt: skip
    """Every number of the result as an evidence row; what comes back holds their ids."""
    shocked = ", ".join(shock.move for shock in rows if shock.refused is None) or "no shock"
    period, in_money = trading_days(result.days or result.horizon), money(result.currency)
    given = "trading days of the replayed window" if result.replayed else "given by the scenario"

    def add(value: float | Decimal, what: str, entity: str, formula: str, unit: Unit = in_money) -> str:
        return table.add(
            float(value), unit, entity=entity, what=what, period=period, as_of=result.as_of, formula=formula
        )

    passed = f", {_passed(result, add)}" if result.aged else ""
    value = add(result.book_value, "market value", "book", "sum of market values")
    positions = {
        name: add(pnl, "P&L", name, f"{basis.of(name)} × ({shocked}{passed})")
        for name, pnl in result.by_position.items()
    }
    total = add(result.total, "P&L", "book", f"sum({', '.join(positions.values())})")
    gross = share = None
    if result.gross_value is not None and result.gross_value != result.book_value:
        gross = add(result.gross_value, "gross value", "book", "sum of what the holdings count for, unsigned")
    if result.share is not None:
        what = "P&L over gross value" if gross else "P&L over market value"
        share = add(result.share, what, "book", f"{total} / {gross or value}", "return")
    row = StressRow(
        book_value=value,
        gross_value=gross,
        by_position=positions,
        total=total,
        total_share=share,
        by_factor={n: add(p, "P&L by factor", n, f"part of {total}") for n, p in result.by_factor.items()},
        by_sector={n: add(p, "P&L by sector", n, f"part of {total}") for n, p in result.by_sector.items()},
        horizon=add(result.days or result.horizon, "horizon", "scenario", given, "days"),
        interval=None,
        var_975_1d=None,
        notes=(*((result.joint.words,) if result.joint else ()), *result.notes),
        result=result,
    )
    row = row.model_copy(update=_coverage_rows(result, table))
    if result.interval is not None:
        method = result.interval.method
        row = row.model_copy(update={
            "interval": (add(result.interval.lower, "interval, lower end", "book", f"{total} and {method}"),
                         add(result.interval.upper, "interval, upper end", "book", f"{total} and {method}")),
            "interval_level": add(result.interval.level, "level of the interval", "book", "stated", "probability"),
            "interval_method": method,
            "interval_parts": {part: add(share, "share of the interval's width", part, method, "probability")
                               for part, share in result.interval.parts.items()},
        })  # fmt: skip
    if result.var_975_1d is None:
        return row
    how, tails = f"historical simulation, {result.var_975_1d.window}", dict[str, str]()
    tails["var_975_1d"] = add(result.var_975_1d.loss, "one-day value at risk, before the event", "book", how)
    if result.es_975_1d is not None:
        tails["es_975_1d"] = add(result.es_975_1d.loss, "one-day expected shortfall, before the event", "book", how)
    return row.model_copy(update=tails)


def _passed(result: EngineResult, add: Callable[..., str]) -> str:
    """The time that passes, which every position's P&L is over."""
    assert result.aged is not None
    return add((result.aged - result.as_of).days, "time that passes", "book", f"to {result.aged}, as asked for", "days")


def _coverage_rows(result: EngineResult, table: EvidenceTable) -> dict[str, str]:
    """How much of the book the result is about, as evidence: shares in whole per cents that flatter nothing."""
    coverage = result.coverage
    if coverage is None:
        return {}
    shares = (("covered", down(coverage.covered), "share of the book that is covered"),
              ("stand_in", up(coverage.stand_in), "share of the book by stand-ins"),
              ("missing", up(coverage.missing), "share of the book that is not stressed"))  # fmt: skip

    def add(value: float | str, unit: Unit, what: str, formula: str) -> str:
        return table.add(value, unit, entity="book", what=what, period=f"at {result.as_of}", as_of=result.as_of,
                         formula=formula)  # fmt: skip

    of_all = "its gross value over that of all positions, in whole per cents"
    ids = {name: add(share / 100, "probability", what, of_all) for name, share, what in shares}
    ids["unknown"] = add(float(coverage.unknown), "count", "positions of unknown value", "counted")
    if coverage.day:
        ids["day"] = add(coverage.day, "text", "what as_of is", "the last day of the data used")
    return ids


def _near(state: AfterValidator, plan: Plan, run: RunContext, engine: Engine) -> list[Near]:
    reading = state.reading.judgement if state.reading else None
    return PastEvents(run.desk.knowledge.precedents, engine.view).nearest(
        event_of(reading, plan, state.through.opened if state.through else ())
    )


def _past(near: list[Near], run: RunContext, table: EvidenceTable) -> list[_Past]:
    """The nearest past events, each with a row of how far it is."""
    file = sha256_of(PRECEDENTS_PATH.read_bytes()) if near else ""
    return [
        _Past(one, table.add(
            round(one.distance, 6),  # the last digits differ from one process to another
            "sigma", entity=one.past.title, what="distance of a past event from this one",
            period=f"{one.past.start} to {one.past.end}", as_of=run.request.as_of,
            source=Source(uri=f"finllm:memory/{PRECEDENTS_PATH.name}", sha256=file, pointer=one.past.id),
            formula="root mean square of the gaps of the factors' moves, and for channels or kind, region, severity",
        ))
        for one in near
    ]  # fmt: skip


def _analogue(
    near: list[_Past], choice: StressChoice | None, engine: Engine, horizon: int, table: EvidenceTable
) -> ClosestEvent | None:
    """The past event that the agent finds closest among the nearest, replayed where data allow; the nearest if it names
    none. It is replayed from the last close before it.
    """
    if not near:
        return None
    named = choice.closest if choice else ()
    chosen = next((one for one in near if one.evidence in named), near[0])
    away = f"{show(chosen.near.distance, 'sigma').lstrip('+')} [{chosen.evidence}] away"
    measure = f"{away} in the factors' moves, channels or kind, region and severity"
    how = f"{measure}; the nearest" if chosen is near[0] else f"{measure}; the stress-tester's choice of the nearest"
    past = chosen.near.past
    found = ClosestEvent(
        id=past.id, title=past.title, start=past.start, end=past.end, evidence=chosen.evidence, how=how
    )
    try:
        cuts = engine.revalue(engine.plan(horizon, replay=window_of(past)))
    except InputError as error:
        return found.model_copy(update={"why": error.message})
    total = table.add(
        float(cuts.total),
        money(engine.book.currency),
        entity="book",
        what="P&L were the past event to repeat",
        period=f"{past.start} to {past.end}",
        as_of=engine.view.as_of,
        formula=f"replay of {chosen.evidence}",
    )
    return found.model_copy(update={"total": total})
