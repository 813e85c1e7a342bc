"""Where a run's tasks went and what they cost: from the record, into the report, and carried over a resume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from finllm.agents.agent import prompt_version
from finllm.agents.validator import VALIDATOR
from finllm.cli.display.placements import short_names
from finllm.desk.desk import Desk
from finllm.desk.spending import carried
from finllm.errors import BudgetExceeded, InputError
from finllm.graphs.report import to_markdown
from finllm.models.cards import AdapterCard, FieldCalibration
from finllm.review.placements import placements_of
from finllm.review.trace import trace_story
from finllm.scheduler.money.tariff import token_prices
from finllm.tools.data.scenario import BudgetEntry
from tests.desks import go_on, request_for, run
from tests.graphs.test_flow import READS_WELL

MakeDesk = Callable[..., Desk]


def test_every_task_says_where_it_went_what_was_refused_and_what_it_took(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    run(request_for("hormuz-blockade"), desk)
    rows = placements_of("run-1", desk.ledger)
    assert {"narrative", "market-signal", "validator", "compliance"} <= {row.agent for row in rows}
    edge, deep = desk.broker.offers
    for row in rows:
        assert row.chosen == edge.name
        assert "finer than needed" in row.refused[deep.name]
        assert row.ended in ("answered", "from the ledger")
        assert (row.actual is None) == (row.ended == "from the ledger")
        assert row.actual is None or (row.joules is not None and row.joules.provenance == "table")


def test_a_call_is_found_though_two_cards_know_priors_for_it(scripted_desk: MakeDesk) -> None:
    bias = {"aligned": 1.0, "diverged": 0.0, "unresolved": 0.0}
    card = AdapterCard(name="", base_sha256="", adapter_sha256="", prompts={"validator": prompt_version(VALIDATOR)},
                calibration={"validator.verdict": FieldCalibration(temperature=1.0, bias=bias)})  # fmt: skip
    desk = replace(scripted_desk([READS_WELL]), card=card, pruned=card)
    run(request_for("hormuz-blockade"), desk)
    rows = [row for row in placements_of("run-1", desk.ledger) if row.agent == "validator"]
    assert rows
    assert all(row.ended in ("answered", "from the ledger") for row in rows)


def test_a_task_that_went_elsewhere_shows_both_placements(scripted_desk: MakeDesk) -> None:
    down = {"when": "What kind of event", "fail": "out of memory"}
    desk = scripted_desk([down], [READS_WELL])
    run(request_for("hormuz-blockade"), desk)
    rows = [row for row in placements_of("run-1", desk.ledger) if row.agent == "narrative"]
    edge, deep = desk.broker.offers
    assert [row.chosen for row in rows[:2]] == [edge.name, deep.name]
    assert rows[0].ended == "no answer is on record"
    assert rows[1].refused[edge.name] == "failed on this task: out of memory"


def test_the_report_says_what_the_run_cost_and_where_that_comes_from(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    report = run(request_for("hormuz-blockade"), desk).report
    assert report is not None
    assert report.spent is not None
    on_record = carried(desk.ledger, "run-1")
    assert report.spent.tokens == on_record.tokens > 0
    assert report.spent.joules is not None
    assert on_record.joules is not None
    assert report.spent.joules.value == pytest.approx(on_record.joules.value)
    assert report.spent.joules.provenance == "table"
    assert report.spent.grams is None
    assert "## What it cost" in to_markdown(report)
    assert "J (table)" in trace_story("run-1", desk.ledger)


def test_joules_are_a_hard_stop_and_a_resumed_run_does_not_get_them_back(scripted_desk: MakeDesk) -> None:
    desk = scripted_desk([READS_WELL], [READS_WELL])
    little = BudgetEntry(seconds=None, tokens=None, deep_tokens=None, joules=1.0)
    poor = request_for("hormuz-blockade", budget=little, shocks=())
    with pytest.raises(BudgetExceeded, match=r"event was not read .*of 1 joules are spent"):
        run(poor, desk)
    spent = carried(desk.ledger, "run-1").of("joules")
    assert spent >= 1.0
    rich = BudgetEntry(seconds=None, tokens=None, deep_tokens=None, joules=1e6)
    report = go_on(desk, budget=rich).report
    assert report is not None
    assert report.spent is not None
    assert report.spent.joules is not None
    assert report.spent.joules.value == pytest.approx(carried(desk.ledger, "run-1").of("joules"))
    assert report.spent.joules.value > spent


def test_a_budget_in_grams_needs_a_grid(scripted_desk: MakeDesk) -> None:
    green = request_for("hormuz-blockade", budget=BudgetEntry(seconds=None, tokens=None, deep_tokens=None, grams=5.0))
    with pytest.raises(InputError, match="needs the grid's intensity"):
        run(green, scripted_desk([READS_WELL]))


@pytest.mark.parametrize("text", ["0.1", "a,b", "-1,2", "nan,1", "1,2,3", "inf,1"])
def test_a_price_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="FINLLM_VLLM_USD_PER_MTOK"):
        token_prices(text, "FINLLM_VLLM_USD_PER_MTOK")


def test_backends_are_shown_by_what_tells_them_apart() -> None:
    names = {"edge:m+a:Q4_0", "deep:m+a:F16", "deep:big@host:8000", "deep:big@host:8001", "plain"}
    assert short_names(names) == {
        "edge:m+a:Q4_0": "edge:Q4_0", "deep:m+a:F16": "deep:F16", "deep:big@host:8000": "deep:8000",
        "deep:big@host:8001": "deep:8001", "plain": "plain",
    }  # fmt: skip
