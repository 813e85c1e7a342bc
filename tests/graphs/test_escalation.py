"""Escalation in whole runs: on record, in the report, the trace and the placements, and rebuilt by a replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from finllm.agents.agent import prompt_version
from finllm.agents.narrative import NARRATIVE
from finllm.agents.roles import AGENTS
from finllm.agents.validator import VALIDATOR
from finllm.cli.display.placements import placement_view
from finllm.desk.desk import Desk, assemble
from finllm.events import EventBus
from finllm.graphs.report import AgentRow, Report, to_markdown
from finllm.models.cards import AdapterCard
from finllm.review.placements import placements_of
from finllm.review.replay import replay
from finllm.review.trace import trace_story
from tests.conftest import LONGEST_RUN, bounded
from tests.desks import request_for, run
from tests.graphs.test_flow import READS_BADLY, READS_WELL

MakeDesk = Callable[..., Desk]
CARD = AdapterCard(
    name="card", base_sha256="", adapter_sha256="", calibration={},
    prompts={agent.role: prompt_version(agent) for agent in AGENTS},
    thresholds={"narrative.event": 0.95, "narrative.stance": 0.2, "validator.verdict": 0.2},
)  # fmt: skip

EVERY = frozenset(agent.role for agent in AGENTS)


def rows_of(report: Report | None, role: str) -> list[AgentRow]:
    assert report is not None
    return [row for row in report.agents if row.agent == role]


def test_a_run_escalates_the_agent_that_diverges_and_says_so_everywhere(scripted_desk: MakeDesk) -> None:
    desk = replace(scripted_desk([READS_BADLY], [READS_WELL]), card=CARD, escalating=EVERY)
    report = run(request_for("hormuz-blockade"), desk).report
    (row,) = rows_of(report, NARRATIVE.role)
    assert row.precision == "F16"
    up, vote = row.escalations
    assert (up.before, up.to, up.field, up.threshold) == ("Q4_0", "F16", "event", 0.95)
    assert vote.votes == 3
    assert rows_of(report, VALIDATOR.role)[0].escalations == ()
    assert report is not None
    assert report.event is not None
    assert report.event["event"] == "blockade"
    told = [placement for placement in placements_of("run-1", desk.ledger) if placement.why]
    assert {placement.agent for placement in told} == {NARRATIVE.role}
    assert up.words in {placement.why for placement in told}
    assert up.words in trace_story("run-1", desk.ledger)
    assert up.words in to_markdown(report)
    assert report.model_dump(mode="json")["agents"][1]["escalations"][0]["probability"] == up.probability
    placement_view(told)


def test_a_run_that_escalated_is_rebuilt_where_neither_card_nor_setting_is(scripted_desk: MakeDesk) -> None:
    desk = replace(scripted_desk([READS_WELL], [READS_WELL]), card=CARD, escalating=EVERY)
    report = run(request_for("hormuz-blockade"), desk).report
    off = replace(desk, card=None, escalating=frozenset())
    assert bounded(replay("run-1", off)).node == "report"
    again = run(request_for("hormuz-blockade"), off, "run-2").report
    assert [row.escalations for row in rows_of(again, NARRATIVE.role)] == [()]
    assert len(rows_of(report, NARRATIVE.role)[0].escalations) == 2


def test_a_reading_sent_back_names_its_cause_and_gets_no_second_round(scripted_desk: MakeDesk) -> None:
    desk = replace(scripted_desk([READS_BADLY], [READS_BADLY]), card=CARD, escalating=EVERY)
    report = run(request_for("hormuz-blockade"), desk).report
    first, again = rows_of(report, NARRATIVE.role)
    assert [one.cause for one in first.escalations] == ["threshold", "threshold"]
    assert [one.cause for one in again.escalations] == ["checks"]
    assert "EQUITY_US" in str(again.escalations[0].field)
    assert again.escalations[0].words in trace_story("run-1", desk.ledger)


def test_the_real_model_is_asked_finer_where_its_card_says_so(real_desk: Desk) -> None:
    assert real_desk.card is not None
    desk = replace(real_desk, escalating=EVERY, channels=None)  # so it is asked every field, and is unsure of some
    report = run(request_for("hormuz-blockade"), desk, "escalated").report
    assert report is not None
    told = [(row, one) for row in report.agents for one in row.escalations if one.cause == "threshold"]
    assert told
    for row, one in told:
        assert one.probability is not None
        assert one.threshold is not None
        assert one.threshold == real_desk.card.thresholds[f"{row.agent}.{one.field}"]
        assert one.probability < one.threshold
        assert row.precision == real_desk.settings.deep_precision
    assert {p.why for p in placements_of("escalated", real_desk.ledger)} >= {
        one.words for _row, one in told if not one.votes
    }
    bare = assemble(real_desk.settings, EventBus(), real_desk.ledger, [])
    assert bounded(replay("escalated", bare), LONGEST_RUN).node == "report"
