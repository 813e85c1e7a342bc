"""`finllm hedge`: the cheapest trades that bring a loss, a VaR or a factor under its limit; no model is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.book_options import (
    SHOCK_HELP,
    AgeFlag,
    CurrencyOption,
    FilesOption,
    FormatOption,
    LimitsOption,
    PortfolioOption,
    PricesOption,
    PropagateFlag,
    dollars,
)
from finllm.cli.options import AsOfOption, FailOnOption, JsonFlag, QuietFlag, check_out, examples, give, parse_as_of
from finllm.plain_text import trading_days
from finllm.sessions.hedge import HedgeAnswer, HedgeQuestion, answer_hedge
from finllm.sessions.inputs import find_limits, limitable, read_inputs
from finllm.sessions.requests import find_scenario

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from finllm.tools.pnl.hedge import HedgeResult, HedgeTarget, HedgeTrade
    from finllm.tools.pnl.limits import Unchecked
    from finllm.tools.pnl.outcome import ExpectedShortfall, ValueAtRisk


def add_to(app: typer.Typer) -> None:
    app.command("hedge", epilog=examples(
        "finllm hedge --shock EQUITY_US=-20% --loss 5%",
        "finllm hedge hormuz-blockade --portfolio book.csv --limit OIL_WTI --with instruments.yaml",
        "finllm hedge --var 250000 --json",
    ))(hedge)  # fmt: skip


def hedge(
    scenario: Annotated[
        str | None, typer.Argument(metavar="[SCENARIO]", help="A scenario file, or the name of a shipped one: its own "
                                                              "shocks, replay or path, horizon and day; its story is "
                                                              "not read.")] = None,
    portfolio: PortfolioOption = None,
    shock: Annotated[list[str] | None, typer.Option("--shock", "-s", metavar="FACTOR=MOVE", help=SHOCK_HELP)] = None,
    replay: Annotated[
        str | None, typer.Option("--replay", metavar="EPISODE|START:END", help="A past window, close to close.")
    ] = None,
    propagate: PropagateFlag = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", metavar="NAME", help="A limit of the limits file: total_loss, "
                                       "var_975_1d, es_975_1d, a factor or a sector. May be repeated.")] = None,
    loss: Annotated[
        str | None, typer.Option("--loss", metavar="10%|500000", help="The most that may be lost in the scenario.")
    ] = None,
    var: Annotated[
        str | None, typer.Option("--var", metavar="AMOUNT|1%", help="The largest one-day VaR, 97.5 %.")
    ] = None,
    factor: Annotated[
        list[str] | None, typer.Option("--factor", metavar="FACTOR=AMOUNT", help="The most that may be lost through a "
                                       "factor in the scenario. May be repeated.")] = None,
    instruments: Annotated[
        Path | None, typer.Option("--with", metavar="FILE", help="What may be traded, a lot each, with costs: YAML or "
                                  "any table.  \\[default: a short list of futures and a put]")] = None,
    horizon: Annotated[
        int | None, typer.Option("--horizon", metavar="DAYS", min=1, help="Trading days that the shocks take.  "
                                                                          "\\[default: the scenario's, else 20]")
    ] = None,
    as_of: AsOfOption = None,
    prices: PricesOption = None,
    currency: CurrencyOption = None,
    limits: LimitsOption = None,
    age: AgeFlag = None,
    fail_on: FailOnOption = None,
    out: FilesOption = None,
    formats: FormatOption = "csv",
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Find the cheapest trades that bring a loss, a VaR or a factor under its limit, with what a calm month costs.

    Without a limit: those that are breached, else the largest factor's loss to its half. The book is revalued in full
    with its trades. With --fail-on breach, exits with 3 where no trades of the list keep the limits, or with them one
    of the book's is breached or not checked.
    """
    from finllm.tools.data.scenario import load_scenario
    from finllm.tools.export import parse_formats

    del quiet  # nothing is said on stderr but errors; the option is that of every command
    day, kinds = parse_as_of(as_of), parse_formats(formats)
    check_out(out)
    story = load_scenario(find_scenario(scenario)) if scenario is not None else None
    question = HedgeQuestion(story, shock or (), replay, horizon, propagate, limit or (), loss, var, factor or (),
                             instruments, age)  # fmt: skip
    inputs = read_inputs(portfolio, prices or (), day or (story.as_of if story else None), (), currency)
    allowed = find_limits(limits, portfolio, limitable(inputs.factors, inputs.market), inputs.currency)
    answer = answer_hedge(inputs, question, allowed)
    give(answer, _view, out=out, formats=kinds, as_json=as_json, fail_on=fail_on or ())


