"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import datetime as dt
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from finllm.errors import InputError
from finllm.files import check_folder, write_files

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finllm.sessions.failing import Against
    from finllm.settings import Settings
    from finllm.tools.data.scenario import BudgetEntry
    from finllm.tools.export import Format

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, errors included.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", "-q", help="No talk on stderr but errors.")]
BudgetOption = Annotated[
    str | None,
    typer.Option("--budget", metavar="20s,5000tokens,500deep,2kJ,12g,$0.05",
                 help="What the run may spend: seconds, model tokens, tokens of the deep tier, joules, gCO₂e, dollars. "
                      "A hard limit: who it does not reach for is not asked."),
]  # fmt: skip
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR",
                 help="Folder of report.json, report.md and trace.jsonl.  \\[default: $FINLLM_HOME/runs/RUN]"),
]  # fmt: skip
AsOfOption = Annotated[
    str | None,
    typer.Option("--as-of", metavar="YYYY-MM-DD", help="Last day, after the close, of which anything may be known."),
]


DeferOption = Annotated[
    str | None,
    typer.Option("--defer", metavar="8h", help="Wait for the cleanest moment by FINLLM_CARBON, so that the work is "
                                               "done within so many hours (h) or minutes (min)."),
]  # fmt: skip


LONGEST_WAIT = 168 * 3600.0


class FailOn(StrEnum):
    breach = "breach"
    block = "block"
    incomplete = "incomplete"


FailOnOption = Annotated[
    list[FailOn] | None,
    typer.Option("--fail-on", help="Exit with 3 if a limit is breached or could not be checked, if the result is "
                                   "blocked, or if too much of the book is not covered. May be repeated."),
]  # fmt: skip


def examples(*commands: str) -> str:
    """The closing part of a help page."""
    return "\n\n".join(["Examples:", *(f"  {command}" for command in commands)])


def help_if_alone(context: typer.Context) -> None:
    """Show the help page of a group that was called without a subcommand."""
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


def parse_as_of(text: str | None) -> dt.date | None:
    """A day written as 2022-06-30. Errors: InputError for anything else."""
    if text is None:
        return None
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007  a day has no time zone
    except ValueError as error:
        raise InputError(f"--as-of {text!r} is not a date", fix="write it as 2022-06-30") from error


def parse_budget(text: str | None) -> BudgetEntry | None:
    """A budget written as `20s,5000tokens,500deep,2kJ,12g,$0.05`. Errors: InputError for anything else."""
    from finllm.tools.data.budget_text import parse_budget_text
    from finllm.tools.data.scenario import BudgetEntry

    if text is None:
        return None
    try:
        return BudgetEntry.model_validate(parse_budget_text(text))
    except InputError as error:
        raise InputError(f"--{error.message}", fix=error.fix) from error


def parse_window(text: str | None) -> float | None:
    """A window written as `8h` or `90min`, in s. Errors: InputError for anything else, or one above a week."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,4}(?:\.\d+)?)\s*(h|min)", text.strip())
    seconds = float(found[1]) * (3600.0 if found[2] == "h" else 60.0) if found else 0.0
    if not 0 < seconds <= LONGEST_WAIT:
        raise InputError(
            f"--defer {text!r} is no window", fix="write hours or minutes, such as 8h or 90min, up to 168h"
        )
    return seconds


def wait_for_cleaner(text: str | None, settings: Settings, seconds: float) -> None:
    """Wait for a cleaner hour where --defer asks for it; what is done stands on stderr. `seconds`: about how long the
    work takes. Errors: as `cleanest` and `parse_window`; Cancelled for a Ctrl-C while it waits.
    """
    window = parse_window(text)
    if window is None:
        return
    from finllm.desk import deferring

    def clock() -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    now = clock()
    start = deferring.cleanest(settings, now, window, seconds)
    print(f"--defer {text}: {deferring.words(start, now)}", file=sys.stderr, flush=True)
    deferring.wait_until(start.at, clock, time.sleep)


def check_out(out: Path | None) -> None:
    """The folder for files can be made. Errors: InputError."""
    if out is not None:
        check_folder(out, "--out")


def write_out(out: Path, contents: Mapping[str, bytes]) -> None:
    """Put a command's files into its --out, whole or not at all. Errors: FinllmError."""
    write_files(out, contents, fix="free some space or choose another folder with --out")


class Answer(Protocol):
    """What a command has found: its files, its JSON, and what speaks against it."""

    @property
    def against(self) -> Against: ...

    def files(self, formats: Sequence[Format]) -> dict[str, bytes]: ...

    def to_json(self) -> dict[str, object]: ...


_Answer = TypeVar("_Answer", bound=Answer)


def give(
    answer: _Answer, view: Callable[[_Answer], RenderableType], *, out: Path | None, formats: Sequence[Format],
    as_json: bool, fail_on: Iterable[str],
) -> None:  # fmt: skip
    """Write an answer's files, print it, and exit with 3 where --fail-on asks for what speaks against it."""
    from finllm.cli.display.terminal import out_console, print_json

    if out is not None:
        write_out(out, answer.files(formats))
    if as_json:
        print_json(answer.to_json())
    else:
        out_console().print(view(answer))
    if answer.against.failed_on(fail_on):
        raise typer.Exit(3)
