"""The report on a terminal."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from finllm.cli.display.report import report_view, table
from finllm.graphs.report import Report


def shown(report: Report, *, terminal: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=140, force_terminal=terminal, highlight=False, markup=False, emoji=False
    )
    console.print(report_view(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_summary_comes_before_what_it_rests_on(report: Report) -> None:
    text = shown(report)
    order = ["The book loses a tenth", "The event as read", "Shocks", "P&L by factor", "P&L by position", "Interval",
             "Closest past event", "Limit breaches", "Who dissented", "What was blocked", "Sources",
             "Notes"]  # fmt: skip
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_shows_shocks_with_size_and_origin_and_why_one_was_refused(report: Report) -> None:
    text = shown(report)
    oil = next(line for line in text.splitlines() if "OIL_WTI" in line and "user" in line)
    assert "+40.00 %" in oil
    assert "+4.2 σ" in oil
    assert "withheld by the validator" in text


def test_ten_largest_positions_and_the_sum_of_the_others(report: Report) -> None:
    body = shown(report).split("P&L by position")[1].split("Interval")[0]
    assert [f"POS{at:02}" in body for at in range(1, 13)] == [False, False] + [True] * 10
    others = next(line for line in body.splitlines() if line.startswith("others"))
    assert "-3,000 USD" in others
    assert "2 other rows" in others


def test_every_number_stands_with_its_evidence(report: Report) -> None:
    text = shown(report)
    assert f"-118,000 USD   {report.by_factor['EQUITY_US'].evidence}" in text
    low = report.interval[0] if report.interval else None
    assert low
    assert f"-120,000 USD [{low.evidence}] to" in text


def test_says_who_dissented_what_was_blocked_and_who_abstained(report: Report) -> None:
    text = shown(report)
    assert "stress-tester on GOLD: apply, instead of refuse" in text
    assert "GOLD up: nothing speaks of it" in text
    assert "EQUITY_US loses more than its limit" in text
    assert "the backend failed" in text
    assert "Invasion of Kuwait, 1990-08-02 to 1990-10-11: the book would move by -91,000 USD" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_source_text_is_data(report: Report, terminal: bool) -> None:
    text = shown(report, terminal=terminal)
    assert "[bold]for a month[/bold]" in text
    assert "[red]Blog[/red]" in text
    assert "\x1b]0;" not in text
    assert "\x07" not in text
    assert "\u202e" not in text


def test_blocked_report_and_abstention_say_so(report: Report) -> None:
    text = shown(report.model_copy(update={"status": "blocked", "event": None, "interval": None, "analogue": None}))
    assert "BLOCKED by compliance" in text
    assert "The narrative agent abstained" in text
    assert "None: no holding has a history." in text
    assert "None was found." in text


def test_a_table_of_50_000_rows_shows_the_first_and_says_where_all_are_in_little_time() -> None:
    rows = [(f"P{at}", f"{at:,}") for at in range(50_000)]
    wide = Console(file=io.StringIO(), width=120)
    start = time.process_time()
    wide.print(table(("position", "USD"), rows, right=(1,)))
    assert time.process_time() - start < 2.0
    assert isinstance(wide.file, io.StringIO)
    shown = wide.file.getvalue().splitlines()
    assert len(shown) == 1000 + 3
    assert shown[-1].strip() == "the first 1,000 of 50,000 rows; --json has all of them"
    few = Console(file=io.StringIO(), width=120)
    few.print(table(("position", "USD"), rows[:1000]))
    assert isinstance(few.file, io.StringIO)
    assert "--json" not in few.file.getvalue()
