"""A budget trades quality before it stops: fewer past events, no second reading, then a stop that says what it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from finllm.agents.agent import Offered, render_prompt
from finllm.agents.narrative import NARRATIVE
from finllm.desk.desk import Desk, open_run
from finllm.desk.spending import left_out_of
from finllm.errors import BudgetExceeded
from finllm.graphs.flow import Outcome
from finllm.graphs.report import Report, to_markdown
from finllm.graphs.thrift import precedents_for
from finllm.review.replay import replay
from finllm.scheduler.placement.policy import CHARS_PER_TOKEN
from finllm.tools.data.scenario import BudgetEntry
from tests.conftest import bounded
from tests.desks import Seen, go_on, request_for, run
from tests.graphs.test_flow import READS_BADLY, READS_WELL, nodes

MakeDesk = Callable[..., Desk]


def tokens(count: int) -> BudgetEntry:
    return BudgetEntry(seconds=None, tokens=count, deep_tokens=None)


def _report(outcome: Outcome) -> Report:
    assert outcome.report is not None
    assert outcome.report.spent is not None
    return outcome.report


def _spent(desk: Desk, **changes: Any) -> tuple[Report, tuple[str, ...]]:
    report = _report(run(request_for("hormuz-blockade", **changes), desk))
    assert report.spent is not None
    return report, report.spent.left_out


def test_without_a_budget_and_with_a_wide_one_nothing_is_left_out(scripted_desk: MakeDesk) -> None:
    assert _spent(scripted_desk([READS_WELL], [READS_WELL]))[1] == ()
    wide = scripted_desk([READS_WELL], [READS_WELL])
    report = _report(run(request_for("hormuz-blockade", budget=tokens(100_000)), wide, "wide"))
    assert report.spent is not None
    assert report.spent.left_out == ()


def test_a_short_budget_first_costs_past_events_and_a_second_reading_and_the_report_says_so(
    scripted_desk: MakeDesk, seen: Seen
) -> None:
    desk = scripted_desk([READS_BADLY], [READS_WELL])
    report, left_out = _spent(desk, budget=tokens(2600))
    assert "reread" not in nodes(seen), "a reading that would be asked again is not"
    assert any(line.startswith("validator: a second reading, which would take") for line in left_out)
    assert "a second reading, which would take" in to_markdown(report)
    again = bounded(replay("run-1", desk))
    assert again.node == "report", "a replay, which has no budget, leaves out the same"


@pytest.mark.parametrize(("kept", "budget"), [(2, 1.0), (1, 0.99), (0, 0.4)])
def test_past_events_leave_the_prompt_one_after_the_other(scripted_desk: MakeDesk, kept: int, budget: float) -> None:
    """`budget`: as a share of what leaves room for both of them."""
    desk, past = scripted_desk([READS_WELL]), ["one " * 250, "two " * 250]
    lines = [Offered("E1", "Tankers are turned back.")]
    inputs = {"narrative": "Hormuz is closed.", "precedents": ""}
    whole = render_prompt(NARRATIVE, {**inputs, "precedents": "\n".join(past)}, {"A": lines[0]})
    need = int(2 * (len(whole.system) + len(whole.user)) / CHARS_PER_TOKEN) + 1
    context = open_run(desk, "run-1", request_for("hormuz-blockade", budget=tokens(int(need * budget))))
    told = precedents_for(context, "narrative", NARRATIVE, inputs, lines, past)
    assert told == "\n".join(past[:kept])
    assert len(left_out_of(desk.ledger, "run-1")) == 2 - kept
    unlimited = open_run(desk, "run-1", request_for("hormuz-blockade"))
    assert precedents_for(unlimited, "narrative", NARRATIVE, inputs, lines, past) == told, "as it is on record"


def test_a_budget_that_reaches_for_nothing_more_stops_and_says_what_was_judged(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    with pytest.raises(BudgetExceeded, match="judged until then") as stop:
        run(request_for("hormuz-blockade", budget=tokens(700)), desk)
    assert "larger --budget" in stop.value.fix
    assert _report(go_on(desk, budget=tokens(50_000))).status == "finished"
