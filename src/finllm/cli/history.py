"""`finllm runs` and `finllm trace`: the runs on record, and the story of one."""

from __future__ import annotations

import contextlib
import datetime as dt
import shlex
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finllm.cli import search
from finllm.cli.display.terminal import print_json
from finllm.cli.options import JsonFlag, examples, help_if_alone
from finllm.errors import InputError
from finllm.plain_text import clean, clean_lines, cut
from finllm.settings import Settings, load_settings

if TYPE_CHECKING:
    from finllm.memory.reading import LedgerReader, RunHead, RunRow
    from finllm.sessions.batch import Batch


WIDTH = 80
"""Columns that a list of runs fits."""
SHOWN = 25
"""Runs that are listed unless told otherwise."""


class Form(StrEnum):
    """How a story is told."""

    md = "md"
    html = "html"
    json = "json"


def add_to(app: typer.Typer) -> None:
    runs = typer.Typer(
        help="The runs on record.",
        epilog=examples(
            "finllm runs list", "finllm runs list --search 'hormuz interrupted'", "finllm runs list --limit 100 --json"
        ),
    )
    runs.callback(invoke_without_command=True)(help_if_alone)
    runs.command("list")(list_runs)
    search.add_to(runs)
    app.add_typer(runs, name="runs")
    app.command("trace", epilog=examples(
        "finllm trace 20220630-081500-hormuz-closed-for-a-month-1f3a",
        "finllm trace 20220630-081500-hormuz-closed-for-a-month-1f3a --evidence E71",
        "finllm trace 20220630-081500-hormuz-closed-for-a-month-1f3a --format html > trace.html",
    ))(trace)  # fmt: skip


def list_runs(
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, metavar="N", help="The newest N.  \\[default: 25; JSON: all]")
    ] = None,
    search: Annotated[
        str | None, typer.Option("--search", "-s", metavar="TEXT", help="Only runs whose id, title or status has each "
                                                                        "of these words.")] = None,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """List the runs on record, newest first: each one's id and where it stands, when it began, and its title.

    A run is running while a process holds it, and interrupted where that died before the end: `finllm resume` goes on.
    """
    most = limit if limit is not None or as_json else SHOWN
    with listing(load_settings().settings) as ledger:
        if search is None:
            rows = ledger.runs(most) if ledger else []
            more = ledger.count_runs() - len(rows) if ledger and most is not None else 0
        else:
            found = [row for row in ledger.runs() if _has(row, search)] if ledger else []
            rows = found[:most]
            more = len(found) - len(rows)
    if as_json:
        print_json({"runs": [_as_json(row) for row in rows], **({} if limit is None else {"more": more})})
        return
    wide = max((len(row.id) for row in rows), default=0)
    print("\n".join(line for row in rows for line in _as_lines(row, wide)) or "None.")
    if more:
        again = "" if search is None else f" --search {shlex.quote(search)}"
        print(f"{more:,} older: finllm runs list --limit {len(rows) + more}{again}")


def _has(row: RunHead, search: str) -> bool:
    told = f"{row.id} {row.title} {row.status}".casefold()
    return all(word in told for word in search.casefold().split())


def _as_json(row: RunHead) -> dict[str, Any]:
    running = row.holder if row.status == "running" else None
    return {"id": row.id, "when": _when(row), "title": row.title, "status": row.status,
            "holder": None if running is None else running.to_json()}  # fmt: skip


def _as_lines(row: RunHead, wide: int) -> Iterator[str]:
    """What a terminal of 80 columns shows in whole lines; ids and dates are for copying, so titles give way."""
    yield f"{clean(row.id):<{wide}}  {row.status}"
    yield f"  {_when(row)}  {cut(clean(row.title), WIDTH - 24)}".rstrip()
    if row.status == "running" and row.holder is not None:
        yield f"  held by {row.holder}"


def trace(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The id that 'finllm runs list' shows.")],
    as_json: JsonFlag = False,
    form: Annotated[
        Form | None,
        typer.Option("--format", help="Markdown, a self-contained HTML page, or as --json.  \\[default: text]"),
    ] = None,
    evidence: Annotated[
        list[str] | None, typer.Option("--evidence", "-e", metavar="ID", help="Open this row instead, such as E71: its "
                                       "formula done again, its terms, its series, file or source text. Repeatable.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option(help="Do all tools of the run again where nothing else finds a row's value: takes seconds.")
    ] = True,
) -> None:  # fmt: skip
    """Print the story of a run: the verdict, each claim with its evidence, who judged what, what was blocked, costs.

    With --evidence it exits with 1 where a row's value does not come out again, or what it stands on was changed.
    """
    if as_json and form not in (None, Form.json):
        raise InputError(f"--json and --format {form} are two forms", fix="give one of them")
    settings = load_settings().settings
    find_run(run_id, settings)
    if evidence:
        from finllm.cli.display.opened import show_opened

        show_opened(run_id, evidence, settings, rebuild=rebuild, form=Form.json if as_json else form)
        return
    from finllm.review.trace import trace_html, trace_markdown, trace_rows, trace_story
    from finllm.review.trace_tables import trace_tables

    with reading(settings) as ledger:
        assert ledger is not None
        if as_json or form is Form.json:
            tables = [one.model_dump(mode="json") for one in trace_tables(run_id, ledger)]
            print_json({"run": run_id, "tables": tables, "rows": trace_rows(run_id, ledger)})
            return
        tell = {Form.md: trace_markdown, Form.html: trace_html}.get(form, trace_story) if form else trace_story
        print(clean_lines(tell(run_id, ledger)), end="")


def find_run(run_id: str, settings: Settings) -> RunRow:
    """A run on record. Errors: InputError for an unknown one. Loads no model, makes no ledger."""
    with reading(settings) as ledger:
        row = ledger.run(run_id) if ledger else None
    if row is None:
        raise InputError(f"no run {run_id!r}", fix="'finllm runs list' shows those on record")
    return row


def batch_on_record(batch_id: str, settings: Settings) -> Batch | None:
    """A batch on record, or None. Loads no model, makes no ledger."""
    from finllm.sessions.batch import find_batch

    with reading(settings) as ledger:
        return find_batch(batch_id, ledger) if ledger else None


@contextlib.contextmanager
def reading(settings: Settings) -> Iterator[LedgerReader | None]:
    """The ledger, only to read, held against the audit log; None where nothing was recorded yet."""
    from finllm.guardrails.audit.reading import open_reading

    if not _anything(settings):
        yield None
        return
    with open_reading(settings, _told) as ledger:
        yield ledger


@contextlib.contextmanager
def listing(settings: Settings) -> Iterator[LedgerReader | None]:
    """The ledger for a list of what there is, which holds nothing against the log; None where there is nothing."""
    from finllm.memory.database import Patience
    from finllm.memory.reading import LedgerReader

    if not _anything(settings):
        yield None
        return
    with contextlib.closing(LedgerReader(settings.ledger_path, Patience.of(settings, _told))) as ledger:
        yield ledger


def _anything(settings: Settings) -> bool:
    """Whether anything was recorded. Errors: InputError for a home that is there and can hold nothing."""
    if settings.home.exists() and not settings.home.is_dir():
        raise InputError(f"the home {str(settings.home)!r} is no folder", fix="set FINLLM_HOME to a folder")
    return settings.ledger_path.exists()


def _told(line: str) -> None:
    """A wait for a lock, say, told on stderr."""
    print(clean(line), file=sys.stderr)


def _when(row: RunHead) -> str:
    return dt.datetime.fromtimestamp(row.created_ns / 1e9, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
