"""Sessions on scripted models, opened for tests, and the total of a version run afresh."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from finllm.desk.desk import Desk
from finllm.desk.request import RunRequest
from finllm.running import Runner
from finllm.sessions.opening import Start
from finllm.sessions.requests import with_trades
from finllm.sessions.session import Session
from finllm.tools.data.scenario import load_scenario
from tests.desks import request_for, run

SAY: list[dict[str, Any]] = [
    {"when": "", "say": {"factors.EQUITY_US.direction": "down", "factors.EQUITY_US.size": "large",
                         "factors.VIX.direction": "up", "factors.VIX.size": "medium"}}
]  # fmt: skip
Make = Callable[..., Desk]


def open_on(desk: Desk, runner: Runner, request: RunRequest | None = None, **options: Any) -> Session:
    session = Session.on(Start("hormuz-blockade", request=request or request_for("hormuz-blockade")), desk, runner,
                         who="risk1", **options)  # fmt: skip
    session.begin()
    return session


def total(session: Session) -> float:
    report = session.report_of(session.version)
    assert report is not None
    return report.total.value


def fresh(session: Session, desk: Desk, tmp_path: Path, name: str = "saved.yaml") -> float:
    """The total of a run of the saved scenario, on the book that the session was opened with."""
    path = tmp_path / name
    assert session.do(f"save {path}").error is None
    scenario = load_scenario(path)
    opened = RunRequest.model_validate(session.tree.opened.request)
    run_ = replace_scenario(opened, session.version.request, scenario, session)
    outcome = run(run_, desk, f"fresh-{name}-{session.version.run}")
    assert outcome.report is not None
    return outcome.report.total.value


def replace_scenario(opened: RunRequest, now: RunRequest, scenario: Any, session: Session) -> RunRequest:
    book = with_trades(opened.portfolio, scenario, session.hand().run.market)
    return opened.model_copy(update={"scenario": scenario, "portfolio": book, "limits": now.limits})
