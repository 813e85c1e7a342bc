"""A run's critical calls run in two domains; the record and the report's cost say so, or why they did not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest

from finllm.agents.roles import AGENTS
from finllm.desk.desk import Desk
from finllm.graphs.report import Report, to_markdown
from finllm.review.placements import placements_of
from finllm.review.replay import replay
from finllm.scheduler.backends import Generation, Request
from finllm.scheduler.broker import Broker
from finllm.testing import ScriptedBackend
from finllm.tools.data.scenario import BudgetEntry, Role
from tests.conftest import bounded
from tests.desks import request_for, run
from tests.graphs.test_flow import READS_WELL

MakeDesk = Callable[..., Desk]


class NeverComplies(ScriptedBackend):
    """Its node stands still whenever the rules are asked about."""

    async def generate(self, request: Request) -> Generation:
        if any(getattr(step, "field", "").startswith("rules") for step in request.template):
            await asyncio.Event().wait()
        return await super().generate(request)


def _domain(kind: type[ScriptedBackend], name: str, domain: str) -> ScriptedBackend:
    return kind([READS_WELL], name=name, weights="the same", power=f"p{domain}", network=f"n{domain}")


@pytest.fixture
def desk(scripted_desk: MakeDesk) -> Desk:
    """A desk on two nodes of the same weights that share neither power nor network."""
    plain = scripted_desk([])
    backends = [_domain(NeverComplies, "edge@one", "1"), _domain(ScriptedBackend, "edge@two", "2")]
    return replace(plain, broker=Broker(backends, plain.ledger, plain.bus, call_timeout=60))


def _finished(desk: Desk, **changes: Any) -> Report:
    report = run(request_for("hormuz-blockade", sources=(), **changes), desk).report
    assert report is not None
    return report


def _where(desk: Desk, agents: Sequence[str]) -> set[tuple[str, str | None]]:
    return {(row.chosen, row.twin) for row in placements_of("run-1", desk.ledger) if row.agent in agents}


def test_compliance_and_the_last_validation_run_in_two_domains_and_the_report_says_what_that_cost(desk: Desk) -> None:
    report = _finished(desk)
    assert _where(desk, ["compliance"]) == {("edge@one", "edge@two")}
    assert _where(desk, ["narrative", "market-signal"]) == {("edge@one", None)}
    passes = [row.twin for row in placements_of("run-1", desk.ledger) if row.agent == "validator"]
    assert passes[0] is None, "a validation after which something may be read again is not the last"
    assert report.spent is not None
    assert report.spent.copies is not None
    assert report.spent.copies.doubled >= 1
    assert 0 < report.spent.copies.tokens < report.spent.tokens
    assert report.spent.copies.alone == ()
    assert "critical calls ran in two domains" in to_markdown(report)


def test_a_replay_rebuilds_what_the_second_domain_answered(desk: Desk) -> None:
    report = _finished(desk)
    (compliance,) = [row for row in report.agents if row.agent == "compliance"]
    assert compliance.backend == "edge@two", "the first choice stood still"
    assert bounded(replay("run-1", desk)).node == "report"


def test_a_scenario_marks_what_is_critical(desk: Desk) -> None:
    report = _finished(
        replace(
            desk,
            broker=Broker(
                [_domain(ScriptedBackend, "a", "1"), _domain(ScriptedBackend, "b", "2")],
                desk.ledger,
                desk.bus,
                call_timeout=60,
            ),
        ),
        critical=("narrative",),
    )
    assert _where(desk, ["narrative"]) == {("a", "b")}
    assert _where(desk, ["compliance", "validator", "market-signal"]) == {("a", None)}
    assert report.spent is not None


def test_a_budget_that_does_not_hold_two_is_said_in_the_report(scripted_desk: MakeDesk) -> None:
    plain = scripted_desk([])
    pair = [_domain(ScriptedBackend, "a", "1"), _domain(ScriptedBackend, "b", "2")]
    report = _finished(replace(plain, broker=Broker(pair, plain.ledger, plain.bus, call_timeout=60)),
                       budget=BudgetEntry(seconds=None, tokens=3000, deep_tokens=None))  # fmt: skip
    assert report.spent is not None
    assert report.spent.copies is not None
    assert report.spent.copies.doubled == 0
    assert any(line.startswith("compliance: the budget does not hold two copies") for line in report.spent.copies.alone)
    assert "ran in one domain" in to_markdown(report)


def test_without_domains_nothing_is_said(scripted_desk: MakeDesk) -> None:
    report = _finished(scripted_desk([READS_WELL]))
    assert report.spent is not None
    assert report.spent.copies is None


def test_a_scenario_names_the_agents_by_their_roles() -> None:
    assert set(get_args(Role)) == {agent.role for agent in AGENTS}
