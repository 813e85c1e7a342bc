"""What the commands that use the engine without a model share: options, inputs, and the files they write."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.inputs import check_folder
from finllm.errors import InputError
from finllm.scenarios import PORTFOLIOS_DIR
from finllm.settings import Settings, load_settings

if TYPE_CHECKING:
    from finllm.tools.data.factors import UserShock
    from finllm.tools.data.market import MarketStore
    from finllm.tools.data.portfolio import Portfolio
    from finllm.tools.pnl.factorset import FactorSet

PortfolioOption = Annotated[
    Path | None, typer.Option("--portfolio", "-p", help="CSV, Parquet or Excel.  [default: the shipped book]")
]
PricesOption = Annotated[
    list[Path] | None, typer.Option("--prices", metavar="FILE", help="Your daily prices. May be repeated.")
]
FactorsOption = Annotated[
    list[str] | None,
    typer.Option("--factor", metavar="SERIES", help="A series of your prices as a factor of its own. May be repeated."),
]
HorizonOption = Annotated[int, typer.Option("--horizon", metavar="DAYS", help="Trading days that the shocks take.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the simulated interval.")]
FilesOption = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for the result's files.  [default: none]")
]
FormatOption = Annotated[
    str, typer.Option("--format", metavar="csv,parquet,xlsx", help="How --out writes the result's tables.")
]
SHOCK_HELP = "A factor's move: OIL_WTI=+40%, RATE_US_10Y=+75bp, VIX=+12points or EQUITY_US=-3sigma. May be repeated."


@dataclass(frozen=True)
class Inputs:
    """A portfolio, the prices, the factors that shocks may name, and the day of which nothing later is read."""

    portfolio: Portfolio
    market: MarketStore
    factors: FactorSet
    as_of: dt.date


def read_inputs(
    portfolio: Path | None, prices: Sequence[Path], as_of: dt.date | None, factors: Sequence[str] = ()
) -> Inputs:
    """Read and check what every engine command needs. Errors: InputError naming what is wrong and the mend."""
    from finllm.tools.data.portfolio import load_portfolio
    from finllm.tools.pnl.factorset import FactorSet

    held = load_portfolio(portfolio or PORTFOLIOS_DIR / "default.csv")
    market = open_market(prices)
    known = FactorSet.default(market)
    return Inputs(held, market, known.with_series(market, factors) if factors else known, as_of or last_day(market))


def open_market(prices: Sequence[Path]) -> MarketStore:
    """The packaged series, those imported with 'finllm data import', and the user's."""
    from finllm.tools.data.fed import HISTORY, load_fed
    from finllm.tools.data.market import MarketStore

    folder = fed_folder(load_settings().settings)
    return MarketStore(prices, load_fed(folder) if (folder / HISTORY).is_file() else ())


def fed_folder(settings: Settings) -> Path:
    """Where the Federal Reserve's imported variables are."""
    return settings.home / "data" / "fed"


def last_day(market: MarketStore) -> dt.date:
    """The last day of the equity data that is not in the future."""
    from finllm.tools.pnl.exposure import INDEX

    return market.read(INDEX, dt.datetime.now(dt.UTC).date()).last


def parse_shocks(texts: Sequence[str], factors: FactorSet) -> tuple[UserShock, ...]:
    """Shocks written as FACTOR=MOVE. Errors: InputError for one that cannot be read, or two of one factor."""
    found: dict[str, UserShock] = {}
    for text in texts:
        name, sign, move = text.partition("=")
        if not sign or not name.strip() or not move.strip():
            raise InputError(
                f"--shock {text!r} is not FACTOR=MOVE", fix="write it as OIL_WTI=+40% or EQUITY_US=-3sigma"
            )
        if name.strip() in found:
            raise InputError(f"--shock: {name.strip()!r} is shocked twice", fix="give one move for each factor")
        found[name.strip()] = factors.parse(name.strip(), move.strip())
    return tuple(found.values())


def check_out(out: Path | None) -> None:
    """The folder for files can be made. Errors: InputError."""
    if out is not None:
        check_folder(out, "--out")


def dollars(amount: object) -> str:
    """An amount as a table shows it."""
    return "-" if amount is None else f"{amount:+,.0f}"
