"""The stress-tester's node: shocks from user, history and reading; the agent's choice; the book's P&L as evidence."""

from __future__ import annotations

import asyncio
import datetime as dt
from decimal import Decimal

from finllm.agents.agent import Offered, Opinion
from finllm.agents.escalation import judge_escalating
from finllm.agents.stress_tester import STRESS_TESTER
from finllm.desk.desk import RunContext
from finllm.errors import InputError
from finllm.graphs.learning import kind_of
from finllm.graphs.nodes.reading import reading_of
from finllm.graphs.shocks import EXTRAPOLATED, engine_of, plan_of
from finllm.graphs.state import Row, State
from finllm.tools.data.factors import Shock
from finllm.tools.evidence import EvidenceTable, Unit, show
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.outcome import EngineResult
from finllm.tools.pnl.outcome import ShockRow as Moved
from finllm.tools.pnl.shocks import Plan


async def stress_tester(state: State, run: RunContext) -> Row:
    """The arithmetic is done on a thread: meanwhile the loop serves the other runs of a batch."""
    table = EvidenceTable.from_json(state["evidence"])

    def planned() -> tuple[Engine, Plan]:
        engine = engine_of(state, run)
        return engine, plan_of(state, run, engine)

    engine, plan = await asyncio.to_thread(planned)
    rows = [_shock_row(shock, engine, table) for shock in plan.shocks.values()]
    opinion = await _choose(state, run, rows, table)
    return await asyncio.to_thread(_stressed, state, run, engine, plan, rows, opinion, table)


def _stressed(
    state: State, run: RunContext, engine: Engine, plan: Plan, rows: list[Row], opinion: Opinion, table: EvidenceTable
) -> Row:
    refused = _refused(rows, opinion)
    for row in rows:
        row["refused"] = refused.get(row["move"])
    applied = plan.without({row["factor"] for row in rows if row["refused"]})
    result = engine.stress(applied, propagate=run.request.scenario.propagate, seed=run.request.seed)
    rows += [_shock_row(shock, engine, table) for shock in result.shocks if shock.origin == "completed"]
    return {
        "opinions": [opinion.model_dump(mode="json")],
        "shocks": rows,
        "stress": _result_rows(result, rows, table),
        "analogue": _analogue(state, opinion, engine, plan.horizon, table),
        "evidence": table.to_json(),
    }


