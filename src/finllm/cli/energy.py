"""`finllm energy`: joules and grams of the calls on record, by run, tenant, node or agent, and grams per forecast."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import JsonFlag, examples
from finllm.errors import InputError
from finllm.files import write_file
from finllm.settings import load_settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from finllm.review.energy_use import By, EnergyUse

FORMS = (".json", ".csv", ".parquet")


def add_to(app: typer.Typer) -> None:
    app.command("energy", epilog=examples(
        "finllm energy", "finllm energy --from 2026-11-01 --to 2026-11-30 --by tenant",
        "finllm energy --by agent --out energy.parquet --json",
    ))(energy)  # fmt: skip


def energy(
    since: Annotated[
        str | None, typer.Option("--from", metavar="WHEN", help="First day (UTC), or time.  \\[default: the oldest]")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="WHEN", help="Last day (UTC), or time.  \\[default: now]")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="run, tenant, node (a backend, where it runs) or agent.")] = "run",
    out: Annotated[
        list[Path] | None, typer.Option("--out", "-o", metavar="FILE", help="Write a .json, .csv or .parquet file too. "
                                                                            "Repeatable.")] = None,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Show what calls on record used: joules, gCO₂e and both per forecast, each measured, modelled or from a table.

    Grams are known of calls that were made while FINLLM_CARBON was set. An answer from the record uses nothing again.
    """
    from finllm.cli.history import listing
    from finllm.review.energy_use import EnergyUse, UsedPart, energy_use

    wanted, files = _by(by), out or []
    for path in files:
        if path.suffix.lower() not in FORMS:
            raise InputError(f"--out {str(path)!r}: {path.suffix or 'no ending'!r} is not a form",
                             fix=f"end it with {', '.join(FORMS)}")  # fmt: skip
    begin = _time(since, "--from") or dt.datetime.fromtimestamp(0, dt.UTC)
    end = _time(until, "--to", last=True) or dt.datetime.now(dt.UTC)
    if end <= begin:
        told = f"--to {until}" if until else "the present"
        raise InputError(f"{told} is not after the begin of --from {since}",
                         fix="turn them round" if until else "give a --from that has begun")  # fmt: skip
    with listing(load_settings().settings) as ledger:
        none = UsedPart("all", 0, 0.0, 0, None, "not known", None, "not known", 0, "")
        found = EnergyUse(begin.isoformat(), end.isoformat(), wanted, (), none, 0) if ledger is None else \
            energy_use(ledger, begin, end, wanted)  # fmt: skip
    for path in files:
        write_file(path, _file(found, path.suffix.lower()), fix="give --out a file that you may write")
    if as_json:
        print_json(found.to_json())
    else:
        out_console().print(view(found))


def view(found: EnergyUse) -> RenderableType:
    from rich.console import Group

    from finllm.cli.display.report import table, text
    from finllm.review.energy_use import NOT_CALLED, SCI

    rows = [
        (one.what, str(one.calls), str(one.tokens), _figure(one.joules), one.joules_from, _figure(one.grams),
         one.grams_from + (f", not of {one.uncharged} calls" if one.uncharged and one.grams is not None else ""))
        for one in (*found.parts, found.total)
    ]  # fmt: skip
    each = f"{found.forecasts} forecasts: {_figure(found.joules_each)} J each, {_figure(found.sci)} gCO₂e each"
    lines = [each, f"gCO₂e each: {SCI}.", f"All figures are {NOT_CALLED}."]
    if found.total.uncharged:
        lines.append("Grams are known of calls that were made while FINLLM_CARBON was set.")
    head = (found.by, "calls", "tokens", "J", "J is", "gCO₂e", "gCO₂e is")
    return Group(table(head, rows, right=(1, 2, 3, 5), whole=(0,)), *(text(line) for line in lines),
                 *([text(f"From: {found.total.basis}.")] if found.total.basis else []))  # fmt: skip


def _file(found: EnergyUse, form: str) -> bytes:
    from finllm.tools.export import table_files

    if form == ".json":
        return f"{json.dumps(found.to_json(), indent=2, allow_nan=False)}\n".encode()
    return table_files([found.table()], ("parquet" if form == ".parquet" else "csv",), "")[f"energy{form}"]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _by(text: str) -> By:
    match text:
        case "run" | "tenant" | "node" | "agent":
            return text
        case _:
            raise InputError(f"--by {text!r} is none of the parts", fix="use run, tenant, node or agent")


def _time(text: str | None, option: str, *, last: bool = False) -> dt.datetime | None:
    """A time in UTC; of a day its beginning, or, where it is the `last`, its end."""
    if text is None:
        return None
    try:
        when = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{option} {text!r} is no time", fix="write it as 2026-11-30 or 2026-11-30T18:00Z") from error
    when = when if when.tzinfo else when.replace(tzinfo=dt.UTC)
    return when + dt.timedelta(days=1) if last and len(text) == len("2026-11-30") else when
