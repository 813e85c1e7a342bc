"""A run whose scenario lets time pass: said in every form of its report, in its evidence and by P&L explain."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from finllm.cli.display.report import report_view
from finllm.desk.desk import Desk
from finllm.graphs.report import Report, to_markdown
from finllm.guardrails.formula import misfit
from finllm.review.drawing import draw
from finllm.review.html import report_html, run_charts
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.limits import Limits
from finllm.tools.data.market import MarketStore
from finllm.tools.evidence import EvidenceTable
from finllm.tools.pnl.asked import scenario_factors
from finllm.tools.pnl.explained import Stressed, explain_runs
from finllm.tools.pnl.outcome import TIME
from tests.desks import request_for, run

MakeDesk = Callable[..., Desk]
ROWS = """id,market_value,currency,asset_class,sector,underlying,option_type,strike,expiry,volatility
PUTS,1000000,USD,option,Options,SP500,put,3400,2022-09-30,0.22
"""


def reported(desk: Desk, folder: Path, *, age: bool) -> Report:
    (folder / "book.csv").write_text(ROWS)
    asked = request_for("hormuz-blockade")
    scenario = asked.scenario.model_copy(update={"age": age})
    changed = {"portfolio": load_portfolio(folder / "book.csv"), "limits": Limits(version=1), "scenario": scenario}
    report = run(asked.model_copy(update=changed), desk).report
    assert report is not None
    return report


def test_a_run_that_ages_says_so_in_every_form_and_in_its_evidence(scripted_desk: MakeDesk, tmp_path: Path) -> None:
    falls = {"when": "What kind of event", "say": {"factors.EQUITY_US.direction": "down"}}
    report = reported(scripted_desk([falls], [falls]), tmp_path, age=True)
    assert report.aged is not None
    terminal = Console(file=io.StringIO(), width=200)
    terminal.print(report_view(report))
    assert isinstance(terminal.file, io.StringIO)
    for form in (terminal.file.getvalue(), to_markdown(report), report_html(report, draw(run_charts(report)))):
        assert f"aged to {report.aged}" in form
        assert "Time passes" in form
    assert TIME in report.by_factor
    table = EvidenceTable(report.evidence)
    passed = next(row for row in report.evidence if row.what == "time that passes")
    assert passed.id in (table[report.by_position["PUTS"].evidence].formula or "")
    assert not [row.id for row in report.evidence if misfit(row, table)]


def test_a_run_without_it_is_written_as_before(scripted_desk: MakeDesk, tmp_path: Path) -> None:
    report = reported(scripted_desk([], []), tmp_path, age=False)
    assert "aged" not in report.model_dump()
    assert "time" not in report.by_factor


def test_what_time_did_to_one_of_two_runs_is_a_part_of_their_difference(tmp_path: Path) -> None:
    (tmp_path / "book.csv").write_text(ROWS)
    asked, market = request_for("hormuz-blockade"), MarketStore()
    book = load_portfolio(tmp_path / "book.csv")
    known = scenario_factors(asked.scenario, market, book)
    plain, aged = (Stressed(book, market, asked.as_of, known, {"EQUITY_US": -0.1}, 0.0, "USD", days)
                   for days in (0, 20))  # fmt: skip
    parts = {one.kind: one.amount for one in explain_runs(plain, aged).parts}
    assert parts["time"] < 0
