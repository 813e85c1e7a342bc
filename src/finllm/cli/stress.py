"""`finllm stress`: shocks in, P&L with its cuts, bands and plausibility out; no model is asked."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
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
    PropagateFlag,
    SeedOption,
    dollars,
)
from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import (
    AsOfOption,
    FailOnOption,
    JsonFlag,
    QuietFlag,
    check_out,
    examples,
    parse_as_of,
    write_out,
)
from finllm.sessions.inputs import find_limits, limitable, read_inputs
from finllm.sessions.stress import StressQuestion, answer_stress, path_story

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finllm.sessions.stress import StressAnswer
    from finllm.tools.pnl.outcome import AppliedShock, EngineResult


class Tails(StrEnum):
    gaussian = "gaussian"
    vine = "vine"


def add_to(app: typer.Typer) -> None:
    app.command("stress", epilog=examples(
        "finllm stress --shock OIL_WTI=+40% --shock EQUITY_US=-3sigma --hold",
        "finllm stress --path fed-severely-adverse-2025 --as-of 2022-12-28",
        "finllm stress --portfolio book.csv --replay lehman-2008 --json",
        "finllm stress --shock EQUITY_US=-10% --trade AAPL=-2000 --trade XOM=+1000",
        "finllm stress --shock RATE_US_10Y=+150bp --replay 2022-01-03:2022-10-12 --out report --format csv,xlsx",
    ))(stress)  # fmt: skip


def stress(
    portfolio: PortfolioOption = None,
    shock: Annotated[list[str] | None, typer.Option("--shock", "-s", metavar="FACTOR=MOVE", help=SHOCK_HELP)] = None,
    propagate: PropagateFlag = None,
    replay: Annotated[
        str | None,
        typer.Option("--replay", metavar="EPISODE|START:END",
                     help="A past window, close to close: an episode such as lehman-2008, or two days."),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option("--path", metavar="FILE|SCENARIO", help="Several steps in the place of shocks: a scenario with a "
                                                             "path, by its own day, factors and currency unless an "
                                                             "option says another; or a CSV with columns step, days "
                                                             "and factors."),
    ] = None,
    horizon: HorizonOption = 20,
    as_of: AsOfOption = None,
    prices: PricesOption = None,
    factor: FactorsOption = None,
    currency: CurrencyOption = None,
    limits: LimitsOption = None,
    tails: Annotated[
        Tails, typer.Option("--tails", help="How the factors hang together when shocks are propagated.")
    ] = Tails.gaussian,
    level: Annotated[float, typer.Option("--level", help="Probability that the interval holds.")] = 0.9,
    seed: SeedOption = 0,
    stressed: Annotated[bool, typer.Option("--stressed", help="Complete the other factors by the covariance of stress "
                                           "at any size of shock, as a run does in a stressed market.")] = False,
    trade: Annotated[
        list[str] | None,
        typer.Option("--trade", metavar="ID=QUANTITY",
                     help="What a trade would change: units of a position or of a series with prices, negative sold; "
                          "money of a position held by its value. May be repeated."),
    ] = None,
    age: AgeFlag = None,
    fail_on: FailOnOption = None,
    out: FilesOption = None,
    formats: FormatOption = "csv",
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Stress a portfolio: P&L by position, factor, sector and horizon, its interval, VaR and ES, and the breaches.

    With --out: the tables, report.html (which opens without JavaScript), result.json and a PNG of every chart.
    """
    from finllm.tools.export import parse_formats

    day, kinds = parse_as_of(as_of), parse_formats(formats)
    steps = None if path is None else _path_file(path)
    check_out(out)
    named = tuple(factor or ())
    if steps is not None and (story := path_story(steps)) is not None:
        day, currency = day or story.as_of, currency or story.currency
        propagate, age = story.propagate if propagate is None else propagate, story.age if age is None else age
        named = tuple(dict.fromkeys((*story.factors, *named)))
    question = StressQuestion(shock or (), replay, horizon, propagate, tails.value, level, seed, trade or (), steps,
                              stressed, bool(age))  # fmt: skip
    inputs = read_inputs(portfolio, prices or (), day, named, currency)
    allowed = find_limits(limits, portfolio, limitable(inputs.factors, inputs.market), inputs.currency)
    answer = answer_stress(inputs, question, allowed)
    if out is not None:
        write_out(out, answer.files(kinds))
        if answer.undrawn is not None:
            typer.echo(f"warning: {answer.undrawn}", err=True)
    if as_json:
        print_json(answer.to_json())
    else:
        out_console().print(_view(answer))
        if out is not None and not quiet:
            typer.echo(f"report.html and the tables are in {str(out)!r}", err=True)
    if answer.against.failed_on(fail_on or ()):
        raise typer.Exit(3)


def _path_file(name: str) -> Path:
    from finllm.sessions.requests import find_scenario

    file = Path(name).expanduser()
    return file if file.is_file() else find_scenario(name)


