"""`finllm pnl explain`: why one version of a book, or one run, comes to another figure than the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.book_options import CurrencyOption, FilesOption, FormatOption, PricesOption, dollars
from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import JsonFlag, check_out, examples, help_if_alone, parse_as_of, write_out
from finllm.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finllm.tools.pnl.explained import Explained

SHOWN = 15
"""Positions that the terminal shows, those that changed most; --json has all."""


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Profit and loss between two versions.", epilog=examples(
        "finllm pnl explain book.csv --from 2022-05-31 --to 2022-06-30"))  # fmt: skip
    group.callback(invoke_without_command=True)(help_if_alone)
    group.command("explain", epilog=examples(
        "finllm pnl explain book.csv --from 2022-05-31 --to 2022-06-30",
        "finllm pnl explain may.csv june.csv --from 2022-05-31 --to 2022-06-30 --json",
        "finllm pnl explain 20220630-081500-ceasefire-1f3a 20220701-081500-ceasefire-77b0",
    ))(explain)  # fmt: skip
    app.add_typer(group, name="pnl")


def explain(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A portfolio's file, or the id of a run.")],
    new: Annotated[
        str | None, typer.Argument(metavar="[NEW]", help="The same, of the newer version.  \\[default: OLD, on another "
                                                         "day]")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="The day of OLD, after the close.  \\[default: "
                                                                      "that of NEW]")] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="The day of NEW, after the close.  \\[default: the "
                                                                    "last of the data]")] = None,
    prices: PricesOption = None,
    currency: CurrencyOption = None,
    out: FilesOption = None,
    formats: FormatOption = "csv",
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Say why two versions come to different figures: time, each factor, own prices, trades, and what is left.

    Of two books, or one on two days, the value is explained; of two runs, the P&L under their shocks. The parts sum to
    the difference to the cent.
    """
    from finllm.tools.export import parse_formats, table_files

    kinds, first, last = parse_formats(formats), parse_as_of(start), parse_as_of(end)
    check_out(out)
    second = old if new is None else new
    files = [Path(one).expanduser().is_file() for one in (old, second)]
    if all(files):
        from finllm.sessions.pnl_explain import explain_files

        found = explain_files(Path(old).expanduser(), Path(second).expanduser(), first, last, prices or (), currency)
    elif any(files):
        raise InputError("one of the two is a file and the other is none", fix="give two books, or the ids of two runs")
    else:
        found = _of_runs(old, second)
    if out is not None:
        from finllm.sessions.pnl_explain import explained_tables

        said = json.dumps(_as_json(found), indent=2, allow_nan=False)
        write_out(out, table_files(explained_tables(found), kinds, "pnl") | {"pnl.json": f"{said}\n".encode()})
    if as_json:
        print_json(_as_json(found))
    else:
        out_console().print(_view(found))


def _of_runs(old: str, new: str) -> Explained:
    from finllm.cli.history import find_run
    from finllm.sessions.pnl_explain import explain_on_record
    from finllm.settings import load_settings

    settings = load_settings().settings
    return explain_on_record(find_run(old, settings), find_run(new, settings), settings)


def _as_json(found: Explained) -> dict[str, object]:
    return {**found.model_dump(mode="json"), "difference": float(found.difference)}


def _covered(found: Explained) -> list[RenderableType]:
    """How much of the book the values are of: one line where that is the same on both days."""
    from finllm.cli.display.report import text

    if found.coverage is None:
        return []
    first, last = (one.gap or one.words for one in found.coverage)
    if first == last:
        said = [f"{first}, on both days" if found.start != found.end else first]
    else:
        said = [f"{found.start}: {first}", f"{found.end}: {last}"]
    return [text(line, "" if all(one.complete for one in found.coverage) else "bold red") for line in said]


def _view(found: Explained) -> RenderableType:
    from rich.console import Group

    from finllm.cli.display.report import table, text

    days = f"{found.start} to {found.end}" if found.start != found.end else f"{found.end}"
    parts: list[RenderableType] = [
        *_covered(found),
        text(f"{found.what} in {found.currency}, {days}: {found.before:,.0f} to {found.after:,.0f}", "bold"),
        text(f"difference {dollars(found.difference)}", "bold red" if found.difference < 0 else "bold green"),
        text(""),
        table(("part", "", found.currency), right=(2,), rows=[
            (one.kind, one.name if one.name != one.kind else "", dollars(one.amount)) for one in found.parts]),
    ]  # fmt: skip
    if changed := sorted(found.by_position.items(), key=lambda item: -abs(item[1]))[:SHOWN]:
        more = len(found.by_position) - len(changed)
        title = "By position" + (f", the first {SHOWN} of {more + SHOWN}" if more else "")
        rows = [(id, dollars(one)) for id, one in changed]
        parts += [text(""), text(title, "bold cyan"), table(("position", found.currency), rows, right=(1,))]
    return Group(*parts, *(text(f"- {line}") for line in found.notes))
