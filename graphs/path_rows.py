"""The steps of a scenario's path as evidence: what each adds to the P&L, and the P&L from today."""

from __future__ import annotations

from finllm.desk.desk import RunContext
from finllm.graphs.rows import PathStepRow, StressRow
from finllm.tools.evidence import EvidenceTable, money
from finllm.tools.pnl.engine import Engine
from finllm.tools.pnl.paths import steps_of, walk

ALONE = (
    "the steps of the path move what its table names and what completion moves with it; what is read from the text is"
    " in the result at the worst step alone"
)


def with_path(row: StressRow, run: RunContext, engine: Engine, table: EvidenceTable) -> StressRow:
    """The row with the path's steps, where the scenario has one."""
    scenario = run.request.scenario
    if scenario.path is None:
        return row
    walked = walk(engine, steps_of(scenario.path, engine.view.factors), propagate=scenario.propagate)
    unit, before = money(engine.book.currency), ""
    steps: list[PathStepRow] = []
    for at, one in enumerate(walked.rows):
        period, as_of = f"{one.label}, {one.days} trading days", engine.view.as_of
        total = table.add(float(one.total), unit, what="P&L from today at a step of the path",
                          formula="revaluation at the levels that the step reaches",
                          entity="book", period=period, as_of=as_of)  # fmt: skip
        step = table.add(float(one.step), unit, what="P&L of a step of the path",
                         formula=f"{total} - {before}" if before else total,
                         entity="book", period=period, as_of=as_of)  # fmt: skip
        before = total
        steps.append(PathStepRow(label=one.label, days=one.days, step=step, total=total, worst=at == walked.worst))
    notes = (*row.notes, *walked.notes, ALONE)
    return row.model_copy(update={"path": tuple(steps), "notes": notes})
