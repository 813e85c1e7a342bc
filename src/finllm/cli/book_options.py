"""What the commands that ask no model share: the options for a book, its prices and factors, and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PortfolioOption = Annotated[
    Path | None, typer.Option("--portfolio", "-p", help="CSV, Parquet or Excel.  \\[default: the shipped book]")
]
PricesOption = Annotated[
    list[Path] | None, typer.Option("--prices", metavar="FILE", help="Your daily prices. May be repeated.")
]
LimitsOption = Annotated[
    Path | None, typer.Option("--limits", help="YAML.  \\[default: limits.yaml beside the portfolio]")
]
FactorsOption = Annotated[
    list[str] | None,
    typer.Option("--factor", metavar="SERIES", help="A series of your prices as a factor of its own, also where no "
                                                    "shock names it. May be repeated."),
]  # fmt: skip
CurrencyOption = Annotated[
    str | None, typer.Option("--currency", metavar="CODE", help="Currency of all results.  \\[default: USD, or the "
                                                                "setting]")
]  # fmt: skip
PropagateFlag = Annotated[
    bool | None, typer.Option("--propagate/--hold", help="Whether factors without a shock move with the shocked ones, "
                                                         "by their covariance, or stand still.  \\[default: move, "
                                                         "those apart of which a replayed window has no data]")
]  # fmt: skip
AgeFlag = Annotated[
    bool | None, typer.Option("--age/--no-age", help="Let time pass while the shocks come: options, forwards and bonds "
                                                     "are revalued at the horizon's end, expired ones pay out.  "
                                                     "\\[default: no time passes, unless the scenario says so]")
]  # fmt: skip
HorizonOption = Annotated[int, typer.Option("--horizon", metavar="DAYS", help="Trading days that the shocks take.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the simulated interval.")]
FilesOption = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for the result's files.  \\[default: none]")
]
FormatOption = Annotated[
    str, typer.Option("--format", metavar="csv,parquet,xlsx", help="How --out writes the result's tables.")
]
SHOCK_HELP = "A factor's move: OIL_WTI=+40%, RATE_US_10Y=+75bp, VIX=+12points or EQUITY_US=-3sigma. May be repeated."


def dollars(amount: object) -> str:
    """An amount as a table shows it."""
    return "-" if amount is None else f"{amount:+,.0f}"
