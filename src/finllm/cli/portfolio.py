"""`finllm portfolio check`: how a portfolio's file is understood, before anything is computed on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.book_options import PricesOption
from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import AsOfOption, JsonFlag, examples, help_if_alone, parse_as_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finllm.tools.data.books.check import CheckedBook, CheckedRow

SHOWN = 10
"""Rows that the terminal shows of each status; --json has all."""


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Portfolios: how a file is understood.", epilog=examples(
        "finllm portfolio check holdings.xlsx", "finllm portfolio check holdings.csv --json"))  # fmt: skip
    group.callback(invoke_without_command=True)(help_if_alone)
    group.command("check", epilog=examples(
        "finllm portfolio check holdings.xlsx --sheet Current",
        "finllm portfolio check depot.csv --dates day-first --decimal comma --save-map",
    ))(check)  # fmt: skip
    app.add_typer(group, name="portfolio")


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TSV, text, Parquet or Excel, with any columns.")],
    map_file: Annotated[
        Path | None, typer.Option("--map", metavar="MAP.yaml", help="What the columns are; else the map beside FILE.")
    ] = None,
    save_map: Annotated[
        bool, typer.Option("--save-map", help="Write FILE.map.yaml beside FILE: every command then reads it so.")
    ] = False,
    sheet: Annotated[str | None, typer.Option("--sheet", metavar="NAME", help="Sheet of an Excel workbook.")] = None,
    dates: Annotated[
        str | None, typer.Option("--dates", metavar="day-first|month-first", help="How days such as 01.02.2026 read.")
    ] = None,
    decimal: Annotated[
        str | None, typer.Option("--decimal", metavar="point|comma", help="The decimal mark, where 1.234 may be two.")
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="For all rows, where FILE has none: currency=USD. Repeatable."
        ),
    ] = None,
    prices: PricesOption = None,
    as_of: AsOfOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show how a portfolio's file is understood: each column, each row with its value, what is refused and why.

    Every other command reads the file in the same way. Exits with 2 where the file as a whole may be read in two ways.
    """
    from finllm.sessions.books import check_portfolio

    asked = parse_as_of(as_of)
    checked, saved = check_portfolio(file, map_file, sheet=sheet, dates=dates, decimal=decimal,
                                     constants=constants or (), prices=prices or (), as_of=asked,
                                     save=save_map)  # fmt: skip
    if as_json:
        print_json({**checked.model_dump(mode="json"), "map": None if saved is None else str(saved)})
    else:
        out_console().print(_view(checked, saved))
    if (why := checked.why_nothing) is not None:
        typer.echo(f"error: {why}\n  fix: give a column of values or prices, or a price file by --prices", err=True)
        raise typer.Exit(2)


def _view(checked: CheckedBook, saved: Path | None) -> RenderableType:
    from rich.console import Group

    from finllm.cli.display.report import table, text

    parts: list[RenderableType] = [text(_headline(checked)), text("")]
    parts.append(table(("column", "is", "why"), [(one.column, one.field or "-", one.why) for one in checked.columns]))
    for status in ("refused", "doubtful", "unvalued", "read"):
        rows = [one for one in checked.positions if one.status == status]
        if rows:
            more = f", the first {SHOWN}" if len(rows) > SHOWN else ""
            parts += [
                text(""),
                text(f"{status.capitalize()}: {len(rows)} {'rows' if len(rows) > 1 else 'row'}{more}", "bold"),
                _rows(rows[:SHOWN]),
            ]
    if checked.notes:
        parts += [text(""), text("Notes", "bold"), *(text(f"  {note}") for note in checked.notes)]
    if saved is not None:
        parts += [text(""), text(f"the map is in {str(saved)!r}; every command reads the file by it")]
    return Group(*parts)


def _headline(checked: CheckedBook) -> str:
    found = checked.coverage
    share = "" if found.share is None else f", {found.share:.1%} of its known gross value"
    left = [f"{count} {what}" for count, what in ((found.refused, "refused"), (found.doubtful, "doubtful"),
                                                  (found.unvalued, "without a value")) if count]  # fmt: skip
    said = f" ({', '.join(left)})" if left else ""
    return (f"{checked.name}: {found.read + found.doubtful} of {found.rows} rows are read and valued{share}{said}; "
            f"{checked.value_base:,.0f} {checked.base_currency}")  # fmt: skip


def _rows(rows: list[CheckedRow]) -> RenderableType:
    from finllm.cli.display.report import table

    def figure(value: float | None) -> str:
        return "-" if value is None else f"{value:,.0f}"

    return table(
        ("row", "id", "class", "quantity", "market value", "in", "base value", "why"),
        [(str(one.row), one.id, one.asset_class or "-", "-" if one.quantity is None else f"{one.quantity:,.12g}",
          figure(one.market_value), one.currency or "-", figure(one.value_base), one.reason) for one in rows],
        right=(0, 3, 4, 6),
    )  # fmt: skip
