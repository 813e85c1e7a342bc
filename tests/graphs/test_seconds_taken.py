"""A budget of seconds: what was really taken is said, also by a run that asks no model because all is on record."""

from __future__ import annotations

import time
from collections.abc import Callable

from finllm.desk.desk import Desk
from finllm.graphs.report import Report, to_markdown
from finllm.tools.data.scenario import BudgetEntry
from tests.desks import Seen, request_for, run

MakeDesk = Callable[..., Desk]
FALLS = {"when": "What kind of event", "say": {"factors.EQUITY_US.direction": "down"}}


def reported(desk: Desk, run_id: str, seconds: float | None) -> tuple[Report, float]:
    """The report of a run within a budget of seconds, and what the clock says that it took."""
    budget = None if seconds is None else BudgetEntry(seconds=seconds, tokens=None, deep_tokens=None)
    begun = time.monotonic()
    report = run(request_for("hormuz-blockade", budget=budget), desk, run_id).report
    assert report is not None
    return report, time.monotonic() - begun


def test_a_budget_of_seconds_says_what_was_really_taken_from_the_ledger_too(
    scripted_desk: MakeDesk, seen: Seen
) -> None:
    desk = scripted_desk([FALLS], [FALLS])
    first, _ = reported(desk, "asked", None)
    again, took = reported(desk, "on-record", 0.05)
    assert again.total == first.total
    assert again.spent is not None
    assert 0.05 < again.spent.seconds <= took
    assert again.spent.tokens == 0  # nobody was asked: these seconds are the tools'
    assert again.spent.allowed == 0.05
    said = "longer than the 0.05 s of its budget"
    assert said in to_markdown(again)
    assert [one.message for one in seen.kinds("noted") if said in one.message]
    enough, _ = reported(desk, "enough", 3600.0)
    assert enough.spent is not None
    assert enough.spent.allowed is None
    assert "of its budget" not in to_markdown(enough)


def test_what_is_not_on_record_is_not_asked_once_the_seconds_are_spent(scripted_desk: MakeDesk) -> None:
    found, _ = reported(scripted_desk([FALLS], [FALLS]), "short", 0.001)
    assert found.spent is not None
    assert found.spent.tokens == 0
    reasons = {one.agent: one.reason or "" for one in found.agents if one.short}
    assert {"market-signal", "narrative", "compliance"} < {*reasons}
    assert all("0.001 seconds are spent" in why for why in reasons.values())
