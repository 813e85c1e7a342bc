"""A budget trades quality before it stops: fewer past events, no second reading, agents that are not asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from finllm.agents.agent import Offered, render_prompt
from finllm.agents.narrative import NARRATIVE
from finllm.desk.desk import Desk, open_run
from finllm.desk.request import RunRequest
from finllm.desk.spending import carried, left_out_of
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
NUMBERS = itertools.count()


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


def test_who_cannot_be_asked_abstains_and_report_headline_and_rule_book_say_so(
    scripted_desk: MakeDesk, seen: Seen
) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    report = _report(run(request_for("hormuz-blockade", budget=tokens(1)), desk))
    cut = [one.agent for one in report.agents if one.short]
    assert cut == ["market-signal", "narrative", "sanity-checker", "stress-tester", "compliance"]
    assert all((one.reason or "").startswith("budget: ") for one in report.agents)
    assert not seen.kinds("call_started")
    assert report.first[0].startswith(f"The budget did not reach for {', '.join(cut)}: nothing is claimed")
    assert "The event was not read: the P&L follows from the shocks that the scenario gives." in report.first[0]
    assert "nothing is claimed that they would have judged" in to_markdown(report).split("## ")[0]
    asked = next(one for one in report.findings if one.rule == "asked")
    assert (asked.verdict, asked.what) == ("flag", f"agents not asked, over the budget: {', '.join(cut)}")
    assert report.compliance == "flag"
    assert {one.rule for one in report.findings} > {"limits", "restricted", "support", "completeness"}
    assert report.event is None
    assert {row.origin for row in report.shocks} == {"user", "completed"}, "what the user insists on is computed"
    assert not [one for one in report.judged if one.said]


def test_where_both_do_not_fit_the_event_is_read_and_the_series_are_not(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL])
    report = _report(run(request_for("hormuz-blockade", budget=tokens(1500)), desk))
    by = {one.agent: one for one in report.agents}
    assert (by["narrative"].status, by["market-signal"].short) == ("judged", True)
    assert "the reading comes first" in (by["market-signal"].reason or "")


def _outcome(request: RunRequest, desk: Desk, run_id: str) -> Report | BudgetExceeded:
    try:
        return _report(run(request, desk, run_id))
    except BudgetExceeded as stop:
        return stop


@given(budget=st.integers(1, 4000), alone=st.booleans())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(budget=1, alone=True)
@example(budget=1500, alone=True)
@example(budget=700, alone=False)
def test_any_budget_ends_in_a_report_or_a_clear_stop_within_it_and_a_replay_says_the_same(
    scripted_desk: MakeDesk, budget: int, *, alone: bool
) -> None:
    """`alone`: the scenario gives a shock of its own, so that the tools alone can make a report."""
    run_id = f"run-{next(NUMBERS)}"
    desk = scripted_desk([READS_WELL], [READS_WELL], model=run_id)  # no answer of another example is its too
    asked = request_for("hormuz-blockade", budget=tokens(budget), **dict[str, Any]({} if alone else {"shocks": ()}))
    found = _outcome(asked, desk, run_id)
    if isinstance(found, BudgetExceeded):
        assert not alone
        assert "the event was not read" in found.message
        assert "larger --budget" in found.fix
    else:
        short = [one.agent for one in found.agents if one.short]
        assert bool(short) == bool(found.first) == any(one.rule == "asked" for one in found.findings)
    assert carried(desk.ledger, run_id).tokens <= budget
    again = bounded(replay(run_id, desk, afresh=False)).state.get("report")
    row = desk.ledger.run(run_id)
    assert row is not None
    assert row.result is None or again == {name: said for name, said in row.result.items() if name != "spent"}


def test_a_scenario_without_a_shock_whose_event_cannot_be_read_stops_and_a_larger_budget_goes_on(
    scripted_desk: MakeDesk,
) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    with pytest.raises(BudgetExceeded, match=r"the event was not read .*judged until then") as stop:
        run(request_for("hormuz-blockade", budget=tokens(700), shocks=()), desk)
    assert "larger --budget" in stop.value.fix
    report = _report(go_on(desk, budget=tokens(50_000)))
    assert (report.status, report.event is None) == ("finished", False)


@pytest.mark.parametrize(("budget", "judged"), [(1500, "narrative"), (900, "sanity-checker"), (300, "stress-tester")])
def test_the_real_model_reaches_a_report_on_a_budget_that_is_far_too_small(
    real_desk: Desk, budget: int, judged: str
) -> None:
    run_id = f"short-{budget}"
    request = request_for("hormuz-blockade", budget=tokens(budget)).model_copy(update={"seed": budget})
    report = _report(run(request, real_desk, run_id))
    by = {one.agent: one for one in report.agents}
    assert by[judged].status == "judged"
    assert by["compliance"].short
    assert carried(real_desk.ledger, run_id).tokens <= budget
    again = bounded(replay(run_id, real_desk, afresh=False)).state["report"]
    assert again == report.model_dump(mode="json", exclude={"spent"})
