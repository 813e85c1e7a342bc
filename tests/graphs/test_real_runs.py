"""Whole runs on the real model, the real Chroma and the real checkpointer."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finllm.agents.roles import AGENTS
from finllm.agents.sanity_checker import SANITY_CHECKER
from finllm.desk.desk import Desk
from finllm.graphs.report import Report
from finllm.scenarios import SCENARIOS_DIR
from finllm.tools.data.scenario import Replay
from tests.desks import request_for, run
from tests.soak import Soak

pytestmark = pytest.mark.slow

SHIPPED = sorted(path.stem for path in SCENARIOS_DIR.glob("*.yaml"))
PLANTED = yaml.safe_load((Path(__file__).parent.parent / "data" / "planted.yaml").read_text(encoding="utf-8"))


def report_of(outcome_report: Report | None) -> Report:
    assert outcome_report is not None
    return outcome_report


def test_at_least_ten_scenarios_are_shipped() -> None:
    assert len(SHIPPED) >= 11


@pytest.mark.parametrize("scenario", ["hormuz-blockade", "non-event", "fed-severely-adverse-2025"])
def test_a_shipped_scenario_runs_through_on_real_parts(scenario: str, real_desk: Desk) -> None:
    """With sources, with nothing that moves, and without sources."""
    assert_runs_through(scenario, real_desk)


@pytest.mark.soak
def test_every_shipped_scenario_runs_through_on_real_parts(soak: Soak, real_desk: Desk) -> None:
    for seed in soak.rounds(len(SHIPPED)):
        assert_runs_through(SHIPPED[seed], real_desk)


def assert_runs_through(scenario: str, real_desk: Desk) -> None:
    """To its report: every agent judged, the user's shocks are in it, and the injections that it carries are found."""
    request = request_for(scenario)
    outcome = run(request, real_desk, f"ship-{scenario}")
    report = report_of(outcome.report)
    assert outcome.status == "finished"
    unasked = set() if request.scenario.sources else {SANITY_CHECKER.role}
    assert {agent.agent for agent in report.agents} == {agent.role for agent in AGENTS} - unasked
    asked = [agent for agent in report.agents if not (agent.reason or "").startswith("not asked: the source checks")]
    assert {agent.status for agent in asked} == {"judged"}
    assert {agent.agent for agent in report.agents if agent not in asked} <= {SANITY_CHECKER.role}
    for entry in request.scenario.shocks:
        assert entry.factor in {row.factor for row in report.shocks if row.origin == "user"}
    if request.scenario.path is not None:
        assert len(report.path) == len(request.scenario.path.steps)
        (worst,) = (one for one in report.path if one.worst)
        assert worst.total.value == min(one.total.value for one in report.path)
        assert worst.total.evidence in {row.id for row in report.evidence}
        given = {row.factor for row in report.shocks if row.origin == "user"}
        assert given == set(request.scenario.path.factors)
    verdicts = {source.id: source.verdict for source in report.sources}
    planted = PLANTED.get(scenario, {}).get("injection", [])
    assert [id for id in planted if verdicts[id] != "injected"] == []


def test_the_non_event_moves_nothing(real_desk: Desk) -> None:
    report = report_of(run(request_for("non-event"), real_desk, "non-event").report)
    assert report.shocks == ()
    assert report.total.value == 0.0


@pytest.mark.parametrize(
    ("start", "end", "move"),
    [
        ("1998-07-17", "1998-08-31", -0.1934),
        ("2008-09-12", "2008-11-20", -0.3989),
        ("2020-02-19", "2020-03-23", -0.3392),
        ("2022-01-03", "2022-10-12", -0.2543),
    ],
)
def test_a_replayed_index_book_moves_as_the_index_did(start: str, end: str, move: float, real_desk: Desk) -> None:
    replay = Replay.model_validate({"start": start, "end": end})
    request = request_for("lehman-2008", "index-only.csv", replay=replay, sources=(),
                          as_of=replay.end.replace(year=2022, month=12, day=15))  # fmt: skip
    report = report_of(run(request, real_desk, f"replay-{start}").report)
    assert report.total_share is not None
    assert report.total_share.value == pytest.approx(move, abs=0.001)


def test_a_second_run_of_the_same_inputs_asks_no_model_and_says_the_same(real_desk: Desk) -> None:
    first = report_of(run(request_for("hormuz-blockade"), real_desk, "twice-1").report)
    second = report_of(run(request_for("hormuz-blockade"), real_desk, "twice-2").report)
    assert all(use.reused for use in real_desk.ledger.uses("twice-2", "call"))
    unlike = {"run_id", "spent"}
    assert first.model_dump(exclude=unlike) == second.model_dump(exclude=unlike)
