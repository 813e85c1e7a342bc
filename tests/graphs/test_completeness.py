"""A run on half a book: the headline is the gap, the rule flags or blocks it, and no limit is passed unchecked."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from finllm.desk.desk import Desk
from finllm.graphs.report import Report, to_markdown
from finllm.tools.data.books.position import Portfolio, Position, Refused
from finllm.tools.data.limits import Limits
from finllm.tools.pnl.coverage import Thresholds
from tests.desks import request_for, run

MakeDesk = Callable[..., Desk]

HALF = Portfolio(
    name="half", uri="file:///half.csv", sha256="0" * 64,
    positions=(
        Position(id="AAPL", asset_class="equity", quantity=1000, sector="Tech"),
        Position(id="NEWCO", asset_class="equity", market_value=300_000.0, sector="Tech"),
        Position(id="OLDCO", asset_class="equity", market_value=250_000.0, sector="Industrials"),
    ),
)  # fmt: skip


def reported(make: MakeDesk, portfolio: Portfolio = HALF, **changes: Any) -> Report:
    request = request_for("hormuz-blockade")
    outcome = run(request.model_copy(update={"portfolio": portfolio, **changes}), make([]))
    assert outcome.report is not None
    return outcome.report


def test_the_headline_is_the_gap_and_the_rule_flags_it(scripted_desk: MakeDesk) -> None:
    report = reported(scripted_desk)
    assert report.coverage is not None
    assert not report.coverage.complete
    assert report.summary[0].startswith("81 % of the book is not stressed (such as NEWCO, OLDCO); what is stressed ")
    assert "moves by" in report.summary[0]
    assert "of its value" not in report.summary[0]
    found = {one.rule: one for one in report.findings}
    assert found["completeness"].verdict == "flag"
    assert "NEWCO" in found["completeness"].what
    rows = {row.id: row for row in report.evidence}
    assert [rows[id].value for id in found["completeness"].because] == [0.19, 0.0, 0.81, 0.0]
    assert report.compliance == "flag"
    assert "81 % of the book" in to_markdown(report).splitlines()[4]


def test_a_setting_makes_the_gap_block_the_report(scripted_desk: MakeDesk) -> None:
    report = reported(scripted_desk, thresholds=Thresholds(block=True))
    assert report.status == "blocked"
    assert {one.rule: one.verdict for one in report.findings}["completeness"] == "block"


def test_a_limit_that_could_not_be_checked_is_never_passed(scripted_desk: MakeDesk) -> None:
    limits = Limits(version=1, loss_by_sector={"industrials": 1e9, "Utilities": 1e9, "tech": 1.0}, total_loss=1e9)
    report = reported(scripted_desk, limits=limits)
    said = "\n".join(report.unchecked)
    assert "industrials (loss_by_sector): not checked: left out of it: OLDCO" in said
    assert "Utilities (loss_by_sector): not checked: no sector of that name" in said
    assert "book (total_loss): not checked: 81 % of the book is not stressed" in said
    assert {one.rule: one.verdict for one in report.findings}["limits"] == "flag"


def test_rules_with_nothing_to_look_at_are_not_checked_rather_than_passed(scripted_desk: MakeDesk) -> None:
    report = reported(scripted_desk, request_for("hormuz-blockade").portfolio, limits=Limits(version=1))
    found = {one.rule: one.verdict for one in report.findings}
    assert (found["limits"], found["restricted"], found["completeness"]) == ("not checked", "not checked", "pass")
    assert report.ruled.endswith("(not checked: limits, restricted)")
    assert report.summary[0].endswith("; 100 % of the book is covered.")


def test_a_refused_row_of_unknown_value_makes_a_run_incomplete(scripted_desk: MakeDesk) -> None:
    whole = request_for("hormuz-blockade").portfolio
    refused = Refused(id="XYZ", row=7, reason="no price")
    report = reported(scripted_desk, whole.model_copy(update={"refused": (refused,)}))
    assert report.summary[0].startswith("Positions of unknown value: 1 (such as XYZ); what is stressed")
    assert any("row 7 was refused: no price" in line for line in report.exclusions)


def test_a_restricted_name_that_is_left_out_is_still_held(scripted_desk: MakeDesk) -> None:
    report = reported(scripted_desk, limits=Limits(version=1, restricted=["newco"]))
    assert report.status == "blocked"
    assert "restricted names held: NEWCO" in {one.rule: one.what for one in report.findings}["restricted"]


@pytest.mark.parametrize(("as_of", "future", "said"), [
    (dt.date(2022, 7, 3), False, "This is no close on 2022-07-03, a Sunday: the last is of 2022-07-01."),
    (dt.date(2023, 3, 1), False, "This is as of 2023-03-01, past the data: they end on 2022-12-28, 63 days before."),
    (dt.date(2023, 3, 1), True, "This is as of 2023-03-01, which is in the future: the data end on 2022-12-28."),
])  # fmt: skip
def test_a_day_without_data_is_said_in_the_headline(
    scripted_desk: MakeDesk, as_of: dt.date, future: bool, said: str
) -> None:
    request = request_for("hormuz-blockade", as_of=as_of)
    report = reported(scripted_desk, request.portfolio, scenario=request.scenario, future=future)
    assert report.summary[1] == said


def test_the_closest_event_says_who_chose_it(scripted_desk: MakeDesk) -> None:
    report = reported(scripted_desk, request_for("hormuz-blockade").portfolio)
    assert report.analogue is not None
    assert "away in the factors' moves, channels or kind, region and severity" in (report.analogue.how or "")


def test_thousands_of_refused_rows_are_summed_up(scripted_desk: MakeDesk) -> None:
    rows = tuple(Refused(id=f"R{at}", row=at, reason="no price", market_value=1.0) for at in range(283))
    report = reported(scripted_desk, HALF.model_copy(update={"refused": rows}))
    assert len(report.exclusions) == 11
    assert report.exclusions[-1] == "and 275 more positions are left out"
