"""A counterfactual is what a run would have found: held against runs that really read, or were told, otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from finllm.desk.desk import Desk, RunContext
from finllm.desk.request import RunRequest
from finllm.graphs.report import Report
from finllm.graphs.state import Finished
from finllm.review.replay import replay
from finllm.review.whatif import STEP, WhatIf, call_of, calls_of
from finllm.scheduler.money.account import Account
from finllm.scheduler.money.budget import Budget
from finllm.tools.data.factors import factor_table
from finllm.tools.data.market import MarketStore
from finllm.tools.data.scenario import ShockEntry
from finllm.tools.pnl.factorset import FactorSet
from finllm.tools.pnl.sizes import FactorView
from tests.conftest import bounded
from tests.desks import request_for, run
from tests.graphs.test_flow import DOWN, READS_WELL

MakeDesk = Callable[..., Desk]


def what_if_of(desk: Desk, run_id: str = "run-1") -> WhatIf:
    row = desk.ledger.run(run_id)
    assert row is not None
    request = RunRequest.model_validate(row.request)
    context = RunContext(desk, run_id, request, MarketStore([]), Account(Budget(), time.monotonic))
    return WhatIf(Finished.model_validate(bounded(replay(run_id, desk)).state), context)


def report_of(request: RunRequest, desk: Desk, run_id: str = "run-1") -> Report:
    report = run(request, desk, run_id).report
    assert report is not None
    return report


def reads(**say: str) -> dict[str, Any]:
    return {"when": "What kind of event", "say": {"event": "blockade", "severity": "high", **DOWN, **say}}


@pytest.mark.parametrize("scenario", ["hormuz-blockade", "lehman-2008", "non-event"])
def test_nothing_changed_is_the_run_s_own_result(scenario: str, scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    report = report_of(request_for(scenario), desk)
    found = what_if_of(desk)
    assert float(found.base.total) == report.total.value
    assert (found.base.compliance, len(found.base.breached)) == (report.compliance, len(report.breaches))
    assert found.reading is not None
    assert found.read(calls_of(found.reading.opinion.choices)) == found.base


def test_a_factor_read_otherwise_gives_what_a_run_that_reads_so_finds(scripted_desk: MakeDesk) -> None:
    request = request_for("hormuz-blockade")
    desk = scripted_desk([READS_WELL])
    report_of(request, desk)
    found = what_if_of(desk)
    for n, (direction, size) in enumerate((("down", "extreme"), ("none", "none"), ("up", "small"))):
        say = {"factors.EQUITY_US.direction": direction} | ({"factors.EQUITY_US.size": size} if size != "none" else {})
        asked_anew = request.model_copy(update={"seed": n + 1})
        other = report_of(asked_anew, scripted_desk([reads(**say)]), f"other-{n}")
        verdict = found.read({"EQUITY_US": call_of(direction, size)})
        assert float(verdict.total) == other.total.value
        assert (len(verdict.breached), verdict.compliance) == (len(other.breaches), other.compliance)


def test_without_a_source_is_what_a_run_without_it_finds(scripted_desk: MakeDesk) -> None:
    request = request_for("hormuz-blockade")
    note = next(source for source in request.scenario.sources if source.id == "hrz-note-1")
    only = note.model_copy(update={"text": "The dollar rose sharply."})  # which past events alone do not bear out
    alone = request.scenario.model_copy(update={"sources": (only,)})
    desk = scripted_desk([READS_WELL])
    report_of(request.model_copy(update={"scenario": alone}), desk)
    bare = report_of(request_for("hormuz-blockade", sources=()), scripted_desk([READS_WELL]), "bare")
    found = what_if_of(desk)
    assert found.reading is not None
    verdict = found.read(calls_of(found.reading.opinion.choices), without=only.id)
    assert float(verdict.total) == bare.total.value
    assert verdict != found.base


def test_a_shock_of_the_user_s_leaves_the_reading_of_its_factor_no_bearing(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    report_of(request_for("hormuz-blockade"), desk)
    found = what_if_of(desk)
    assert "OIL_WTI" not in found.bears
    factors = {one.factor for one in found.otherwise()}
    assert factors == found.bears
    for factor in factors:
        assert [one for one in found.otherwise() if one.factor == factor and one.next]


def test_the_smallest_step_flips_and_a_run_with_that_shock_agrees(scripted_desk: MakeDesk) -> None:
    request = request_for("hormuz-blockade")
    desk = scripted_desk([READS_WELL])
    report_of(request, desk)
    found = what_if_of(desk)
    steps = found.smallest_steps()
    assert [abs(step.sigmas) for step in steps] == sorted(abs(step.sigmas) for step in steps)
    assert all(found.base.flips(step.verdict) and abs(step.sigmas) >= STEP for step in steps)
    step = steps[0]
    market = MarketStore()
    view = FactorView(FactorSet.default(market), market, request.as_of)
    sigma = view.size(step.factor, request.scenario.horizon).sigma
    assert sigma is not None
    now = next((shock.move for name, shock in found.applied.shocks.items() if name == step.factor), 0.0)
    scale, unit = {"return": (100, "%"), "bp": (1, "bp"), "points": (1, "points")}[factor_table()[step.factor].unit]
    entry = ShockEntry(factor=step.factor, move=f"{(now + step.sigmas * sigma.value) * scale:+.10f}{unit}")
    shocks = (*(one for one in request.scenario.shocks if one.factor != step.factor), entry)
    moved = request.scenario.model_copy(update={"shocks": shocks})
    other = report_of(request.model_copy(update={"scenario": moved}), scripted_desk([READS_WELL]), "moved")
    assert float(step.verdict.total) == pytest.approx(other.total.value, abs=0.02)
