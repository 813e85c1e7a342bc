"""`finllm reverse`: the most plausible shocks that lose a given amount; no model is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.book_options import (
    SHOCK_HELP,
    FactorsOption,
    FilesOption,
    FormatOption,
    HorizonOption,
    PortfolioOption,
    PricesOption,
    SeedOption,
    dollars,
)
from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import AsOfOption, JsonFlag, check_out, examples, parse_as_of, write_out
from finllm.sessions.inputs import read_inputs
from finllm.sessions.reverse import ReverseQuestion, answer_reverse

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finllm.tools.pnl.outcome import ReverseResult


def add_to(app: typer.Typer) -> None:
    app.command("reverse", epilog=examples(
        "finllm reverse --loss 10%",
        "finllm reverse --portfolio book.csv --loss 500000 --shock OIL_WTI=+40% --bound EQUITY_US=-30%:+30% --json",
    ))(reverse)  # fmt: skip


def reverse(
    loss: Annotated[
        str, typer.Option("--loss", metavar="10%|500000", help="What to lose: a share of the book or USD.")
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
    seed: SeedOption = 0,
    out: FilesOption = None,
    formats: FormatOption = "csv",
    as_json: JsonFlag = False,
) -> None:
    """Find the most plausible shocks that lose the amount: several distinct answers, each revalued in full."""
    from finllm.tools.export import parse_formats

    day, kinds = parse_as_of(as_of), parse_formats(formats)
    question = ReverseQuestion(loss, shock or (), bound or (), horizon, answers, seed)
    check_out(out)
    answer = answer_reverse(read_inputs(portfolio, prices or (), day, factor or ()), question)
    if out is not None:
        write_out(out, answer.files(kinds))
    if as_json:
        print_json(answer.to_json())
    else:
        out_console().print(_view(answer.result, answer.portfolio))


def _view(result: ReverseResult, portfolio: str) -> RenderableType:
    from rich.console import Group

    from finllm.cli.display.report import table, text
    from finllm.tools.evidence import show

    parts: list[RenderableType] = [
        text(f"What loses {result.target:,.0f} USD of {portfolio} within {result.horizon} trading days, as of "
             f"{result.as_of}", "bold"),
    ]  # fmt: skip
    for at, one in enumerate(result.answers, start=1):
        parts += [
            text(""), text(f"{at}. {one.distance:.1f} σ away, loses {one.loss:,.0f} USD ({one.method})", "bold cyan"),
            text(one.explanation),
            table(("factor", "move", "size", "P&L, USD", ""),
                  [(move.factor, show(move.move, move.unit), show(move.sigma, "sigma"),
                    dollars(one.by_factor.get(move.factor)), "given" if move.fixed else "at its bound" if move.at_bound
                    else "") for move in one.moves], right=(1, 2, 3)),
        ]  # fmt: skip
    parts += [text(""), text(result.alignment, "dim"), *(text(f"- {line}") for line in result.notes)]
    return Group(*parts)
