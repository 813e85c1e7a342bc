"""The commands of `finllm` as one Typer app: its subcommands are imported when they are called."""

from __future__ import annotations

from typing import Annotated

import typer

from finllm.cli.commands import CommandGroup
from finllm.cli.options import examples, help_if_alone

app = typer.Typer(
    name="finllm",
    cls=CommandGroup,
    help="Tell what an event would do to a portfolio, show why, and prove afterwards how the answer came about.",
    epilog=examples(
        "finllm run hormuz-blockade",
        "finllm run my.yaml --portfolio book.csv --as-of 2022-06-30 --out report --json",
        'finllm read "The central bank raises rates by a full point"',
        "finllm doctor",
    ),
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from finllm import __version__

        print(f"finllm {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    del version
    help_if_alone(context)