def _view(answer: HedgeAnswer) -> RenderableType:
    from rich.console import Group

    from finllm.cli.display.report import headline, table, text

    result, code, before = answer.result, answer.result.currency, answer.before
    parts: list[RenderableType] = [
        headline(f"Hedge of {answer.portfolio}, as of {result.as_of}: {_verdict(result)}", before.coverage),
        *(text(line, "bold yellow") for line in answer.first),
        text(f"limits: {answer.chosen}; over {trading_days(result.horizon)}", "dim"),
        text(f"a round trip costs {result.cost:,.0f} {code}; a calm month (20 trading days, nothing moves) brings "
             f"{dollars(result.calm_month)} {code}", "bold"),
        text(""),
        table(("limit", "of", f"at most, {code}", "before", "after", ""), right=(2, 3, 4), rows=[
            (one.kind, one.subject, f"{one.limit:,.0f}", f"{one.before:,.0f}", f"{one.after:,.0f}",
             _kept(one)) for one in result.targets]),
        *(text(f"{one.kind} of {one.subject} is not checked: {one.unchecked}", "bold yellow")
          for one in result.targets if one.unchecked),
        *(text(str(one), "yellow") for one in _others(answer)),
        text(""), text("Trades", "bold cyan"), _trades(result.trades, code),
        text(""), text("Each instrument alone", "bold cyan"),
        _trades([one for one, _ in result.alone], code, [kept for _, kept in result.alone],
                checked=not any(one.unchecked for one in result.targets)),
        text(""),
        table((f"loss, {code}", "before", "after"), right=(1, 2), rows=[
            ("in the scenario", dollars(-result.total_before), dollars(-result.total_after)),
            (_tail("one-day VaR, 97.5 %", before.var_975_1d), _maybe(result.var_975_1d_before),
             _maybe(result.var_975_1d_after)),
            (_tail("one-day ES, 97.5 %", before.es_975_1d), _maybe(result.es_975_1d_before),
             _maybe(result.es_975_1d_after))]),
        *(text(f"- {line}") for line in result.notes),
    ]  # fmt: skip
    return Group(*parts)


def _verdict(result: HedgeResult) -> str:
    if result.reached:
        return "the trades below keep the limits" if result.trades else "the limits are kept without a trade"
    if result.open:
        by = "with the trades below" if result.trades else "without a trade"
        return f"the limits are not checked in full; what they could be checked on keeps them {by}"
    return "no trades of the list keep the limits; those below come nearest"


def _kept(one: HedgeTarget) -> Text:
    from finllm.cli.display.report import text

    if not one.met:
        return text("not kept", "bold red")
    return text("not checked", "bold yellow") if one.unchecked else text("kept")


def _others(answer: HedgeAnswer) -> list[Unchecked]:
    """The book's other limits that could not be checked."""
    told = {(one.kind, one.subject) for one in answer.result.targets}
    return [one for one in answer.held.unchecked if (one.kind, one.subject) not in told]


def _tail(name: str, found: ValueAtRisk | ExpectedShortfall | None) -> str:
    from finllm.tools.pnl.coverage import of_the_book

    return name if found is None else of_the_book(name, found.coverage)


def _maybe(amount: object) -> str:
    return "-" if amount is None else f"{amount:,.0f}"


def _trades(trades: object, code: str, kept: list[bool] | None = None, *, checked: bool = True) -> RenderableType:
    from finllm.cli.display.report import table

    rows: list[tuple[str, ...]] = []
    listed: list[HedgeTrade] = list(trades)  # pyright: ignore[reportArgumentType]
    for at, one in enumerate(listed):
        side = "buy" if one.lots > 0 else "sell" if one.lots else "-"
        row = (one.id, side, f"{abs(one.lots):,}", dollars(one.notional),
               f"{one.cost:,.0f}", dollars(one.calm_month), dollars(one.gain), one.name)  # fmt: skip
        rows.append(row if kept is None else (*row[:-1], "no" if not kept[at] else "yes" if checked else "not checked"))
    last = "what it is" if kept is None else "enough"
    header = ("instrument", "side", "lots", f"notional, {code}", "round trip", "calm month", "in the scenario", last)
    return table(header, rows, right=(2, 3, 4, 5, 6))
