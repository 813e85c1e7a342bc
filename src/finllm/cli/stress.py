"""`finllm stress`: shocks in, P&L with its cuts, bands and plausibility out; no model is asked."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.display.terminal import clean_lines, out_console, print_json
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
from finllm.cli.inputs import limits_for
from finllm.cli.options import AsOfOption, JsonFlag, QuietFlag, examples, parse_as_of
from finllm.cli.outputs import write_files
from finllm.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finllm.review.charts import Chart
    from finllm.tools.data.market import MarketStore
    from finllm.tools.data.portfolio import Limits
    from finllm.tools.export import Format
    from finllm.tools.pnl.book_pnl import Breach
    from finllm.tools.pnl.outcome import EngineResult, ShockRow


class Tails(StrEnum):
    gaussian = "gaussian"
    vine = "vine"


class FailOn(StrEnum):
    breach = "breach"


def add_to(app: typer.Typer) -> None:
    app.command("stress", epilog=examples(
        "finllm stress --shock OIL_WTI=+40% --shock EQUITY_US=-3sigma --propagate",
        "finllm stress --portfolio book.csv --replay lehman-2008 --json",
        "finllm stress --shock RATE_US_10Y=+150bp --replay 2022-01-03:2022-10-12 --out report --format csv,xlsx",
    ))(stress)  # fmt: skip


def stress(
    portfolio: PortfolioOption = None,
    shock: Annotated[list[str] | None, typer.Option("--shock", "-s", metavar="FACTOR=MOVE", help=SHOCK_HELP)] = None,
    propagate: Annotated[
        bool, typer.Option("--propagate", help="Let the shocked factors move the others, by their covariance.")
    ] = False,
    replay: Annotated[
        str | None,
        typer.Option("--replay", metavar="EPISODE|START:END",
                     help="A past window, close to close: an episode such as lehman-2008, or two days."),
    ] = None,
    horizon: HorizonOption = 20,
    as_of: AsOfOption = None,
    prices: PricesOption = None,
    factor: FactorsOption = None,
    limits: Annotated[
        Path | None, typer.Option("--limits", help="YAML.  [default: limits.yaml beside the portfolio]")] = None,
    tails: Annotated[
        Tails, typer.Option("--tails", help="How the factors hang together when shocks are propagated.")
    ] = Tails.gaussian,
    level: Annotated[float, typer.Option("--level", help="Probability that the interval holds.")] = 0.9,
    seed: SeedOption = 0,
    fail_on: Annotated[FailOn | None, typer.Option("--fail-on", help="Exit with 3 if a limit is breached.")] = None,
    out: FilesOption = None,
    formats: FormatOption = "csv",
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Stress a portfolio: P&L by position, factor, sector and horizon, its interval, VaR and ES, and the breaches.

    With --out: the tables, report.html (which opens without JavaScript), result.json and a PNG of every chart.
    """
    from finllm.tools.export import parse_formats

    day, kinds, window = parse_as_of(as_of), parse_formats(formats), parse_replay(replay)
    check_out(out)
    inputs = read_inputs(portfolio, prices or (), day, factor or ())
    shocks = parse_shocks(shock or (), inputs.factors)
    if not shocks and window is None:
        raise InputError("nothing to stress: there is no --shock and no --replay",
                         fix="add --shock EQUITY_US=-20%, or --replay lehman-2008")  # fmt: skip
    allowed, notes = limits_for(limits, portfolio)
    from finllm.tools.pnl.engine import run_engine

    result = run_engine(
        inputs.portfolio, inputs.market, inputs.as_of, horizon, shocks, propagate=propagate, replay=window, seed=seed,
        level=level, tails=tails.value, factors=inputs.factors,
    )  # fmt: skip
    if not result.shocks:
        raise InputError(f"--replay {replay!r} moves no factor: no series has data there",
                         fix="replay a window inside the data, or add --prices that cover it")  # fmt: skip
    result = result.model_copy(update={"notes": (*result.notes, *notes)})
    breached = breaches_of(result, allowed)
    if out is not None:
        charts = charts_of(result, inputs.market, inputs.as_of)
        write_files(out, dict(_files(result, inputs.portfolio.name, breached, charts, kinds)))
    if as_json:
        print_json(stress_json(result, inputs.portfolio.name, breached))
    else:
        out_console().print(_view(result, inputs.portfolio.name, breached))
        if out is not None and not quiet:
            typer.echo(f"report.html and the tables are in {str(out)!r}", err=True)
    if fail_on and breached:
        raise typer.Exit(3)


def parse_replay(text: str | None) -> tuple[dt.date, dt.date] | str | None:
    """An episode's id, or a window written as 2008-09-12:2008-11-20. Errors: InputError for anything else."""
    from finllm.tools.pnl.episodes import episode

    if text is None:
        return None
    start, colon, end = text.partition(":")
    if not colon:
        return episode(text.strip()).id
    try:
        return dt.date.fromisoformat(start.strip()), dt.date.fromisoformat(end.strip())
    except ValueError as error:
        raise InputError(f"--replay {text!r} is not START:END", fix="write it as 2008-09-12:2008-11-20") from error


