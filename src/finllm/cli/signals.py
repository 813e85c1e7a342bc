"""`finllm signals`: what the market says on a day: regime, stress index, every factor's state, forecasts; no model."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finllm.cli.book_options import FilesOption, HorizonOption, PricesOption
from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import AsOfOption, JsonFlag, QuietFlag, check_out, examples, parse_as_of, write_out
from finllm.errors import InputError
from finllm.plain_text import trading_days
from finllm.sessions.inputs import last_day, open_market
from finllm.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from finllm.tools.data.market import MarketStore
    from finllm.tools.forecasts.forecast import Forecast
    from finllm.tools.forecasts.signals import MarketSignals

LEVELS = (80, 95)


def add_to(app: typer.Typer) -> None:
    app.command("signals", epilog=examples(
        "finllm signals --as-of 2020-03-16",
        "finllm signals --as-of 2022-06-30 --series AAPL --horizon 5 --json",
    ))(signals)  # fmt: skip


def signals(
    as_of: AsOfOption = None,
    series: Annotated[
        list[str] | None,
        typer.Option("--series", metavar="NAME", help="Forecast this one too, besides the factors'. May be repeated."),
    ] = None,
    horizon: HorizonOption = 20,
    prices: PricesOption = None,
    out: FilesOption = None,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what the market said after the close of a day: its regime, stress index, each factor's state and forecasts.

    Forecasts are calibrated once a month for each series, which takes seconds, and kept under $FINLLM_HOME.
    """
    from finllm.review.charts import stress_index_chart
    from finllm.review.drawing import draw, undrawn
    from finllm.tools.forecasts.signals import market_signals

    asked = parse_as_of(as_of)
    if horizon < 1:
        raise InputError(f"a horizon of {horizon} trading days", fix="give one day or more")
    check_out(out)
    market = open_market(prices or ())
    day = asked or last_day(market)
    for name in series or ():
        market.read(name, day)
    found = market_signals(market, day)
    shown = [one.series for one in found.factors.values() if one is not None and not one.stale]
    made, refused = _forecasts(market, day, list(dict.fromkeys([*shown, *(series or ())])), horizon, quiet=quiet)
    data = {**found.model_dump(mode="json"), "notes": [*found.notes, *refused],
            "forecasts": {name: one.model_dump(mode="json") for name, one in made.items()}}  # fmt: skip
    if out is not None:
        chart = stress_index_chart(market, day)
        pictures = draw([chart] if chart else [])
        if (lost := undrawn(pictures)) is not None:
            typer.echo(f"warning: {lost}", err=True)
        files = {f"{one.chart.name}.png": one.png for one in pictures if one.png}
        write_out(out, files | {"signals.json": f"{json.dumps(data, indent=2, allow_nan=False)}\n".encode()})
    if as_json:
        print_json(data)
    else:
        out_console().print(_view(found, made, data["notes"]))


def _forecasts(
    market: MarketStore, day: dt.date, names: Sequence[str], horizon: int, *, quiet: bool
) -> tuple[dict[str, Forecast], list[str]]:
    """Forecasts by series, and why others have none."""
    from finllm.tools.forecasts.calibrations import Calibrations
    from finllm.tools.forecasts.forecast import forecast

    calibrations = Calibrations(load_settings().settings.calibrations_dir)
    made: dict[str, Forecast] = {}
    refused: list[str] = []
    for name in names:
        if not quiet:
            typer.echo(f"forecasting {name}", err=True)
        try:
            made[name] = forecast(market.read(name, day), horizon, LEVELS, calibrations)
        except InputError as error:
            refused.append(f"no forecast of {name}: {error.message}")
    return made, refused


def _view(found: MarketSignals, made: dict[str, Forecast], notes: Sequence[str]) -> RenderableType:
    from rich.console import Group

    from finllm.cli.display.report import table, text
    from finllm.tools.evidence import show

    parts: list[RenderableType] = [text(f"Market signals after the close of {found.as_of}", "bold")]
    parts += [text(line) for line in _lines(found)]
    states: list[Any] = [
        (name, f"{one.level:g}", show(one.change, one.unit), "-" if one.volatility is None else f"{one.volatility:.1%}",
         str(one.last), "stale" if one.stale else "")
        for name, one in found.factors.items() if one is not None
    ]  # fmt: skip
    header = ("factor", "level", "recent change", "volatility", "last", "")
    parts += [text(""), text("Factors", "bold cyan"), table(header, states, right=(1, 2, 3))]
    rows = [
        (name, show(one.point, one.unit),
         *(f"{show(band.lower, one.unit)} to {show(band.upper, one.unit)}" for band in one.bands), one.model)
        for name, one in made.items()
    ]  # fmt: skip
    days = next((one.horizon for one in made.values()), 0)
    header = ("series", "point", *(f"{level} %" for level in LEVELS), "model")
    parts += [text(""), text(f"Forecasts over {trading_days(days)}", "bold cyan"), table(header, rows, right=(1, 2, 3))]
    return Group(*parts, text(""), *(text(f"- {line}") for line in notes))


def _lines(found: MarketSignals) -> Iterator[str]:
    """The regime and the stress index in words."""
    if found.regime and found.volatility is not None and found.percentile is not None and found.drawdown is not None:
        yield (f"Regime: {found.regime}. S&P 500: volatility {found.volatility:.1%} a year (higher than on "
               f"{found.percentile:.0%} of its days), {found.drawdown:+.1%} from its peak of a year.")  # fmt: skip
    if found.state and found.state.probabilities and found.state.volatilities:
        states = (f"{chance:.0%} at {volatility:.0%} a year" for chance, volatility in
                  zip(found.state.probabilities, found.state.volatilities, strict=True))  # fmt: skip
        yield f"Probabilities of its three states of volatility: {', '.join(states)}."
    if index := found.stress:
        yield (f"Stress index: {index.value:+.2f} (higher than on {index.percentile:.0%} of its days); absorption "
               f"{index.absorption:.0%}, dispersion {index.dispersion:.1%} a year, on {index.last}.")  # fmt: skip
