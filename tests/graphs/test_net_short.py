"""Books that are net short, or worth nothing in all: shares are of gross value, so that a gain is a positive one."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from finllm.cli.display.report import report_view
from finllm.desk.desk import Desk
from finllm.graphs.nodes.report import nothing_moved
from finllm.graphs.report import Report, to_markdown
from finllm.guardrails.formula import misfit
from finllm.review.drawing import draw
from finllm.review.html import report_html, run_charts
from finllm.tools.data.books.load import load_portfolio
from finllm.tools.data.factors import UserShock
from finllm.tools.data.limits import Limits
from finllm.tools.data.market import MarketStore
from finllm.tools.evidence import EvidenceTable
from finllm.tools.pnl.engine import run_engine
from finllm.tools.pnl.outcome import EngineResult
from finllm.tools.pnl.reverse import reverse
from tests.desks import request_for, run

MakeDesk = Callable[..., Desk]
AS_OF = dt.date(2022, 6, 30)
HEADER = "id,market_value,currency,asset_class,sector,beta\n"
BOOKS = {
    "net short": ("A,1000000,USD,equity,Tech,1\nB,-3000000,USD,equity,Banks,1\n", -2e6, 4e6),
    "zero": ("A,1000000,USD,equity,Tech,1.5\nB,-1000000,USD,equity,Banks,0.5\n", 0.0, 2e6),
    "long": ("A,1000000,USD,equity,Tech,1\nB,3000000,USD,equity,Banks,1\n", 4e6, 4e6),
    "worth nothing": ("A,0,USD,equity,Tech,1\n", 0.0, 0.0),
}


def book_file(folder: Path, name: str) -> Path:
    path = folder / "book.csv"
    path.write_text(HEADER + BOOKS[name][0], encoding="utf-8")
    return path


def stressed(folder: Path, name: str) -> EngineResult:
    shock = UserShock(factor="EQUITY_US", amount=-0.1, in_sigmas=False)
    return run_engine(load_portfolio(book_file(folder, name)), MarketStore(), AS_OF, 20, [shock])


@pytest.mark.parametrize(
    ("name", "share", "words"),
    [
        ("net short", 0.05, "of the book's gross value"),
        ("zero", -0.05, "of the book's gross value"),
        ("long", -0.1, "of the book"),
    ],
)
def test_a_share_is_of_gross_value_and_has_the_sign_of_the_gain(
    tmp_path: Path, name: str, share: float, words: str
) -> None:
    result = stressed(tmp_path, name)
    assert (float(result.book_value), float(result.gross_value or 0)) == BOOKS[name][1:]
    assert result.share == pytest.approx(share)
    assert result.of_what == words


def test_a_book_worth_nothing_has_no_share(tmp_path: Path) -> None:
    assert stressed(tmp_path, "worth nothing").share is None


def test_a_share_to_lose_is_of_gross_value_too(tmp_path: Path) -> None:
    market = MarketStore()
    for name in ("net short", "zero"):
        book = load_portfolio(book_file(tmp_path, name))
        assert float(reverse(book, market, AS_OF, 20, 0.01).target) == pytest.approx(0.01 * BOOKS[name][2])


def reported(desk: Desk, folder: Path, name: str) -> Report:
    changed = {"portfolio": load_portfolio(book_file(folder, name)), "limits": Limits(version=1)}
    report = run(request_for("hormuz-blockade").model_copy(update=changed), desk).report
    assert report is not None
    return report


def test_every_form_of_a_report_prints_a_gain_of_a_net_short_book_as_a_positive_share(
    scripted_desk: MakeDesk, tmp_path: Path
) -> None:
    falls = {"when": "What kind of event", "say": {"factors.EQUITY_US.direction": "down"}}
    report = reported(scripted_desk([falls], [falls]), tmp_path, "net short")
    assert report.total.value > 0
    assert report.total_share is not None
    assert report.total_share.value == pytest.approx(report.total.value / 4e6)
    shown = str(report.total_share)
    terminal = Console(file=io.StringIO(), width=200)
    terminal.print(report_view(report))
    assert isinstance(terminal.file, io.StringIO)
    html = report_html(report, draw(run_charts(report)))
    for form in (terminal.file.getvalue(), to_markdown(report), html.replace("\N{MINUS SIGN}", "-")):
        assert shown in form
        assert "gross value" in form
        assert shown.replace("+", "-") not in form
    table = EvidenceTable(report.evidence)
    assert not [row.id for row in report.evidence if misfit(row, table)]


def test_a_book_worth_nothing_is_told_without_a_share(scripted_desk: MakeDesk, tmp_path: Path) -> None:
    report = reported(scripted_desk([]), tmp_path, "worth nothing")
    assert report.total_share is None
    assert "%" not in report.summary[0].split(";")[0]
    assert "worth nothing" in report_html(report, draw(run_charts(report)))


@pytest.mark.parametrize("applied", [True, False])
def test_no_shock_was_applied_is_said_only_where_none_was(applied: bool) -> None:
    assert ("No shock was applied" in nothing_moved(applied=applied)) is not applied


def test_a_book_that_does_not_answer_to_its_shocks_is_not_told_that_none_was_applied(
    scripted_desk: MakeDesk, tmp_path: Path
) -> None:
    report = reported(scripted_desk([]), tmp_path, "worth nothing")
    assert any(row.refused is None for row in report.shocks)
    assert any("were applied" in line for line in report.summary)
    assert not any("No shock was applied" in line for line in report.summary)
