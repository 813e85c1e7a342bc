"""`finllm session`: bend a scenario at the keyboard, or by a script, and see the numbers move."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finllm.cli.book_options import CurrencyOption, LimitsOption, PricesOption
from finllm.cli.display.terminal import print_json
from finllm.cli.identity import may_be_called
from finllm.cli.options import AsOfOption, FailOn, FailOnOption, JsonFlag, QuietFlag, examples, parse_as_of
from finllm.errors import FinllmError, InputError
from finllm.events import EventBus
from finllm.plain_text import clean, clean_lines
from finllm.settings import load_settings

if TYPE_CHECKING:
    from finllm.sessions.answers import Answer
    from finllm.sessions.session import Session

LISTED = 25
"""Sessions that are listed unless told otherwise."""
BLOCK = '"""'
"""What a text of several lines is put between in a script."""


def add_to(app: typer.Typer) -> None:
    app.command(epilog=examples(
        "finllm session hormuz-blockade",
        'finllm session "The strait is closed for a month" --portfolio book.csv',
        "finllm session s-221130-0910-1f3a",
        "finllm session hormuz-blockade --script morning.txt --json",
        "finllm session list",
    ))(session)  # fmt: skip


def session(
    start: Annotated[
        str | None, typer.Argument(metavar="[SCENARIO|STORY|RUN|SESSION|list]", help="A scenario's file or name, a "
                                   "story in plain words, a run on record, a session to go on with, or list.")] = None,
    portfolio: Annotated[
        Path | None, typer.Option("--portfolio", "-p", help="CSV, Parquet or Excel.  \\[default: the shipped book]")
    ] = None,
    limits: LimitsOption = None,
    prices: PricesOption = None,
    currency: CurrencyOption = None,
    as_of: AsOfOption = None,
    script: Annotated[
        str | None, typer.Option("--script", metavar="FILE", help="Carry out the lines of a file, or of stdin with "
                                                                  "'-', and leave.")] = None,
    fork: Annotated[bool, typer.Option("--fork", help="Leave a session at the version in hand, and go on in one of "
                                                      "your own.")] = False,
    who: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Who decides, on record.  \\[default: your "
                                                                         "login name]")] = None,
    fail_on: FailOnOption = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Open a live session: edit the story, sources, shocks and the book, undo, compare, hedge, save, put to review.

    Every edit is a version on record, with its reason. `?` shows what may be typed. A script carries out every line;
    a line that cannot be is an error of its own, and the exit code is that of the first.
    """
    if start == "list":
        _list(as_json=as_json)
        return
    settings, who = load_settings().settings, may_be_called(who)
    lines = None if script is None else list(script_lines(_read(script), script))
    if lines is None and not sys.stdin.isatty():
        lines = list(script_lines(sys.stdin.read(), "stdin"))
    if start is None and lines and lines[0].split(None, 1)[0] == "story":
        start = lines.pop(0).split(None, 1)[1]
    if start is None and lines is not None:
        raise InputError("what shall the session start from?",
                         fix="name a scenario or a run, or begin the script with: story TEXT")  # fmt: skip
    options: dict[str, Any] = {"portfolio": portfolio, "limits": limits, "prices": prices or (), "currency": currency,
                               "as_of": parse_as_of(as_of), "who": who, "settings": settings, "fork": fork}  # fmt: skip
    if lines is None:
        _at_terminal(start, options, quiet=quiet)
        return
    _scripted(start or "", lines, options, as_json=as_json, quiet=quiet, fail_on=fail_on or ())


def _at_terminal(start: str | None, options: dict[str, Any], *, quiet: bool) -> None:
    """The prompt; without a start the story is asked for first."""
    from finllm.cli.session_terminal import Talk, dumb, talk_at_terminal
    from finllm.sessions.session import Session

    if start is None:
        print("Tell the event in your own words, or name a scenario or a run.")
        try:
            start = input("story> ").strip()
        except EOFError:
            start = ""
        start = start.removeprefix("story ").strip()
    talk = Talk(plain=dumb())
    bus = EventBus() if quiet else EventBus(talk)
    print("opening the models and the ledger …", file=sys.stderr)
    with Session.open(start, bus=bus, **options) as opened:
        talk_at_terminal(opened, talk)


def _scripted(
    start: str, lines: Sequence[str], options: dict[str, Any], *, as_json: bool, quiet: bool, fail_on: Sequence[FailOn]
) -> None:
    """Open, carry out each line, and exit as the first that could not be carried out says."""
    from finllm.cli.display.events import open_display
    from finllm.sessions.session import Session

    code = 0
    with (
        open_display(as_json=as_json, quiet=quiet) as display,
        Session.open(start, bus=EventBus(display), **options) as opened,
    ):
        try:
            opening = opened.begin()
        except KeyboardInterrupt:
            raise
        except FinllmError as error:
            error.fix = f"{error.fix}; go on with: finllm session {opened.id}"
            raise
        with display.pause():
            _put(opened, opening, as_json=as_json)
        for line in lines:
            answer = opened.do(line)
            with display.pause():
                _put(opened, answer, as_json=as_json)
            if answer.error is not None:
                code = code or answer.error.exit_code
                if answer.error.exit_code == 130:
                    break
        code = code or _against(opened, fail_on)
        if not as_json:
            print(f"back: finllm session {opened.id}", file=sys.stderr)
    if code:
        raise typer.Exit(code)


def _put(opened: Session, answer: Answer, *, as_json: bool) -> None:
    if as_json:
        print_json({"session": opened.id, **answer.to_json()}, indent=None)
    else:
        print("\n".join(told(opened, answer)))
    sys.stdout.flush()


def told(opened: Session, answer: Answer) -> Iterator[str]:
    """An answer as lines of text: the line, what came of it, and what repeats it."""
    yield f"{opened.id} {answer.version}> {clean(answer.line)[:200]}"
    if answer.error is not None:
        yield f"  error: {clean_lines(answer.error.message)}"
        yield f"    fix: {clean_lines(answer.error.fix)}"
        return
    yield from (f"  {clean_lines(line)}" for line in answer.said)
    yield f"  {cost(answer)}{f' · repeat: {answer.command}' if answer.command else ''}"


def cost(answer: Answer) -> str:
    """What an answer took, and how many model calls it asked and the ledger answered."""
    calls = (
        f", asked {answer.asked} of {answer.asked + answer.reused} questions" if answer.asked + answer.reused else ""
    )
    return f"{answer.took_s:.1f} s{calls}"


def _against(opened: Session, fail_on: Sequence[FailOn]) -> int:
    from finllm.sessions.failing import against_report

    report = opened.report_of(opened.version)
    return 3 if report is not None and against_report(report).failed_on(fail_on) else 0


def script_lines(text: str, name: str) -> Iterator[str]:
    """The lines of a script: without blank ones and comments; a text between triple quotes is one line.

    Errors: InputError for a text that is not closed.
    """
    held: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if held:
            held.append(line)
            if line.rstrip().endswith(BLOCK):
                yield "\n".join(held)
                held = []
        elif line.count(BLOCK) == 1:
            held, began = [line], number
        elif line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()
    if held:
        raise InputError(f"{name}:{began}: a text is not closed", fix=f"end it with {BLOCK}")  # pyright: ignore[reportPossiblyUnboundVariable]


def _read(script: str) -> str:
    if script == "-":
        return sys.stdin.read()
    try:
        return Path(script).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the script {script!r}: {error}", fix="give a text file, or - for stdin"
        ) from error


def _list(*, as_json: bool) -> None:
    """The sessions on record, the newest first."""
    from finllm.cli.history import reading
    from finllm.memory.sessions import sessions

    with reading(load_settings().settings) as ledger:
        found = sessions(ledger, None if as_json else LISTED) if ledger else []
    if as_json:
        print_json({"sessions": found})
        return
    lines = [f"{one['session']}  {one['at']}  {clean(one['who'])}  {clean(one['title'])[:60]}" for one in found]
    print("\n".join(lines) or "None.")
