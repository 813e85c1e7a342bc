"""`finllm explain`: why a past run came out as it did, what would flip it, and whether its citations are faithful."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from finllm import running
from finllm.cli.display.terminal import print_json
from finllm.cli.history import Form, find_run
from finllm.cli.options import DeferOption, JsonFlag, QuietFlag, examples, wait_for_cleaner
from finllm.errors import Cancelled, InputError
from finllm.events import CallFinished, CallStarted, Event, EventBus, Noted, Placed
from finllm.plain_text import clean_lines
from finllm.sessions.requests import check_model
from finllm.settings import Settings, load_settings

if TYPE_CHECKING:
    from finllm.cli.display.events import Display
    from finllm.graphs.report import Report
    from finllm.review.explanation import Explanation

SECONDS = 180.0
CALLS = 400


def add_to(app: typer.Typer) -> None:
    run = "20220630-081500-hormuz-closed-for-a-month-1f3a"
    app.command(epilog=examples(f"finllm explain {run}", f"finllm explain {run} --format html > why.html",
                                f"finllm explain {run} --seconds 60 --json"))(explain)  # fmt: skip


def explain(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The id that 'finllm runs list' shows.")],
    form: Annotated[
        Form | None,
        typer.Option("--format", help="Markdown, a self-contained HTML page, or as --json.  \\[default: text]"),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1.0, help="Longest time to ask the models; what is left out is said.")
    ] = SECONDS,
    calls: Annotated[int, typer.Option("--calls", min=0, help="Most calls to models; answers on record are free.")] = (
        CALLS
    ),
    defer: DeferOption = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Explain a run that ended: each judgement is asked again without a line of its evidence, beside the result.

    The run itself is not touched. Everything asked is on record, and asking for the explanation again asks no more.
    """
    if as_json and form not in (None, Form.json):
        raise InputError(f"--json and --format {form} are two forms", fix="give one of them")
    settings = load_settings().settings
    row = find_run(run_id, settings)
    if row.result is None:
        raise InputError(f"run {run_id!r} is {row.status}: it has no result to explain", fix=f"finllm resume {run_id}")
    check_model(settings)
    wait_for_cleaner(defer, settings, seconds)
    from finllm.cli.display.events import open_display
    from finllm.graphs.report import Report

    with open_display(as_json=as_json or form is Form.json, quiet=quiet) as display:
        found = _explained(run_id, settings, display, seconds, calls)
    if as_json or form is Form.json:
        print_json(found.model_dump(mode="json"))
    else:
        print(clean_lines(explanation_text(found, Report.model_validate(row.result), form)), end="")


def explanation_text(explanation: Explanation, report: Report, form: Form | None = None) -> str:
    """The explanation as text, Markdown or HTML."""
    from finllm.review.explanation import explanation_story
    from finllm.review.story import as_html, as_markdown, as_text

    shape = {Form.md: as_markdown, Form.html: as_html}.get(form, as_text) if form else as_text
    return shape(explanation_story(explanation, report))


def _explained(run_id: str, settings: Settings, display: Display, seconds: float, calls: int) -> Explanation:
    from finllm.desk.desk import open_desk
    from finllm.review.explain import explain as ask
    from finllm.review.explanation import Bound

    def show(event: Event) -> None:
        if not isinstance(event, CallStarted | CallFinished | Placed):  # a hundred calls are no news
            display(event)

    bus = EventBus(show)
    try:
        with open_desk(settings, bus) as desk:
            found = running.run(ask(run_id, desk, Bound(seconds=seconds, calls=calls)))
    except KeyboardInterrupt as error:
        raise Cancelled(f"the explanation of {run_id!r} was interrupted; its answers are kept, and so is the run",
                        fix=f"go on with: finllm explain {run_id}") from error  # fmt: skip
    if not found.complete:
        bus.emit(Noted(level="warning", message=f"not everything was asked; go on with: finllm explain {run_id}"))
    return found
