"""`finllm runs` and `finllm trace`: the runs on record, and the story of one."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import JsonFlag, examples, help_if_alone
from finllm.errors import InputError
from finllm.plain_text import clean_lines
from finllm.settings import Settings, load_settings

if TYPE_CHECKING:
    from finllm.memory.ledger import Ledger, RunRow
    from finllm.sessions.batch import Batch


class Form(StrEnum):
    """How a story is told."""

    md = "md"
    html = "html"
    json = "json"


def add_to(app: typer.Typer) -> None:
    runs = typer.Typer(help="The runs on record.", epilog=examples("finllm runs list", "finllm runs list --json"))
    runs.callback(invoke_without_command=True)(help_if_alone)
    runs.command("list")(list_runs)
    app.add_typer(runs, name="runs")
    app.command("trace", epilog=examples(
        "finllm trace 20220630-081500-hormuz-closed-for-a-month-1f3a",
        "finllm trace 20220630-081500-hormuz-closed-for-a-month-1f3a --format html > trace.html",
    ))(trace)  # fmt: skip


def list_runs(as_json: JsonFlag = False) -> None:
    """List every run on record: its id, when it began, its title and where it stands; newest first."""
    with _ledger(load_settings().settings) as ledger:
        rows = ledger.runs() if ledger else []
    if as_json:
        print_json({"runs": [{"id": row.id, "when": _when(row), "title": _title(row), "status": row.status}
                             for row in rows]})  # fmt: skip
        return
    from finllm.cli.display.report import table

    shown = [(row.id, _when(row), _title(row), row.status) for row in rows]
    out_console().print(table(("run", "when", "title", "status"), shown, whole=(0,)))


def trace(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The id that 'finllm runs list' shows.")],
    as_json: JsonFlag = False,
    form: Annotated[
        Form | None,
        typer.Option("--format", help="Markdown, a self-contained HTML page, or as --json.  [default: text]"),
    ] = None,
) -> None:
    """Print the story of a run: the verdict, each claim with its evidence, who judged what, what was blocked, costs."""
    if as_json and form not in (None, Form.json):
        raise InputError(f"--json and --format {form} are two forms", fix="give one of them")
    settings = load_settings().settings
    find_run(run_id, settings)
    from finllm.review.trace import trace_html, trace_markdown, trace_rows, trace_story

    with _ledger(settings) as ledger:
        assert ledger is not None
        if as_json or form is Form.json:
            print_json({"run": run_id, "rows": trace_rows(run_id, ledger)})
            return
        tell = {Form.md: trace_markdown, Form.html: trace_html}.get(form, trace_story) if form else trace_story
        print(clean_lines(tell(run_id, ledger)), end="")


def find_run(run_id: str, settings: Settings) -> RunRow:
    """A run on record. Errors: InputError for an unknown one. Loads no model, makes no ledger."""
    with _ledger(settings) as ledger:
        row = ledger.run(run_id) if ledger else None
    if row is None:
        raise InputError(f"no run {run_id!r}", fix="'finllm runs list' shows those on record")
    return row


def find_batch(batch_id: str, settings: Settings) -> Batch | None:
    """A batch on record, or None. Loads no model, makes no ledger."""
    from finllm.sessions.batch import find_batch as look_up

    with _ledger(settings) as ledger:
        return look_up(batch_id, ledger) if ledger else None


@contextlib.contextmanager
def _ledger(settings: Settings) -> Iterator[Ledger | None]:
    """The ledger, or None where nothing was recorded yet."""
    from finllm.memory.ledger import Ledger

    if not settings.ledger_path.exists():
        yield None
        return
    with contextlib.closing(Ledger(settings.ledger_path)) as ledger:
        yield ledger


def _when(row: RunRow) -> str:
    return dt.datetime.fromtimestamp(row.created_ns / 1e9, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _title(row: RunRow) -> str:
    return str(row.request["scenario"]["title"])
