"""`finllm refine`: a run's report verified at the deep tier, and made anew where that judges otherwise."""

from __future__ import annotations

import datetime as dt
import secrets
from typing import TYPE_CHECKING, Annotated

import typer

from finllm import running
from finllm.cli.display.terminal import print_json
from finllm.cli.history import find_run
from finllm.cli.options import JsonFlag, QuietFlag, examples
from finllm.errors import Cancelled
from finllm.events import EventBus
from finllm.plain_text import clean_lines
from finllm.sessions.requests import check_model
from finllm.settings import load_settings

if TYPE_CHECKING:
    from finllm.desk.desk import Desk
    from finllm.sessions.refine import Refined


def add_to(app: typer.Typer) -> None:
    run = "20220630-081500-hormuz-closed-for-a-month-1f3a"
    app.command(epilog=examples(f"finllm refine {run}", f"finllm refine {run} --json"))(refine)


def refine(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The id that 'finllm runs list' shows.")],
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Verify a run that ended: every judgement is asked for at the deep tier's precision.

    Where all are the same, the report is confirmed. Where one differs, a new version of the run is made from it on, and
    what that changed in the result is told. The run itself is not touched.
    """
    settings = load_settings().settings
    find_run(run_id, settings)
    check_model(settings)
    from finllm.cli.display.events import open_display
    from finllm.desk.desk import open_desk

    with open_display(as_json=as_json, quiet=quiet) as display:
        try:
            with open_desk(settings, EventBus(display)) as desk:
                found = running.run(verified(run_id, desk))
                text = refined_text(found, desk)
        except KeyboardInterrupt as error:
            raise Cancelled(f"the verification of {run_id!r} was interrupted; its answers are kept, and so is the run",
                            fix=f"go on with: finllm refine {run_id}") from error  # fmt: skip
    if as_json:
        print_json(found.to_json())
    else:
        print(clean_lines(text), end="")


async def verified(run_id: str, desk: Desk) -> Refined:
    """Verify a run in a draft with an id of its own."""
    from finllm.graphs.flow import new_run_id
    from finllm.sessions.refine import refine_run

    title = f"draft of {run_id.partition('-')[2].partition('-')[2] or run_id}"
    return await refine_run(run_id, desk, new_run_id(title, dt.datetime.now(dt.UTC), secrets.token_hex(2)))


def refined_text(found: Refined, desk: Desk) -> str:
    """What came of it, as text."""
    from finllm.review.diff import diff_runs, told_change

    at = f"version {found.version} of {found.run_id}"
    if found.outcome == "waiting":
        return (
            f"The draft {found.draft} asks a person; {at} stands until then.\n"
            f"Answer with: finllm resume {found.draft} --answer withhold|accept\n"
            f"Then go on with: finllm refine {found.run_id}\n"
        )
    if found.outcome == "confirmed":
        return f"Confirmed: at {found.precision} every judgement of {at} is the same.\n"
    judged = [f"  {one}" for one in found.revisions]
    if found.outcome == "dropped":
        lines = [f"Dropped: {found.newest} became the next version meanwhile; this draft, {found.draft}, is on record."]
        return "\n".join([*lines, f"At {found.precision} it judges:", *judged]) + "\n"
    result = [f"  {told_change(change)}" for change in diff_runs(found.base, found.draft, desk.ledger).result]
    lines = [f"Version {found.version + 1} of {found.run_id} is {found.draft}; at {found.precision} the agents judge:"]
    return "\n".join([*lines, *judged, "What that changed in the result:", *(result or ["  nothing"])]) + "\n"
