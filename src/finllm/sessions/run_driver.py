"""One run driven from its start, or from where it stopped, to its report and files; a person answers where it waits."""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finllm.errors import Cancelled, FinllmError, InputError
from finllm.events import Event, EventBus, Noted, RunStarted

if TYPE_CHECKING:
    from finllm.desk.desk import Desk
    from finllm.desk.request import RunRequest
    from finllm.graphs.flow import Outcome
    from finllm.graphs.report import Report
    from finllm.review.explanation import Explanation
    from finllm.running import Runner
    from finllm.tools.data.scenario import BudgetEntry

Begin = Callable[["Desk"], Awaitable["Outcome"]]
AskPerson = Callable[[str, dict[str, Any]], str]
"""A person's answer to the question of the run with that id. Errors: HumanNeeded where nobody is there to answer."""


def new_run(request: RunRequest) -> Begin:
    """Starts a run of its own id."""

    def start(desk: Desk) -> Awaitable[Outcome]:
        from finllm.graphs.flow import new_run_id, run_stress_test

        run_id = new_run_id(request.scenario.title, dt.datetime.now(dt.UTC), secrets.token_hex(2))
        return run_stress_test(run_id, request, desk)

    return start


def resumed_run(run_id: str, answer: str | None, budget: BudgetEntry | None) -> Begin:
    """Goes on with a run on record, with a person's answer if it waits for one; `budget` replaces the run's."""

    def start(desk: Desk) -> Awaitable[Outcome]:
        from finllm.graphs.flow import resume

        return resume(run_id, desk, answer=answer, budget=budget)

    return start


def drive_run(start: Begin, desk: Desk, runner: Runner, ask: AskPerson) -> Report:
    """Bring a run to its report, asking a person wherever it waits for one. Errors: those of the run and of `ask`."""
    from finllm.graphs.flow import resume

    outcome = runner.run(_awaited(start(desk)))
    while outcome.status == "waiting":
        answer = ask(outcome.run_id, outcome.question or {})
        outcome = runner.run(resume(outcome.run_id, desk, answer=answer))
    if outcome.report is None:
        raise FinllmError(f"run {outcome.run_id!r} ended without a report", fix=f"finllm trace {outcome.run_id}")
    return outcome.report


def write_run(report: Report, desk: Desk, folder: Path, explanation: Explanation | None = None) -> None:
    """Write a run's files, with its explanation: the one given, else that on record, if there is one."""
    from finllm.review.drawn import DrawnBefore
    from finllm.review.explanation import explanation_on_record
    from finllm.review.outputs import write_outputs
    from finllm.review.trace import trace_rows

    known = explanation or explanation_on_record(report.run_id, desk.ledger)
    lost = write_outputs(folder, report, desk.ledger, trace_rows(report.run_id, desk.ledger), known,
                         DrawnBefore(desk.settings.drawn_dir))  # fmt: skip
    if lost is not None:
        desk.bus.emit(Noted(level="warning", message=lost))


@contextlib.contextmanager
def resumable(bus: EventBus) -> Generator[None]:
    """Make whatever stops a recorded run say how to go on with it."""
    recorded: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, RunStarted):
            recorded.append(event.run_id)

    bus.subscribe(watch)
    try:
        yield
    except KeyboardInterrupt as error:
        if not recorded:
            raise Cancelled("interrupted before the run began", fix="run the command again") from error
        raise Cancelled(f"run {recorded[0]!r} was interrupted; what it recorded is kept",
                        fix=f"resume with: finllm resume {recorded[0]}") from error  # fmt: skip
    except InputError:
        raise
    except FinllmError as error:
        if recorded and recorded[0] not in error.fix:
            error.fix = f"{error.fix}; go on with: finllm resume {recorded[0]}"
        raise
    except Exception as error:
        if recorded:
            error.add_note(f"go on with: finllm resume {recorded[0]}")
        raise


async def _awaited(outcome: Awaitable[Outcome]) -> Outcome:
    return await outcome
