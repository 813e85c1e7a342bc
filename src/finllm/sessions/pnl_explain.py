"""P&L explain as a question and its answer: two books, two days, or two runs on record; no model is asked."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finllm.errors import InputError
from finllm.sessions.inputs import last_day, open_market, thresholds_of, wanted_currency
from finllm.settings import load_settings

if TYPE_CHECKING:
    from finllm.memory.reading import RunRow
    from finllm.settings import Settings
    from finllm.tools.export import Table
    from finllm.tools.pnl.explained import Explained, Stressed


def explain_files(
    old: Path, new: Path, start: dt.date | None, end: dt.date | None, prices: Sequence[Path], currency: str | None
) -> Explained:
    """The change of value from one book to another, or of one book between two days. Errors: InputError."""
    from finllm.tools.data.books.load import load_portfolio
    from finllm.tools.pnl.asked import sectors_of
    from finllm.tools.pnl.explained import explain_books
    from finllm.tools.pnl.factorset import FactorSet

    market = open_market(prices)
    last = end or last_day(market)
    first = start or last
    before, after = load_portfolio(old), load_portfolio(new)
    if old.resolve() == new.resolve() and first == last:
        raise InputError("one book on one day is no difference", fix="give two books, or --from and --to")
    factors = FactorSet.of(market, (), (), sectors_of(before), first)
    return explain_books(before, after, market, first, last, wanted_currency(currency), factors,
                         thresholds_of(load_settings().settings))  # fmt: skip


def explain_on_record(old: RunRow, new: RunRow, settings: Settings) -> Explained:
    """The difference of what two runs say that their books lose. Errors: InputError for one without a report."""
    from finllm.tools.pnl.explained import explain_runs

    return explain_runs(_stressed(old, settings), _stressed(new, settings))


def _stressed(row: RunRow, settings: Settings) -> Stressed:
    from finllm.desk.request import RunRequest
    from finllm.graphs.report import Report
    from finllm.tools.pnl.ageing import days_to
    from finllm.tools.pnl.asked import scenario_factors
    from finllm.tools.pnl.explained import Stressed

    if row.result is None:
        raise InputError(f"run {row.id!r} has no report", fix=f"go on with it: finllm resume {row.id}")
    request, report = RunRequest.model_validate(row.request), Report.model_validate(row.result)
    market = request.market(settings.data_dir)
    moves = {one.factor: one.move.value for one in report.shocks if one.refused is None}
    passed = days_to(request.as_of, dt.date.fromisoformat(report.aged)) if report.aged else 0
    return Stressed(
        request.portfolio, market, request.as_of, scenario_factors(request.scenario, market, request.portfolio), moves,
        report.total.value, report.currency, passed,
    )  # fmt: skip


def explained_tables(found: Explained) -> tuple[Table, ...]:
    """The parts, and the difference by position."""
    from finllm.tools.export import Table

    return (
        Table("parts", ("kind", "name", "amount"), tuple((one.kind, one.name, one.amount) for one in found.parts)),
        Table("by_position", ("position", "difference"), tuple(found.by_position.items())),
    )