def _shock_row(shock: Shock | Moved, engine: Engine, table: EvidenceTable) -> Row:
    label, as_of = engine.view.factors[shock.factor].label, engine.view.as_of
    formula = {
        "user": "given by the user",
        "historical": "realised move over the window",
        "model": "quantile of the factor's own moves, by the size that was read",
        "table": "reviewed size table, by the size that was read",
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
    return {
        "factor": shock.factor,
        "move": move,
        "sigma": sigma,
        "origin": shock.origin,
        "window": shock.window,
        "extrapolated": shock.sigma is not None and abs(shock.sigma) > EXTRAPOLATED,
        "refused": None,
    }


async def _choose(state: State, run: RunContext, rows: list[Row], table: EvidenceTable) -> Opinion:
    reading = reading_of(state)
    event = f"{reading['judgement']['event']} in {reading['judgement']['region']}" if reading else "not read"
    nothing = table.add(
        "no shock",
        "text",
        entity="shocks",
        what="choice to refuse nothing",
        period="this event",
        as_of=run.request.as_of,
        formula="stated choice",
    )
    shocks = [Offered(row["move"], f"shock {row['factor']} {_shown(table, row['move'])}") for row in rows]
    offered = {
        "closest": [Offered(p["evidence"], f"past event {p['title']}") for p in state["precedents"]],
        "refuse": [Offered(nothing, "no shock"), *shocks],
    }
    caller = run.caller("stress_tester", kind_of(state))
    return await judge_escalating(STRESS_TESTER, {"reading": event}, offered, caller, before=state["opinions"])


def _refused(rows: list[Row], opinion: Opinion) -> dict[str, str]:
    """Shocks to leave out: those of a model or table that the check calls implausible and the agent refuses."""
    named = opinion.judgement["refuse"] if opinion.judgement else []
    return {
        row["move"]: "refused by the agent, and outside what its history shows"
        for row in rows
        if row["move"] in named and row["origin"] in ("model", "table") and row["extrapolated"]
    }


def _shown(table: EvidenceTable, id: str) -> str:
    return show(table[id].value, table[id].unit)


def _result_rows(result: EngineResult, rows: list[Row], table: EvidenceTable) -> Row:
    """Every number of the result as an evidence row; what comes back holds their ids."""
    shocked = ", ".join(row["move"] for row in rows if row["refused"] is None) or "no shock"
    period = f"{result.horizon} trading days"

    def add(value: float | Decimal, what: str, entity: str, formula: str, unit: Unit = "usd") -> str:
        return table.add(
            float(value), unit, entity=entity, what=what, period=period, as_of=result.as_of, formula=formula
        )

    value = add(result.book_value, "market value", "book", "sum of market values")
    positions = {name: add(pnl, "P&L", name, f"exposure × ({shocked})") for name, pnl in result.by_position.items()}
    total = add(result.total, "P&L", "book", f"sum({', '.join(positions.values())})")
    share = float(result.total) / float(result.book_value) if result.book_value else 0.0
    out: Row = {
        "book_value": value,
        "by_position": positions,
        "total": total,
        "total_share": add(share, "P&L over market value", "book", f"{total} / {value}", "return"),
        "by_factor": {n: add(p, "P&L by factor", n, f"part of {total}") for n, p in result.by_factor.items()},
        "by_sector": {n: add(p, "P&L by sector", n, f"part of {total}") for n, p in result.by_sector.items()},
        "horizon": table.add(
            result.horizon,
            "days",
            entity="scenario",
            what="horizon",
            period=period,
            as_of=result.as_of,
            formula="given by the scenario",
        ),
        "interval": None,
        "var_975_1d": None,
        "notes": list(result.notes),
        "result": result.model_dump(mode="json"),
    }
    if result.interval is not None:
        method = result.interval.method
        out["interval"] = [
            add(result.interval.lower, "interval, lower end", "book", f"{total} and {method}"),
            add(result.interval.upper, "interval, upper end", "book", f"{total} and {method}"),
        ]
        out["interval_level"] = add(result.interval.level, "level of the interval", "book", "stated", "probability")
        out["interval_method"] = method
    if result.var_975_1d is not None:
        out["var_975_1d"] = add(
            result.var_975_1d.loss,
            "one-day value at risk, before the event",
            "book",
            f"historical simulation, {result.var_975_1d.window}",
        )
    return out


def _analogue(state: State, opinion: Opinion, engine: Engine, horizon: int, table: EvidenceTable) -> Row | None:
    """The past event the agent finds closest (the most similar text if it abstained), replayed where data allow."""
    if not state["precedents"]:
        return None
    named = opinion.judgement["closest"] if opinion.judgement else []
    chosen = next((p for p in state["precedents"] if p["evidence"] in named), state["precedents"][0])
    start, end = dt.date.fromisoformat(chosen["start"]), dt.date.fromisoformat(chosen["end"])
    row: Row = {key: chosen[key] for key in ("id", "title", "start", "end", "evidence")} | {"total": None, "why": None}
    try:
        cuts = engine.revalue(engine.plan(horizon, replay=(start, end)))
    except InputError as error:
        return {**row, "why": error.message}
    row["total"] = table.add(
        float(cuts.total),
        "usd",
        entity="book",
        what="P&L were the past event to repeat",
        period=f"{start} to {end}",
        as_of=engine.view.as_of,
        formula=f"replay of {chosen['evidence']}",
    )
    return row