def breaches_of(result: EngineResult, limits: Limits) -> list[Breach]:
    """The limits that the result breaches."""
    from finllm.tools.pnl.book_pnl import StressResult, breaches

    shared = {name: getattr(result, name) for name in StressResult.model_fields if name != "shocks"}
    return breaches(StressResult(**shared, shocks=()), limits)


def stress_json(result: EngineResult, portfolio: str, breached: Sequence[Breach]) -> dict[str, object]:
    """What `--json` prints: the result's fields, the portfolio's name and the breaches."""
    return {"portfolio": portfolio, **result.model_dump(mode="json"),
            "breaches": [one.model_dump(mode="json") for one in breached]}  # fmt: skip


def charts_of(result: EngineResult, market: MarketStore, as_of: dt.date) -> tuple[Chart, ...]:
    from finllm.cli.signals import stress_index_chart
    from finllm.review.html import engine_charts

    return engine_charts(result, stress_index=stress_index_chart(market, as_of))


def _files(
    result: EngineResult, portfolio: str, breached: Sequence[Breach], charts: Sequence[Chart], formats: Sequence[Format]
) -> Iterator[tuple[str, bytes]]:
    import json

    from finllm.review.html import engine_html, page_files
    from finllm.tools.export import engine_tables, table_files

    yield from table_files(engine_tables(result), formats, "result").items()
    yield from page_files(clean_lines(engine_html(result, portfolio, charts, breached)), charts).items()
    said = json.dumps(stress_json(result, portfolio, breached), indent=2, allow_nan=False)
    yield "result.json", f"{said}\n".encode()


def _view(result: EngineResult, portfolio: str, breached: Sequence[Breach]) -> RenderableType:
    from rich.console import Group

    from finllm.cli.display.report import table, text

    share = f" ({float(result.total / result.book_value):+.2%} of the book)" if result.book_value else ""
    parts: list[RenderableType] = [
        text(f"Stress test of {portfolio}, as of {result.as_of}, over {result.horizon} trading days", "bold"),
        text(f"P&L {dollars(result.total)} USD{share}", "bold red" if result.total < 0 else "bold green"),
    ]
    if result.interval:
        low, high = dollars(result.interval.lower), dollars(result.interval.upper)
        parts.append(text(f"{low} to {high} USD at {result.interval.level:.0%}: {result.interval.method}"))
    parts += _titled("Shocks", table(("factor", "move", "size", "origin", "flags"),
                                     [_shock(row) for row in result.shocks], right=(1, 2)))  # fmt: skip
    if result.mahalanobis is not None:
        parts.append(text(f"Mahalanobis distance of the shocks with history: {result.mahalanobis:.1f} σ", "dim"))
    for title, gains in (("factor", result.by_factor), ("sector", result.by_sector),
                         ("position", result.by_position)):  # fmt: skip
        parts += _titled(f"P&L by {title}", _money(title, gains))
    parts += _titled("P&L by horizon", table(
        ("days", "USD", "low", "high"), right=(0, 1, 2, 3),
        rows=[(str(row.horizon), dollars(row.total), dollars(row.lower), dollars(row.upper))
              for row in result.by_horizon]))  # fmt: skip
    parts += _titled("Risk before and after, 97.5 %", _risk(result))
    parts += _titled("Limit breaches", table(
        ("limit", "of", "allowed", "loss"), right=(2, 3),
        rows=[(one.kind, one.subject, f"{one.limit:,.0f}", f"{one.loss:,.0f}") for one in breached]))  # fmt: skip
    if past := result.analogue:
        said = f"{past.title}, {past.start} to {past.end}: the book would move by {dollars(past.total)} USD"
        parts += _titled("Closest past event", text(said))
    left_out = [f"left out {one.id}: {one.reason}" for one in result.exclusions]
    parts += _titled("Notes", *(text(f"- {line}") for line in (*left_out, *result.notes)))
    return Group(*parts)


def _titled(title: str, *body: RenderableType) -> list[RenderableType]:
    from rich.text import Text

    return [Text(), Text(title, style="bold cyan"), *body]


def _shock(row: ShockRow) -> tuple[str, ...]:
    from finllm.tools.evidence import show

    size = "-" if row.sigma is None else show(row.sigma, "sigma")
    return row.factor, show(row.move, row.unit), size, row.origin, ", ".join(row.flags) or "-"


def _money(what: str, gains: Mapping[str, object]) -> RenderableType:
    from finllm.cli.display.report import table

    ordered = sorted(gains.items(), key=lambda item: float(str(item[1])))
    return table((what, "USD"), [(name, dollars(gain)) for name, gain in ordered], right=(1,))


def _risk(result: EngineResult) -> RenderableType:
    from finllm.cli.display.report import table

    pairs = (("one-day VaR", result.var_975_1d, result.var_975_1d_after),
             ("one-day ES", result.es_975_1d, result.es_975_1d_after))  # fmt: skip
    rows = [(name, f"{before.loss:,.0f}" if before else "-", f"{after.loss:,.0f}" if after else "-")
            for name, before, after in pairs]  # fmt: skip
    if result.liquidity:
        rows.append(("liquidity-adjusted ES (MAR33)", f"{result.liquidity.total:,.0f}", "-"))
    return table(("loss, USD", "before", "after"), rows, right=(1, 2))
