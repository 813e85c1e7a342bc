"""`finllm data`: prices and yields of your own, and the Federal Reserve's files, as series that every command uses."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finllm.cli.display.terminal import out_console, print_json
from finllm.cli.options import AsOfOption, JsonFlag, examples, help_if_alone, parse_as_of
from finllm.files import check_folder
from finllm.sessions.inputs import fed_folder
from finllm.settings import Settings, load_settings

if TYPE_CHECKING:
    from finllm.sessions.market_data import SeriesView


class Unit(StrEnum):
    price = "price"
    percent = "percent"
    bp = "bp"
    points = "points"


class Dates(StrEnum):
    day_first = "day-first"
    month_first = "month-first"


class Decimal(StrEnum):
    point = "point"
    comma = "comma"


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Market data beyond what comes with finllm.", epilog=examples(
        "finllm data add AAPL.csv DGS10.csv", "finllm data list", "finllm data check",
        "finllm data import fed downloads/"))  # fmt: skip
    group.callback(invoke_without_command=True)(help_if_alone)
    group.command("add", epilog=examples(
        "finllm data add AAPL.csv ^GSPC.csv DGS10.csv", "finllm data add download.csv --as AAPL",
        "finllm data add prices.csv --as SPX_CLOSE=SP500 --dates day-first",
        "finllm data add raw.csv --splits 2021-12-28=4:1 --json"))(add)  # fmt: skip
    group.command("list", epilog=examples("finllm data list --json"))(show_all)
    group.command("show", epilog=examples("finllm data show DGS10"))(show)
    group.command("check", epilog=examples("finllm data check AAPL --as-of 2026-06-30"))(check)
    group.command("remove", epilog=examples("finllm data remove AAPL"))(remove)
    sources = typer.Typer(help="Read files that you downloaded into $FINLLM_HOME/data. Nothing is fetched.")
    sources.callback(invoke_without_command=True)(help_if_alone)
    sources.command("fed", epilog=examples("finllm data import fed downloads/"))(fed)
    group.add_typer(sources, name="import")
    app.add_typer(group, name="data")


def add(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="CSV, text, Parquet or Excel.")],
    name: Annotated[
        list[str] | None,
        typer.Option("--as", metavar="NAME|COLUMN=NAME",
                     help="The name of a file's only series, or of one of its columns. May be repeated."),
    ] = None,
    unit: Annotated[
        Unit | None, typer.Option("--unit", help="Of the figures.  \\[default: by the name, else price]")] = None,
    dates: Annotated[
        Dates | None, typer.Option("--dates", help="How days such as 01.02.2026 are read.  \\[default: told by others]")
    ] = None,
    decimal: Annotated[
        Decimal | None, typer.Option("--decimal", help="The decimal mark.  \\[default: told by the figures]")] = None,
    zone: Annotated[
        str | None, typer.Option("--zone", metavar="America/New_York", help="Take days in this zone, where there are "
                                                                            "times.")] = None,
    sheet: Annotated[str | None, typer.Option("--sheet", metavar="NAME", help="Of a workbook of several.")] = None,
    splits: Annotated[
        list[str] | None,
        typer.Option("--splits", metavar="[NAME:]DAY=4:1", help="A split that the prices are not adjusted for; 1:1 "
                                                               "for a move that looks like one. May be repeated."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Keep prices, yields or index levels in the home; a series of a known name goes on where the packaged one ends.

    Read are tables of Yahoo, yfinance, Stooq, FRED, the ECB and the Treasury, and any with a column of days. What was
    decided about a file is said. All files are kept, or none.
    """
    from finllm.sessions.market_data import add_files, parse_names, parse_splits
    from finllm.tools.data.market import ReadOptions

    settings = _home()
    options = ReadOptions(
        names=parse_names(name or ()), unit=unit.value if unit else None, dates=dates.value if dates else None,
        decimal=decimal.value if decimal else None, zone=zone, sheet=sheet,
    )  # fmt: skip
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    found = add_files(files, settings.data_dir, options, parse_splits(splits or ()), now)
    if as_json:
        print_json({"added": [one.to_json() for one in found]})
        return
    _print_table(found)
    _print_lines(found)


