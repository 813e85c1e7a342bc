"""`finllm read`: how the narrative agent reads an event, without a portfolio."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finllm import running
from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import JsonFlag, QuietFlag, examples
from finllm.errors import InputError
from finllm.events import EventBus, Progress
from finllm.sessions.requests import check_model
from finllm.settings import Settings, load_settings

if TYPE_CHECKING:
    from finllm.agents.agent import Opinion
    from finllm.agents.narrative import Reading

MAX_CHARACTERS = 20_000
FIELDS = ("event", "region", "stance", "severity", "horizon")


def add_to(app: typer.Typer) -> None:
    app.command("read", epilog=examples(
        'finllm read "Mines close the Strait of Hormuz to tankers for a month"',
        "finllm read - --json < story.txt",
    ))(read)  # fmt: skip


def read(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Any event in plain words; - reads stdin.")],
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Show how the narrative agent reads an event: each field with the probability of its value, and every factor."""
    story = _story(text)
    settings = load_settings().settings
    check_model(settings)
    opinion = _ask(story, settings, as_json=as_json, quiet=quiet)
    if as_json:
        print_json(reading_json(opinion))
    else:
        _show(opinion)


def reading_json(opinion: Opinion[Reading]) -> dict[str, Any]:
    """The reading as `--json` prints it; the fields are null and `factors` is empty where the agent abstained."""
    judged = opinion.judgement
    fields: dict[str, Any] = dict.fromkeys(FIELDS)
    factors: dict[str, Any] = {}
    if judged is not None:
        fields = {name: {"value": getattr(judged, name), "probability": opinion.probability(name)} for name in FIELDS}
        factors = {
            factor: {"direction": call.direction, "size": call.size,
                     "probability": opinion.probability(f"factors.{factor}.direction")}
            for factor, call in judged.factors.items()
        }  # fmt: skip
    return {**fields, "factors": factors, "status": opinion.status, "reason": opinion.reason,
            "backend": opinion.backend, "precision": opinion.precision, "calls": opinion.calls}  # fmt: skip


def _story(text: str) -> str:
    if text == "-":
        try:
            text = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"stdin is not UTF-8: {error}", fix="give the event as UTF-8 text") from error
    if not text.strip():
        raise InputError("the event is empty", fix='describe it: finllm read "Mines close the Strait of Hormuz"')
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"the event has {len(text)} characters, and at most {MAX_CHARACTERS} are read",
                         fix="shorten it to what happened")  # fmt: skip
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"the event is not UTF-8: {error.reason}", fix="give the event as UTF-8 text") from error
    return text


def _ask(story: str, settings: Settings, *, as_json: bool, quiet: bool) -> Opinion[Reading]:

    from finllm.cli.display.events import open_display

    with open_display(as_json=as_json, quiet=quiet) as display:
        bus = EventBus(display)
        bus.emit(Progress(what="opening the models and the ledger", done=0, total=1))
        from finllm.desk.desk import open_desk
        from finllm.graphs.flow import read_event

        with open_desk(settings, bus) as desk:
            bus.emit(Progress(what="opening the models and the ledger", done=1, total=1))
            return running.run(read_event(story, desk))


def _show(opinion: Opinion[Reading]) -> None:
    from rich.console import Group

    from finllm.cli.display.report import table, text
    from finllm.tools.evidence import show

    console = out_console()
    shown = reading_json(opinion)
    if opinion.judgement is None:
        console.print(text(f"The narrative agent abstained: {opinion.reason}", "yellow"))
        return
    fields = [(name, shown[name]["value"], show(shown[name]["probability"], "probability")) for name in FIELDS]
    factors = [(name, call["direction"], call["size"], show(call["probability"], "probability"))
               for name, call in shown["factors"].items()]  # fmt: skip
    console.print(Group(
        table(("field", "value", "probability"), fields, right=(2,)), text(""),
        table(("factor", "direction", "size", "probability"), factors, right=(3,)), text(""),
        text(f"read by {opinion.backend} at {opinion.precision}", "dim"),
    ))  # fmt: skip