def _view(answer: StressAnswer) -> RenderableType:
    from rich.console import Group

    from finllm.cli.display.limits import limit_sections
    from finllm.cli.display.report import headline, table, text
    from finllm.cli.display.risk import risk_sections
    from finllm.tools.data.books.book import first_exclusions

    result = answer.result
    share = "" if result.share is None else f" ({result.share:+.2%} {result.of_what})"
    parts: list[RenderableType] = [
        headline(f"Stress test of {answer.portfolio}, as of {result.as_of}, {result.over}", result.coverage),
        *(text(line, "bold yellow") for line in result.first),
        text(f"P&L {dollars(result.total)} {result.currency}{share}", "bold red" if result.total < 0 else "bold green"),
    ]  # fmt: skip
    if result.interval:
        low, high = dollars(result.interval.lower), dollars(result.interval.upper)
        parts.append(text(f"{low} to {high} {result.currency}, a {result.interval.name}: {result.interval.method}"))
        parts.append(text(f"its width: {result.interval.shares}", "dim"))
        if result.interval.ends_at(result.total):
            parts.append(text("one of its ends is the P&L itself: what is left open points the other way", "dim"))
        if result.interval.untested:
            parts.append(text(f"its level: {result.interval.untested}", "dim"))
    header = ("factor", "move", "size", "others imply", "off by", "origin", "flags")
    parts += _titled("Shocks", table(header, [_shock(row) for row in result.shocks], right=(1, 2, 3, 4)))
    if result.joint:
        parts.append(text(result.joint.words, "bold yellow" if result.joint.apart else ""))
    parts += [text(f"{row.factor}: {row.window}", "dim") for row in result.shocks]
    for title, gains in (("factor", result.by_factor), ("sector", result.by_sector),
                         ("position", result.by_position)):  # fmt: skip
        parts += _titled(f"P&L by {title}", _money(title, gains, result.currency))
    parts += _titled("P&L by horizon", table(
        ("days", result.currency, "low", "high"), right=(0, 1, 2, 3),
        rows=[(str(row.horizon), dollars(row.total), dollars(row.lower), dollars(row.upper))
              for row in result.by_horizon]))  # fmt: skip
    parts += _titled("Risk before and after, 97.5 %", _risk(result))
    for title, body in limit_sections(answer.held, answer.restricted):
        parts += _titled(title, body)
    for title, body in risk_sections(result, answer.increments, answer.walked):
        parts += _titled(title, body)
    if past := result.analogue:
        said = (f"{past.title}, {past.start} to {past.end}, the nearest by its moves ({past.distance:.1f} σ away over "
                f"{', '.join(past.shared)}): the book would move by {dollars(past.total)} "
                f"{result.currency}")  # fmt: skip
        parts += _titled("Closest past event", text(said))
    left_out = [f"left out {one.id}: {one.reason}" for one in first_exclusions(result.exclusions)]
    if more := len(result.exclusions) - len(left_out):
        left_out.append(f"and {more} more are left out")
    parts += _titled("Notes", *(text(f"- {line}") for line in (*left_out, *result.notes)))
    return Group(*parts)


def _titled(title: str, *body: RenderableType) -> list[RenderableType]:
    from rich.text import Text

    return [Text(), Text(title, style="bold cyan"), *body]


def _shock(row: AppliedShock) -> tuple[str, ...]:
    from finllm.tools.evidence import show

    size, off = ("-" if one is None else show(one, "sigma") for one in (row.sigma, row.given_others))
    implied = "-" if row.implied is None else show(row.implied, row.unit)
    return row.factor, show(row.move, row.unit), size, implied, off, row.origin, ", ".join(row.flags) or "-"


def _money(what: str, gains: Mapping[str, object], currency: str) -> RenderableType:
    from finllm.cli.display.report import table

    ordered = sorted(gains.items(), key=lambda item: float(str(item[1])))
    return table((what, currency), [(name, dollars(gain)) for name, gain in ordered], right=(1,))


def _risk(result: EngineResult) -> RenderableType:
    from finllm.cli.display.report import table
    from finllm.tools.pnl.coverage import of_the_book

    pairs = (("one-day VaR", result.var_975_1d, result.var_975_1d_after),
             ("one-day ES", result.es_975_1d, result.es_975_1d_after))  # fmt: skip
    rows = [
        (of_the_book(name, before.coverage) if before else name, f"{before.loss:,.0f}" if before else "-",
         f"{after.loss:,.0f}" if after else "-")
        for name, before, after in pairs
    ]  # fmt: skip
    if result.liquidity:
        rows.append(("liquidity-adjusted ES (MAR33)", f"{result.liquidity.total:,.0f}", "-"))
    return table((f"loss, {result.currency}", "before", "after"), rows, right=(1, 2))