def show_all(as_json: JsonFlag = False) -> None:
    """The series that were added to this home."""
    from finllm.sessions.market_data import views

    found = views(_home().data_dir, None, _today())
    if as_json:
        print_json({"series": [one.to_json() for one in found]})
    elif found:
        _print_table(found)
    else:
        _say("nothing was added; 'finllm data add FILE' keeps prices of your own")


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As 'finllm data list' has it.")],
    as_json: JsonFlag = False,
) -> None:
    """One added series: where it is from, how it was read, what it goes on with, and what is odd about it."""
    from finllm.sessions.market_data import views

    (found,) = views(_home().data_dir, [name], _today())
    if as_json:
        print_json(found.to_json())
        return
    about = found.kept.about
    rows = [
        ("name", about.name), ("unit", about.unit), ("frequency", about.frequency),
        ("days", f"{about.rows}, {about.first} to {about.last}"), ("file", about.file), ("read as", about.rule),
        ("sha256 of the file", about.file_sha256), ("sha256 as kept", found.kept.sha256),
        ("added", about.added.isoformat()), ("goes on with", found.extends or "-"), ("factor", found.factor or "-"),
    ]  # fmt: skip
    from finllm.cli.display.report import table

    out_console().print(table(("", ""), rows))
    _print_lines([found])


def check(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Of added series.  \\[default: all]")] = None,
    as_of: AsOfOption = None,
    as_json: JsonFlag = False,
) -> None:  # fmt: skip
    """Look through added series for gaps, splits, halts, shifted days, outliers and stale ends. The exit status is 0.

    What is found is named in every report that uses the series too. A split's day is not used until it is explained.
    """
    from finllm.sessions.market_data import views

    found = views(_home().data_dir, names or None, parse_as_of(as_of) or _today())
    if as_json:
        rows = [row for one in found for row in _findings(one)]
        print_json({"checked": [one.kept.about.name for one in found], "findings": rows})
        return
    for one in found:
        for line in one.findings:
            _say(f"{one.kept.about.name}: {line.words}")
    odd = sum(bool(one.findings) for one in found)
    _say(f"{len(found)} series checked, {odd} with something to look at")


def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As 'finllm data list' has them.")],
    as_json: JsonFlag = False,
) -> None:
    """Remove added series from the home, all or none. Runs that used them can then no longer be replayed."""
    from finllm.sessions.market_data import remove_series

    gone = remove_series(_home().data_dir, names)
    if as_json:
        print_json({"removed": gone})
    else:
        _say(f"removed {', '.join(gone)}")


def fed(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with the Federal Reserve's CSV tables.")],
    as_json: JsonFlag = False,
) -> None:
    """Import the supervisory scenario tables: 28 quarterly variables since 1976, and the severely adverse path.

    From then on every command and new run of this home uses them for rates, spreads, house prices and the dollar.
    """
    from finllm.tools.data.fed import import_fed

    done = import_fed(folder, fed_folder(_home()))
    if as_json:
        print_json(done.model_dump(mode="json"))
        return
    from finllm.cli.display.report import table, text

    console = out_console()
    path = f", and a path of {done.path_quarters} quarters" if done.path_quarters else ""
    console.print(text(f"{done.variables} variables over {done.quarters} quarters, {done.first} to {done.last}{path}, "
                       f"are in {done.folder}"))  # fmt: skip
    console.print(table(("file", "sha256"), [(name, digest) for name, digest in done.sources.items()]))


def _home() -> Settings:
    settings = load_settings().settings
    check_folder(settings.home, "FINLLM_HOME")
    return settings


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def _findings(view: SeriesView) -> list[dict[str, str]]:
    return [{"name": view.kept.about.name, "kind": one.kind, "first": str(one.first), "last": str(one.last),
             "words": one.words} for one in view.findings]  # fmt: skip


def _print_table(found: Sequence[SeriesView]) -> None:
    from finllm.cli.display.report import table

    rows = [
        (one.kept.about.name, one.kept.about.unit, one.kept.about.frequency, str(one.kept.about.rows),
         f"{one.kept.about.first} to {one.kept.about.last}", one.factor or "-", Path(one.kept.about.file).name)
        for one in found
    ]  # fmt: skip
    out_console().print(table(("series", "unit", "frequency", "rows", "days", "factor", "file"), rows, right=(3,)))


def _print_lines(found: Sequence[SeriesView]) -> None:
    """What was decided about the series, and what is odd about them, each said once."""
    told = [line for one in found for line in one.notes]
    told += [f"{one.kept.about.name}: {line.words}" for one in found for line in one.findings]
    for line in dict.fromkeys(told):
        _say(f"- {line}")


def _say(line: str) -> None:
    from finllm.cli.display.report import text

    out_console().print(text(line))
