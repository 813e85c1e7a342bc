"""`finllm reverse`: the most plausible shocks that lose a given amount; no model is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.engine import (
    SHOCK_HELP,
    FactorsOption,
    FilesOption,
    FormatOption,
    HorizonOption,
    PortfolioOption,
    PricesOption,
    SeedOption,
    check_out,
    dollars,
    parse_shocks,
    read_inputs,
)
from finllm.cli.options import AsOfOption, JsonFlag, examples, parse_as_of
from finllm.cli.outputs import write_files
from finllm.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finllm.tools.pnl.factorset import FactorSet
    from finllm.tools.pnl.outcome import ReverseResult

_LOSS = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?)\s*(%?)")
_LOSS_FIX = "write a share of the book such as '10%', or USD such as '500000'"


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
    from finllm.tools.export import parse_formats, reverse_tables, table_files

    day, target, kinds = parse_as_of(as_of), parse_loss(loss), parse_formats(formats)
    check_out(out)
    inputs = read_inputs(portfolio, prices or (), day, factor or ())
    fixed, bounds = parse_shocks(shock or (), inputs.factors), parse_bounds(bound or (), inputs.factors)
    from finllm.tools.pnl.engine import reverse as solve

    result = solve(inputs.portfolio, inputs.market, inputs.as_of, horizon, target, bounds=bounds, fixed=fixed,
                   answers=answers, seed=seed, factors=inputs.factors)  # fmt: skip
    shown = {"portfolio": inputs.portfolio.name, **result.model_dump(mode="json")}
    if out is not None:
        files = table_files(reverse_tables(result), kinds, "reverse")
        write_files(out, files | {"reverse.json": f"{json.dumps(shown, indent=2, allow_nan=False)}\n".encode()})
    if as_json:
        print_json(shown)
    else:
        out_console().print(_view(result, inputs.portfolio.name))


def parse_loss(text: str) -> float:
    """A loss written as `10%` (a share below 1) or `500000` (USD). Errors: InputError for anything else."""
    match = _LOSS.fullmatch(text.strip())
    if match is None:
        raise InputError(f"--loss {text!r} is neither a share nor an amount", fix=_LOSS_FIX)
    amount = float(match[1].replace(",", "").replace("_", ""))
    share = bool(match[2])
    if share and not 0 < amount < 100:
        raise InputError(f"--loss {text!r} is not between 0 % and 100 %", fix=_LOSS_FIX)
    if not share and amount < 1:
        raise InputError(f"--loss {text!r} is less than one dollar", fix=_LOSS_FIX)
    return amount / 100 if share else amount


def parse_bounds(texts: Sequence[str], factors: FactorSet) -> dict[str, tuple[float, float]]:
    """Bounds written as FACTOR=LOW:HIGH. Errors: InputError for one that cannot be read, or two of one factor."""
    found: dict[str, tuple[float, float]] = {}
    for text in texts:
        name, _, both = text.partition("=")
        low, colon, high = both.partition(":")
        if not colon:
            raise InputError(f"--bound {text!r} is not FACTOR=LOW:HIGH", fix="write it as OIL_WTI=-50%:+50%")
        ends = [factors.parse(name.strip(), end.strip()) for end in (low, high)]
        if any(end.in_sigmas for end in ends):
            raise InputError(f"--bound {text!r} is in sigmas", fix=f"write it in {factors[name.strip()].unit}")
        if ends[0].amount > ends[1].amount:
            raise InputError(f"--bound {text!r} ends below its start", fix="write the lower end first")
        if name.strip() in found:
            raise InputError(f"--bound: {name.strip()!r} is bounded twice", fix="give one bound for each factor")
        found[name.strip()] = (ends[0].amount, ends[1].amount)
    return found


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
