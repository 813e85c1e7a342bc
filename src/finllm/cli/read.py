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
    from finllm.graphs.event_reading import EventRead
    from finllm.tools.channels import Opened

MAX_CHARACTERS = 20_000
FIELDS = ("event", "region", "stance", "severity", "horizon")
BY = 2
"""Channels that are named beside a factor."""


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
    """Show how an event is read: the channels by which it reaches markets, each with its sentence; each field of the
    event; and every factor with the channels that move it, beside what the text's own words and past events say.
    """
    story = _story(text)
    settings = load_settings().settings
    check_model(settings)
    read = _ask(story, settings, as_json=as_json, quiet=quiet)
    if as_json:
        print_json(reading_json(read))
    else:
        _show(read)


def reading_json(read: EventRead) -> dict[str, Any]:
    """The reading as `--json` prints it; the fields are null and `factors` is empty where the agent abstained.

    `channels` is null where no reader of channels is at hand; `checks`: what words and past events say by factor.
    """
    opinion = read.opinion
    fields: dict[str, Any] = dict.fromkeys(FIELDS)
    factors: dict[str, Any] = {}
    if opinion.judgement is not None:
        judged = opinion.judgement
        fields = {name: {"value": getattr(judged, name), "probability": opinion.probability(name)} for name in FIELDS}
        factors = {
            factor: {"direction": call.direction, "size": call.size,
                     "probability": opinion.probability(f"factors.{factor}.direction")}
            for factor, call in judged.factors.items()
        }  # fmt: skip
    checks = {factor: {"words": read.words.get(factor, "none"), "precedents": heard}
              for factor, heard in read.precedents.items()}  # fmt: skip
    return {**fields, "factors": factors, "channels": _channels_json(read), "checks": checks, "closest": read.closest,
            "status": opinion.status, "reason": opinion.reason, "backend": opinion.backend,
            "precision": opinion.precision, "calls": opinion.calls}  # fmt: skip


def _channels_json(read: EventRead) -> list[dict[str, Any]] | None:
    from finllm.tools.channels import channel_table

    if read.heard is None:
        return None
    return [
        {"channel": one.channel, "state": one.state, "probability": one.probability, "start": one.start,
         "end": one.end, "words": _words(read, one), "moves": dict(channel_table()[one.channel].moves)}
        for one in _shown(read)
    ]  # fmt: skip


def _shown(read: EventRead) -> list[Opened]:
    """The channels worth a line, and those that are named beside a factor, however unlikely."""
    from finllm.graphs.channel_lines import worth_a_line

    if read.heard is None:
        return []
    named = {name for names in _pulled(read).values() for name in names}
    return [one for one in read.heard.opened if worth_a_line(one) or one.channel in named]


def _pulled(read: EventRead) -> dict[str, list[str]]:
    """By factor the two strongest channels that pull it the way it is read."""
    from finllm.tools.channels import pulls

    judged = read.opinion.judgement
    if judged is None or read.heard is None:
        return {}
    ways = {factor: {"up": 1, "down": -1, "none": 0}[call.direction] for factor, call in judged.factors.items()}
    return {factor: [one.opened.channel for one in pulls(read.heard.opened, factor) if one.size * way > 0][:BY]
            for factor, way in ways.items()}  # fmt: skip


def _words(read: EventRead, one: Opened) -> str:
    return " ".join(read.text[one.start : one.end].split())


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


def _ask(story: str, settings: Settings, *, as_json: bool, quiet: bool) -> EventRead:
    from finllm.cli.display.events import open_display

    with open_display(as_json=as_json, quiet=quiet) as display:
        bus = EventBus(display)
        bus.emit(Progress(what="opening the models and the ledger", done=0, total=1))
        from finllm.desk.desk import open_desk
        from finllm.graphs.event_reading import read_event

        with open_desk(settings, bus) as desk:
            bus.emit(Progress(what="opening the models and the ledger", done=1, total=1))
            return running.run(read_event(story, desk))


def _show(read: EventRead) -> None:
    from rich.console import Group

    from finllm.cli.display.report import table, text
    from finllm.graphs.channel_lines import NOTHING_OPEN, OPEN, fights, moves_words
    from finllm.tools.channels import channel_table
    from finllm.tools.evidence import show

    console, opinion, known = out_console(), read.opinion, channel_table()
    if opinion.judgement is None:
        console.print(text(f"The narrative agent abstained: {opinion.reason}", "yellow"))
        return
    moves = {one.channel: known[one.channel].moves for one in _shown(read) if one.probability >= OPEN}
    said = [text(line, "bold") for line in ([] if read.bears else [NOTHING_OPEN]) + fights(moves)]
    channels = [(one.channel, one.state, show(one.probability, "probability"), moves_words(known[one.channel].moves),
                 f"“{_words(read, one)}”") for one in _shown(read)]  # fmt: skip
    fields = [(name, getattr(opinion.judgement, name), show(opinion.probability(name), "probability"))
              for name in FIELDS]  # fmt: skip
    console.print(Group(
        *said, *([text("")] if said else []),
        *([table(("channel", "state", "open", "moves", "read from"), channels, right=(2,)), text("")]
          if channels else []),
        table(("field", "value", "probability"), fields, right=(2,)), text(""),
        table(("factor", "direction", "size", "probability", "by", "its words", "past events"), _factors(read),
              right=(3,)), text(""),
        text(_by(read), "dim"),
    ))  # fmt: skip


def _factors(read: EventRead) -> list[tuple[str, ...]]:
    """Each factor with the channels that pull it the way it is read, and the two checks beside it."""
    from finllm.tools.evidence import show

    judged, pulled = read.opinion.judgement, _pulled(read)
    rows: list[tuple[str, ...]] = []
    for factor, call in (judged.factors if judged else {}).items():
        chance = show(read.opinion.probability(f"factors.{factor}.direction"), "probability")
        rows.append((factor, call.direction, call.size, chance, ", ".join(pulled.get(factor, ())) or "-",
                     read.words.get(factor, "none"), read.precedents.get(factor, "none")))  # fmt: skip
    return rows


def _by(read: EventRead) -> str:
    opinion = read.opinion
    near = f"; the closest past event is {read.closest}" if read.closest else ""
    who = "the channel reader and " if read.heard is not None else ""
    return f"read by {who}{opinion.backend} at {opinion.precision}{near}"
