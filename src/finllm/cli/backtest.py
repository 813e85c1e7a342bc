"""`finllm backtest`: eight known windows, predicted from the day before against what happened; no model is asked."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.book_options import (
    FilesOption,
    FormatOption,
    PortfolioOption,
    PricesOption,
    dollars,
)
from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import DeferOption, JsonFlag, check_out, examples, wait_for_cleaner, write_out
from finllm.sessions.inputs import read_inputs
from finllm.settings import load_settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finllm.tools.pnl.backtest import Backtest

TAKES = 60.0
"""s that a back-test takes about."""


class Method(StrEnum):
    engine = "engine"
    index_ = "index"  # a string has a method of the plain name
    sectors = "sectors"
    components = "components"


def add_to(app: typer.Typer) -> None:
    app.command("backtest", epilog=examples(
        "finllm backtest", "finllm backtest --portfolio book.csv --method components --json",
        "finllm backtest --out tables --format xlsx",
    ))(backtest)  # fmt: skip


def backtest(
    portfolio: PortfolioOption = None,
    method: Annotated[
        Method, typer.Option("--method", help="What the prediction knows beside the day before: the factors' moves, as "
                                              "all commands use them, the index's alone, or also those of the other "
                                              "stocks.")
    ] = Method.engine,
    prices: PricesOption = None,
    out: FilesOption = None,
    formats: FormatOption = "csv",
    defer: DeferOption = None,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Replay eight known windows with sensitivities of the day before and only the observed factor moves."""
    from finllm.tools.export import backtest_tables, parse_formats, table_files
    from finllm.tools.pnl.backtest import backtest as replay

    kinds = parse_formats(formats)
    check_out(out)
    inputs = read_inputs(portfolio, prices or (), None)
    wait_for_cleaner(defer, load_settings().settings, TAKES)
    result = replay(inputs.portfolio, inputs.market, method=method.value)
    shown = result.model_dump(mode="json")
    if out is not None:
        files = table_files(backtest_tables(result), kinds, "backtest")
        write_out(out, files | {"backtest.json": f"{json.dumps(shown, indent=2, allow_nan=False)}\n".encode()})
    if as_json:
        print_json(shown)
    else:
        out_console().print(_view(result))


def _view(result: Backtest) -> RenderableType:
    from rich.console import Group

    from finllm.cli.display.report import table, text

    rows = [
        (one.window.title, f"{one.window.start} to {one.window.end}", dollars(one.predicted), dollars(one.realised),
         text("yes", "green") if one.sign_right else text("no", "bold red"), f"{one.bias:+.2%}", f"{one.mae:.2%}",
         number(one.rank), number(one.rank_returns))
        for one in result.windows
    ]  # fmt: skip
    parts: list[RenderableType] = [
        text(f"Back-test of {result.portfolio}: {result.how}, estimated up to the day before", "bold"),
        table(("window", "days", "predicted", "realised", "sign", "bias", "MAE", "rank, USD", "rank, return"), rows,
              right=(2, 3, 5, 6, 7, 8)),
        text(""),
        text(f"{result.signs_right} of {len(result.windows)} signs are right. {_ranks(result)}"),
        text("Bias and MAE are of the positions' returns; P&L is in USD at the values of the day before.", "dim"),
    ]  # fmt: skip
    left_out = dict(pair for one in result.windows for pair in one.left_out.items())
    notes = [f"{name} is not compared: {why}" for name, why in left_out.items()]
    notes += [f"{name} is not back-tested: {why}" for name, why in result.refused.items()]
    return Group(*parts, *(text(f"- {line}") for line in notes))


def _ranks(result: Backtest) -> str:
    if result.rank is None or result.rank_naive is None or result.rank_returns is None:
        return "Rank correlations across positions are not told: it takes more positions with prices in a window."
    return (f"Rank correlation across positions, on average: {number(result.rank)} of P&L, where the sizes of the "
            f"positions alone give {number(result.rank_naive)}; {number(result.rank_returns)} of returns.")  # fmt: skip


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
