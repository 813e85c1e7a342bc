"""`finllm run` with several scenarios: they run side by side, and are shown as a table of runs."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from finllm.cli.display.terminal import out_console, print_json
from finllm.events import EventBus, Noted
from finllm.plain_text import clean
from finllm.sessions.batch_driver import BatchWanted, drive_batch
from finllm.sessions.requests import Checked
from finllm.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finllm.desk.desk import Desk
    from finllm.sessions.batch import Batch
    from finllm.sessions.batch_report import BatchReport, BatchRow
    from finllm.tools.data.scenario import BudgetEntry


_STYLES = {"finished": "", "blocked": "yellow", "failed": "bold red"}


@dataclass(frozen=True)
class Shown:
    """How a batch is shown: one JSON object, and whether anything is said while it runs."""

    as_json: bool
    quiet: bool


def run_scenarios(checked: dict[str, Checked], settings: Settings, wanted: BatchWanted, shown: Shown) -> None:
    """Run checked scenarios as a batch: the one that was begun on the same inputs and has not ended, or a new one."""
    wanted_runs = [(name, one.request) for name, one in checked.items()]
    notes = list(dict.fromkeys(note for one in checked.values() for note in one.notes))

    def choose(desk: Desk) -> Batch:
        from finllm.sessions.batch import open_batch

        return open_batch(wanted_runs, desk, dt.datetime.now(dt.UTC), secrets.token_hex(2))

    _carry_out(choose, settings, wanted, shown, notes)


def go_on(batch: Batch, settings: Settings, wanted: BatchWanted, shown: Shown, budget: BudgetEntry | None) -> None:
    """Go on with a batch on record; runs that ended give their report again."""
    _carry_out(lambda _desk: batch, settings, wanted, shown, (), budget)


def _carry_out(
    choose: Callable[[Desk], Batch], settings: Settings, wanted: BatchWanted, shown: Shown, notes: Sequence[str],
    budget: BudgetEntry | None = None,
) -> None:  # fmt: skip
    from finllm.cli.display.batch import open_batch_display
    from finllm.sessions.batch_report import write_summaries

    with open_batch_display(as_json=shown.as_json, quiet=shown.quiet) as display:
        bus = EventBus(display)
        for note in notes:
            bus.emit(Noted(level="info", message=note))
        report = drive_batch(choose, settings, bus, wanted, budget)
        write_summaries(report, wanted.junit, wanted.summaries, wanted.heatmaps)
        for path in (wanted.junit, *wanted.summaries, *wanted.heatmaps):
            if path is not None:
                bus.emit(Noted(level="info", message=f"wrote {str(path)!r}"))
    if shown.as_json:
        print_json(report.to_json())
    else:
        out_console().print(batch_view(report))
    if code := report.exit_code:
        raise typer.Exit(code)


def batch_view(report: BatchReport) -> RenderableType:
    """The table, what failed with its mend, and the counts."""
    from rich.console import Group
    from rich.text import Text

    from finllm.cli.display.report import table, text
    from finllm.tools.evidence import money as in_money
    from finllm.tools.evidence import show
    from finllm.tools.pnl.coverage import down

    def money(row: BatchRow) -> str:
        return "-" if row.total is None else show(row.total, in_money(row.currency or "USD"))

    rows = [
        (row.scenario, text(row.failed_on or row.status, _STYLES["failed"] if row.failed_on else _STYLES[row.status]),
         money(row), "-" if row.total_share is None else show(row.total_share, "return"), row.verdict or "-",
         row.compliance or "-", "-" if row.covered is None else text(f"{down(row.covered)} %",
                                                                     "" if row.complete else "bold red"),
         "-" if row.breaches is None else str(row.breaches), f"{row.seconds:.1f}", row.run_id)
        for row in report.rows
    ]  # fmt: skip
    header = ("scenario", "status", "P&L", "share", "text, market", "compliance", "coverage", "breaches", "s", "run")
    failed: list[Text] = []
    for row in report.rows:
        if row.error_kind is not None:
            failed += [
                text(f"{row.scenario}: {row.error_message}", "bold red"),
                Text(f"  fix: {clean(row.error_fix or '')}"),
            ]
    counts = ", ".join(f"{count} {name}" for name, count in report.counts().items())
    incomplete = any(row.complete == 0 for row in report.rows)
    return Group(
        text(report.headline, "bold red" if incomplete else "bold"),
        Text(),
        table(header, rows, right=(2, 3, 6, 7, 8)),
        Text(),
        *failed,
        text(f"batch {report.id}: {counts}"),
    )
