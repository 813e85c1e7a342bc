"""What a run teaches about its agents' worth: once a run, never by a replay, and it reaches the next run's tasks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from finllm.agents.market_signal import MARKET_SIGNAL
from finllm.agents.narrative import NARRATIVE
from finllm.agents.stress_tester import STRESS_TESTER
from finllm.agents.validator import VALIDATOR
from finllm.desk.desk import Desk
from finllm.errors import BudgetExceeded
from finllm.review.replay import replay
from finllm.scheduler.placement.value import Learned
from finllm.tools.data.scenario import BudgetEntry
from tests.conftest import bounded
from tests.desks import Seen, go_on, request_for, run
from tests.graphs.test_flow import READS_BADLY, READS_WELL

MakeDesk = Callable[..., Desk]


def learned(desk: Desk) -> Learned:
    assert desk.values is not None
    return desk.values.learned()


def values_of(desk: Desk, run_id: str, agent: str) -> set[float]:
    """What a run's tasks of an agent were worth, as they were placed."""
    return {use.entry.request["value"] for use in desk.ledger.uses(run_id, "placement")
            if use.entry.request["agent"] == agent}  # fmt: skip


def test_a_run_teaches_once_and_the_next_one_s_tasks_are_worth_what_it_taught(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    run(request_for("hormuz-blockade"), desk)
    seen = learned(desk)
    assert {count.count for count in seen.agents.values()} == {1}
    assert set(seen.kinds) == {(agent, "blockade") for agent in seen.agents}
    assert seen.agents[NARRATIVE.role].mean != 0.0
    assert seen.agents[MARKET_SIGNAL.role].mean == seen.agents[VALIDATOR.role].mean == 0.0
    assert values_of(desk, "run-1", NARRATIVE.role) == {NARRATIVE.value}
    go_on(desk)
    bounded(replay("run-1", desk))
    assert learned(desk) == seen
    run(request_for("hormuz-blockade"), desk, "run-2")
    assert learned(desk).agents[NARRATIVE.role].count == 2
    assert values_of(desk, "run-2", NARRATIVE.role) == {seen.value(NARRATIVE.role, NARRATIVE.value)}
    known = seen.value(STRESS_TESTER.role, STRESS_TESTER.value, "blockade")
    assert values_of(desk, "run-2", STRESS_TESTER.role) == {known}
    assert known < STRESS_TESTER.value


def test_a_run_that_was_stopped_teaches_when_it_ends(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    poor = BudgetEntry(seconds=None, tokens=300, deep_tokens=None)
    with contextlib.suppress(BudgetExceeded):
        run(request_for("hormuz-blockade", budget=poor, shocks=()), desk)
    assert learned(desk) == Learned()
    go_on(desk, budget=BudgetEntry(seconds=None, tokens=100_000, deep_tokens=None))
    assert learned(desk).agents[NARRATIVE.role].count == 1


def test_a_reading_without_support_narrows_nothing(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_BADLY], [READS_BADLY])
    run(request_for("hormuz-blockade"), desk)
    assert {seen.mean for seen in learned(desk).agents.values()} == {0.0}


def test_a_damaged_file_is_noted_and_the_run_goes_on(scripted_desk: MakeDesk, seen: Seen) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    desk.settings.values_path.write_text("{")
    assert run(request_for("hormuz-blockade"), desk).status == "finished"
    assert any("nothing was learned" in event.message for event in seen.kinds("noted"))
