"""`finllm reverse`: the most plausible shocks that lose a given amount; no model is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.book_options import (
    SHOCK_HELP,
    AgeFlag,
    CurrencyOption,
    FactorsOption,
    FilesOption,
    FormatOption,
    HorizonOption,
    LimitsOption,
    PortfolioOption,
    PricesOption,
    SeedOption,
    dollars,
)
from finllm.cli.display.events import open_when_noticed
from finllm.cli.options import AsOfOption, FailOnOption, JsonFlag, QuietFlag, check_out, examples, give, parse_as_of
from finllm.events import Progress
from finllm.plain_text import trading_days
from finllm.sessions.inputs import find_limits, limitable, read_inputs
from finllm.sessions.reverse import ReverseAnswers, ReverseQuestion, answer_reverse

if TYPE_CHECKING:
    from rich.console import RenderableType


SEEKING = "seeking shocks that lose as much, from many starts"


def add_to(app: typer.Typer) -> None:
    app.command("reverse", epilog=examples(
        "finllm reverse --loss 10%",
        "finllm reverse --portfolio book.csv --loss 500000 --shock OIL_WTI=+40% --bound EQUITY_US=-30%:+30% --json",
    ))(reverse)  # fmt: skip


def reverse(
    loss: Annotated[
        str, typer.Option("--loss", metavar="10%|500000", help="What to lose: a share of the book, or an amount.")
    ],
    portfolio: PortfolioOption = None,
    shock: Annotated[
        list[str] | None,
        typer.Option("--shock", "-s", metavar="FACTOR=MOVE", help=f"What every answer contains. {SHOCK_HELP}"),
    ] = None,
    bound: Annotated[
        list[str] | None,
        typer.Option("--bound", metavar="FACTOR=LOW:HIGH", help="How far a factor may move. May be repeated."),
    ] = None,
    answers: Annotated[int, typer.Option("--answers", min=1, max=20, help="How many distinct answers to seek.")] = 3,
    horizon: HorizonOption = 20,
    as_of: AsOfOption = None,
    prices: PricesOption = None,
    factor: FactorsOption = None,
    currency: CurrencyOption = None,
    seed: SeedOption = 0,
    age: AgeFlag = None,
    limits: LimitsOption = None,
    fail_on: FailOnOption = None,
    out: FilesOption = None,
    formats: FormatOption = "csv",
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the most plausible shocks that lose the amount: several distinct answers, each revalued in full.

    The limits are held against the nearest answer.
    """
    from finllm.tools.export import parse_formats

    day, kinds = parse_as_of(as_of), parse_formats(formats)
    question = ReverseQuestion(loss, shock or (), bound or (), horizon, answers, seed, bool(age))
    check_out(out)
    inputs = read_inputs(portfolio, prices or (), day, factor or (), currency)
    allowed = find_limits(limits, portfolio, limitable(inputs.factors, inputs.market), inputs.currency)
    with open_when_noticed(as_json=as_json, quiet=quiet) as show:
        answer = answer_reverse(
            inputs, question, allowed, lambda done, total: show(Progress(what=SEEKING, done=done, total=total))
        )
    give(answer, _view, out=out, formats=kinds, as_json=as_json, fail_on=fail_on or ())


def _view(answer: ReverseAnswers) -> RenderableType:
    from rich.console import Group

    from finllm.cli.display.limits import limit_sections
    from finllm.cli.display.report import headline, table, text
    from finllm.tools.evidence import show
    from finllm.tools.pnl.outcome import aged_words

    result = answer.result
    parts: list[RenderableType] = [
        headline(f"What loses {result.target:,.0f} {result.currency} of {answer.portfolio} within "
                 f"{trading_days(result.horizon)}, as of {result.as_of}", result.coverage),
    ]  # fmt: skip
    if result.aged is not None:
        parts.append(text(aged_words(result.aged), "bold yellow"))
    if result.given_loss is not None:
        parts.append(text(f"The given shocks alone lose {result.given_loss:,.0f} {result.currency}, no less than is "
                          "asked for: there is no other shock to seek.", "bold"))  # fmt: skip
    for at, one in enumerate(result.answers, start=1):
        parts += [
            text(""),
            text(f"{at}. {one.distance:.1f} σ away, loses {one.loss:,.0f} {result.currency} ({one.method})",
                 "bold cyan"),
            text(one.explanation),
            *(text(story.text) for story in answer.stories[at - 1 : at]),
            table(("factor", "move", "size", f"P&L, {result.currency}", ""),
                  [(move.factor, show(move.move, move.unit), show(move.sigma, "sigma"),
                    dollars(one.by_factor.get(move.factor)), "given" if move.fixed else "at its bound" if move.at_bound
                    else "") for move in one.moves], right=(1, 2, 3)),
        ]  # fmt: skip
    for title, body in limit_sections(answer.held, answer.restricted):
        parts += [text(""), text(f"{title}, nearest answer" if title == "Limit breaches" else title, "bold cyan"), body]
    parts += [text(""), text(result.alignment, "dim"), *(text(f"- {line}") for line in result.notes)]
    return Group(*parts)
