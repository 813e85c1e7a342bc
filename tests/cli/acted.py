"""A flow that is acted, where a command would run the graph."""

from __future__ import annotations

from collections.abc import Callable

from finllm.desk.desk import Desk
from finllm.desk.request import RunRequest
from finllm.events import NodeStarted, RunFinished, RunStarted
from finllm.graphs.flow import Outcome
from finllm.graphs.report import Report
from finllm.tools.data.scenario import BudgetEntry

Act = Callable[[str, RunRequest, Desk], Outcome]
QUESTION = {"factors": ["OIL_WTI"], "options": ["withhold", "accept"]}


class Flow:
    """Stands for the graph: records what it is asked and does what `act` says."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.requests: list[RunRequest] = []
        self.resumed: list[tuple[str, str | None, BudgetEntry | None]] = []
        self.act: Act = self.finish

    def finish(self, run_id: str, request: RunRequest, desk: Desk) -> Outcome:
        del request, desk
        report = self.report.model_copy(update={"run_id": run_id})
        return Outcome(run_id, report.status, report)

    def wait(self, run_id: str, request: RunRequest, desk: Desk) -> Outcome:
        del request, desk
        return Outcome(run_id, "waiting", None, QUESTION)

    async def run_stress_test(self, run_id: str, request: RunRequest, desk: Desk) -> Outcome:
        self.requests.append(request)
        desk.ledger.start_run(run_id, request.model_dump(mode="json"))
        desk.bus.emit(RunStarted(run_id=run_id, title=request.scenario.title, as_of=request.as_of.isoformat()))
        desk.bus.emit(NodeStarted(node="intake"))
        outcome = self.act(run_id, request, desk)
        if outcome.report is not None:
            desk.bus.emit(RunFinished(run_id=run_id, status=outcome.report.status))
        return outcome

    async def resume(
        self, run_id: str, desk: Desk, *, answer: str | None = None, budget: BudgetEntry | None = None
    ) -> Outcome:
        row = desk.ledger.run(run_id)
        assert row is not None
        self.resumed.append((run_id, answer, budget))
        return self.finish(run_id, RunRequest.model_validate(row.request), desk)
